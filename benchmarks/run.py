"""One run: everybody started, checked, warmed up, measured in turns, and ended."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from benchmarks import cpu, environment, load, memory, processes, respawn, venv
from benchmarks.errors import BenchmarkError
from benchmarks.frontend import Frontend
from benchmarks.pages import HELLO, TRAC, WIKI, Page, all_pages
from benchmarks.processes import Program
from benchmarks.results import PeerResult, Plan
from benchmarks.service import Service
from workers import prctl

Say = Callable[[str], None]


def run(plan: Plan, say: Say) -> tuple[PeerResult, ...]:
    """Raises BenchmarkError when nothing can be measured; one peer's failure is in its result."""
    # Otherwise what spawn-fcgi leaves behind would be init's, and nobody could wait for its end.
    prctl.become_subreaper()
    before = {process.pid for process in processes.descendants()}
    with tempfile.TemporaryDirectory(prefix="ts-bench-") as directory:
        run = _Run(plan, Path(directory), say)
        try:
            return run.carry_out()
        finally:
            # Bounded, and the one thing that an impatient second Ctrl-C must not cut short.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            processes.end(run.programs)
            processes.kill(p for p in processes.descendants() if p.pid not in before)


class _Run:
    def __init__(self, plan: Plan, directory: Path, say: Say) -> None:
        self.programs: list[Program] = []
        self._plan = plan
        self._directory = directory
        self._env = directory / "env"
        self._say = say
        self._results = {peer.name: PeerResult(peer) for peer in plan.peers}
        self._services: dict[str, dict[str, Service]] = {}

    def carry_out(self) -> tuple[PeerResult, ...]:
        self._install()
        self._say("creating a Trac environment")
        environment.create(self._env)
        self._start_frontend()
        self._start_services()
        self._warm_up()
        for number in range(1, self._plan.rounds + 1):
            self._say(f"round {number} of {self._plan.rounds}")
            self._measure_round()
        self._measure_memory()
        self._end_services()
        self._measure_respawn()
        return tuple(self._results.values())

    def _install(self) -> None:
        for result in self._sound():
            with self._blaming(result):
                for program in result.peer.programs:
                    processes.find(program, program)
                if not result.peer.in_venv:
                    continue
                venv.ensure()
                name = result.peer.distribution
                if name:
                    self._say(f"{result.peer.name}: in {venv.DIRECTORY.name}, installed if need be")
                    venv.install(name)
                    result.version = venv.versions([name])[name]

    def _start_frontend(self) -> None:
        home = self._directory / "nginx"
        home.mkdir()
        self._frontend = Frontend(home, self._plan.peers)
        self.programs.append(self._frontend.program)

    def _start_services(self) -> None:
        self._say("starting " + ", ".join(result.peer.name for result in self._sound()))
        for result in self._sound():
            with self._blaming(result):
                self._services[result.peer.name] = {
                    kind: self._start(result, kind, self._plan.workers) for kind in (TRAC, HELLO)
                }
        for result in self._sound():
            with self._blaming(result):
                for page in all_pages():
                    self._service(result, page).wait_ready(page)

    def _start(self, result: PeerResult, kind: str, workers: int) -> Service:
        service = Service(result.peer, kind, workers, self._directory, self._env, self._frontend)
        self.programs.append(service.program)
        return service

    def _warm_up(self) -> None:
        if self._plan.warm_up:
            self._say("warming up")
            for page in all_pages():
                for result in self._sound():
                    load.apply(self._service(result, page).url(page), self._plan.warm_up)

    def _measure_round(self) -> None:
        """The peers take turns page by page, so that whatever slows the machine slows them all."""
        for page in all_pages():
            for result in self._sound():
                service = self._service(result, page)
                before = cpu.seconds(service.program)
                sample = load.apply(service.url(page), self._plan.seconds)
                result.add(page.title, sample, cpu.seconds(service.program) - before)

    def _measure_memory(self) -> None:
        for result in self._sound():
            result.memory = memory.measure(self._services[result.peer.name][TRAC].program)

    def _end_services(self) -> None:
        processes.end([s.program for kinds in self._services.values() for s in kinds.values()])

    def _measure_respawn(self) -> None:
        for result in self._sound():
            if result.peer.respawning is None:
                continue
            self._say(f"{result.peer.name}: killing its only worker {self._plan.kills} times")
            with self._blaming(result):
                service = self._start(result, "single", 1)
                service.wait_ready(WIKI)
                result.respawn_ms = respawn.measure(service, self._plan.kills)
                processes.end([service.program])

    def _sound(self) -> list[PeerResult]:
        return [result for result in self._results.values() if not result.problems]

    def _service(self, result: PeerResult, page: Page) -> Service:
        return self._services[result.peer.name][page.application]

    @contextlib.contextmanager
    def _blaming(self, result: PeerResult) -> Iterator[None]:
        """A peer that fails is left out from here on, and the report says why."""
        try:
            yield
        except BenchmarkError as error:
            result.problems.append(str(error))
            self._say(f"{result.peer.name}: {error}")
