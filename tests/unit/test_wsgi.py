"""How an answer goes out: what is sent, when, and what is left out."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from tests.unit.wsgiapps import LOG, TEXT, Blocks, FakeOutput, answering, environ_for, length, run
from workers.wsgi import FILE_BLOCK, FileWrapper, Result, respond

# -- a whole answer in one send


@pytest.mark.parametrize("blocks", [[b"hello"], (b"hello",), [b"he", b"", b"llo"]])
def test_a_list_goes_out_in_one_send_with_its_length(blocks: Any) -> None:
    result, output = run(answering(blocks))
    assert output.sends == [
        (b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello", True)
    ]
    assert result == Result(200, 5, True)


def test_the_length_that_the_application_gave_is_not_repeated() -> None:
    _, output = run(answering([b"hello"], length(5)))
    assert output.head.count("Content-Length: 5") == 1
    assert len(output.sends) == 1


def test_an_empty_list_sends_the_header_and_the_end() -> None:
    result, output = run(answering([], [("Location", "/")], "302 Found"))
    assert output.sends == [(b"Status: 302 Found\r\nLocation: /\r\n\r\n", True)]
    assert result == Result(302, 0, True)


def test_an_iterable_with_a_len_of_one_ends_with_its_block_before_close() -> None:
    class One(Blocks):
        def __len__(self) -> int:
            return 1

    output = FakeOutput()
    blocks = One(b"hello", steps=output.steps)
    run(answering(blocks), output)
    assert output.steps == ["yield", "end", "close"]


def test_a_complete_length_ends_the_answer_before_the_application_does_its_rest() -> None:
    output = FakeOutput()

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", length(4))
        yield b"ab"
        yield b"cd"
        output.steps.append("rest")

    run(application, output)
    assert output.steps == ["send", "end", "rest"]


# -- blocks as they come


def test_each_block_of_a_slow_iterable_goes_out_before_the_next_is_asked_for() -> None:
    output = FakeOutput()
    blocks = Blocks(b"", b"one", b"", b"two", steps=output.steps)
    run(answering(blocks), output)
    assert output.steps == ["yield", "yield", "send", "yield", "yield", "send", "end", "close"]
    assert output.sends[0][0].endswith(b"\r\n\r\none")
    assert output.body == b"onetwo"


def test_start_response_may_come_with_the_first_block() -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("201 Created", TEXT)
        yield b"late"

    result, output = run(application)
    assert (result.status, output.body) == (201, b"late")


def test_start_response_sends_nothing_by_itself() -> None:
    output = FakeOutput()

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", length(0))
        assert output.sends == []
        return []

    run(application, output)


def test_write_sends_at_once_and_the_iterable_follows() -> None:
    output = FakeOutput()

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"one,")
        write(b"two,")
        output.steps.append("return")
        return [b"three"]

    run(application, output)
    assert output.steps == ["send", "send", "return", "end"]
    assert output.body == b"one,two,three"


def test_write_of_nothing_sends_the_header() -> None:
    output = FakeOutput()

    def application(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"")
        write(b"")
        assert len(output.sends) == 1
        return []

    run(application, output)
    assert output.body == b""


def test_write_with_the_whole_length_ends_the_answer_while_the_application_runs_on() -> None:
    """As Trac does where it knows the length: page by write(), then gc.collect(), then []."""
    output = FakeOutput()

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", length(5))(b"hello")
        output.steps.append("rest")
        return []

    result, _ = run(application, output)
    assert output.steps == ["end", "rest"]
    assert result == Result(200, 5, True)


# -- Content-Length and answers without a body


@pytest.mark.parametrize(
    "blocks",
    [[b"hello world"], [b"hel", b"lo w"], Blocks(b"hel", b"lo w"), Blocks(b"hello", b" ", b"w")],
)
def test_more_than_the_length_is_cut_and_logged_once(
    blocks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    result, output = run(answering(blocks, length(5)))
    assert output.body == b"hello"
    assert result.clean
    assert len(caplog.records) == 1
    assert "GET /trac/wiki?a=b: the answer is cut" in caplog.text


def test_an_endless_answer_stops_at_its_length() -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", length(5))
        while True:
            yield b"abc"

    assert run(application)[1].body == b"abcab"


def test_what_write_is_given_beyond_the_length_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", length(2))
        for _ in range(3):
            write(b"ab")
        return [b"ab"]

    assert run(application)[1].body == b"ab"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("blocks", [[], [b"abc"], [b"a", b"bc"], Blocks(), Blocks(b"a", b"bc")])
def test_less_than_the_length_is_never_a_clean_end(
    blocks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    result, output = run(answering(blocks, length(5)))
    assert not result.clean
    assert "Content-Length: 5" in output.head
    assert "shorter than its Content-Length" in caplog.text


@pytest.mark.parametrize("name", ["X-Sendfile", "X-Accel-Redirect", "X-LIGHTTPD-send-file"])
def test_a_file_left_to_the_web_server_has_a_length_and_no_body(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Trac's [trac] use_xsendfile."""
    result, _ = run(answering([], [*length(4096), (name, "/srv/attachment.bin")]))
    assert result == Result(200, 0, True)
    assert not caplog.records


@pytest.mark.parametrize("blocks", [[b"hello"], [], Blocks(b"hel", b"lo"), Blocks()])
@pytest.mark.parametrize(
    "method, status", [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_an_answer_without_a_body_has_none(
    method: str, status: str, blocks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    result, output = run(answering(blocks, length(5), status), method=method)
    assert (result.sent, result.clean) == (0, True)
    assert output.head == [f"Status: {status}", "Content-Type: text/plain", "Content-Length: 5"]
    assert len(output.sends) == 1
    assert not caplog.records


def test_head_answers_are_given_no_length_that_get_may_not_have() -> None:
    assert "Content-Length" not in str(run(answering([b"hello"]), method="HEAD")[1].head)


def test_head_with_write() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        environ["REQUEST_METHOD"] = "GET"  # as middleware does that lets HEAD run as GET
        start_response("200 OK", TEXT)(b"hello")
        return []

    result, output = run(application, method="HEAD")
    assert output.sends == [(b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n", True)]


def test_an_answer_leaves_no_cycles_behind() -> None:
    """Trac collects garbage in each request: what only the collector can free costs there."""
    output = FakeOutput()
    environ = environ_for(output)
    gc.collect()
    gc.disable()
    try:
        respond(answering([b"hello"]), environ, output, LOG)
        assert gc.collect() == 0
    finally:
        gc.enable()


# -- wsgi.file_wrapper


class CountingFile(io.BytesIO):
    asked: list[int]

    def read(self, size: int | None = -1) -> bytes:
        self.asked.append(size or 0)
        return super().read(size)


def test_a_file_is_read_in_large_blocks_whatever_block_size_was_asked_for() -> None:
    """Trac asks for 4,096."""
    content = bytes(range(256)) * 4096
    file = CountingFile(content)
    file.asked = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", length(len(content)))
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 4096)
        return wrapped

    result, output = run(application)
    assert output.body == content and result.clean
    assert set(file.asked) == {FILE_BLOCK}
    assert len(output.sends) == len(content) // FILE_BLOCK
    assert file.closed


def test_a_small_file_of_known_length_is_one_send() -> None:
    wrapper = FileWrapper(io.BytesIO(b"body { }"), 4096)
    _, output = run(answering(wrapper, length(8)))
    assert len(output.sends) == 1


def test_a_pipe_is_not_kept_waiting_for_a_large_block() -> None:
    class Pipe:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def seekable(self) -> bool:
            return False

        def read(self, size: int) -> bytes:
            self.asked.append(size)
            return b"x" * size if len(self.asked) < 3 else b""

    pipe: Any = Pipe()
    wrapper = FileWrapper(pipe, 16)
    assert not hasattr(wrapper, "close")  # the file has none
    _, output = run(answering(wrapper))
    assert pipe.asked == [16, 16, 16]
    assert [len(data) for data, _ in output.sends[1:]] == [16, 0]


def test_the_wrapper_closes_its_file_when_the_visitor_goes_away() -> None:
    file = io.BytesIO(b"x" * 10)
    run(answering(FileWrapper(file)), FakeOutput(dies_at=0))
    assert file.closed


# -- wsgiref.validate


@pytest.mark.parametrize("method, body", [("GET", b""), ("HEAD", b""), ("POST", b"a=1&b=2")])
@pytest.mark.filterwarnings("error")
def test_wsgiref_validate_is_content(
    method: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ["wsgi.errors"].write("noted\n")
        environ["wsgi.errors"].writelines(["twice\n"])
        environ["wsgi.errors"].flush()
        received = environ["wsgi.input"].read(len(body))
        start_response("200 OK", TEXT)
        return iter([] if method == "HEAD" else [received, b"!"])

    output = FakeOutput()
    result = respond(validator(application), environ_for(output, method, body), output, LOG)
    assert result == Result(200, 0 if method == "HEAD" else len(body) + 1, True)
    assert output.errors == "noted\ntwice\n"
    assert not caplog.records


@pytest.mark.filterwarnings("error")
def test_wsgiref_validate_is_content_with_write() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", length(5))(b"hello")
        return []

    assert run(validator(application))[1].body == b"hello"
