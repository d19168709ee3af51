"""What is wrong with an application, a visitor or a header, and what becomes of the answer."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.wsgiapps import LOG, TEXT, Blocks, FakeOutput, answering, environ_for, length, run
from workers.wsgi import ApplicationError, Result, error_answer, respond

# -- failures


def test_an_exception_before_the_header_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-Secret", "1")])
        raise LookupError("the database is gone")

    result, output = run(application)
    assert result.status == 500
    assert output.head[0] == "Status: 500 Internal Server Error"
    assert b"Secret" not in output.answer and b"database" not in output.answer
    assert "GET /trac/wiki?a=b: the application failed" in caplog.text
    assert "LookupError: the database is gone" in caplog.text


def test_a_500_for_head_has_no_body() -> None:
    result, output = run(answering(None), method="HEAD")
    assert (result.status, output.body) == (500, b"")


@pytest.mark.parametrize("blocks", [None, 7, "text", ["text"], b"bytes", [b"a", "text"],
                                    [bytearray(b"a")], Blocks("text"), Blocks("")])  # fmt: skip
def test_an_answer_that_is_not_an_iterable_of_bytes_is_a_500(
    blocks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    result, output = run(answering(blocks))
    assert result.status == 500 and result.clean
    assert len(caplog.records) == 1 and caplog.records[0].exc_info


def test_write_takes_bytes_only() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)("text")
        return []

    assert run(application)[0].status == 500


@pytest.mark.parametrize("blocks", [[], [b"hello"], Blocks(b"hello"), Blocks()])
def test_an_answer_without_start_response_is_a_500(blocks: Any) -> None:
    assert run(lambda environ, start_response: blocks)[0].status == 500


def test_an_exception_after_the_header_cuts_the_answer_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    blocks = Blocks(b"part", ValueError("late"))
    result, output = run(answering(blocks))
    assert result == Result(200, 4, False)
    assert output.body == b"part"
    assert blocks.closed == 1
    assert "its answer is cut off" in caplog.text and "ValueError: late" in caplog.text


def test_an_exception_after_a_complete_answer_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    result, _ = run(answering(Blocks(b"whole", ValueError("late")), length(5)))
    assert result == Result(200, 5, True)
    assert "ValueError: late" in caplog.text


def test_a_request_line_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    output = FakeOutput()
    environ = environ_for(output)
    environ["REQUEST_URI"] = "/\n2026-01-01 ERROR forged\x1b[2J"
    respond(answering(None), environ, output, LOG)
    assert "\n" not in caplog.messages[0] and "\x1b" not in caplog.messages[0]


# -- start_response() again


def test_start_response_again_needs_exc_info() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        with pytest.raises(ApplicationError, match="again"):
            start_response("404 Not Found", TEXT)
        return [b"the first counts"]

    assert run(application)[0].status == 200


def test_exc_info_replaces_a_header_that_was_not_sent() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", length(100))
        try:
            raise ValueError
        except ValueError:
            start_response("503 Sorry", TEXT, sys.exc_info())
        return [b"sorry"]

    result, output = run(application)
    assert result == Result(503, 5, True)
    assert "100" not in str(output.head)


def test_exc_info_raises_again_once_the_header_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)(b"part")
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Oops", TEXT, sys.exc_info())
        raise AssertionError("not reached")

    result, output = run(application)
    assert result == Result(200, 4, False)
    assert "ValueError: late" in caplog.text and "not reached" not in caplog.text


def test_a_refused_second_header_does_not_bring_back_the_first() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        try:
            raise ValueError
        except ValueError:
            with pytest.raises(ApplicationError):
                start_response("500 Oops", [("X", "a\r\nb")], sys.exc_info())
        return [b"the error page"]

    assert run(application)[0].status == 500


# -- close(), the vanished peer, interrupts


@pytest.mark.parametrize(
    "blocks, method, headers",
    [
        (Blocks(), "GET", TEXT),
        (Blocks(b"a", b"b"), "GET", TEXT),
        (Blocks(b"a", b"b"), "HEAD", TEXT),
        (Blocks(b"a", b"b"), "GET", length(1)),
        (Blocks(b"a", b"b"), "GET", length(9)),
        (Blocks(ValueError()), "GET", TEXT),
        (Blocks("text"), "GET", TEXT),
    ],
)
def test_close_is_called_once(blocks: Blocks, method: str, headers: Any) -> None:
    run(answering(blocks, headers), method=method)
    assert blocks.closed == 1


def test_a_failing_close_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Blocks):
        def close(self) -> None:
            super().close()
            raise OSError("cannot close")

    blocks = Failing(b"fine")
    result, _ = run(answering(blocks))
    assert result.clean and blocks.closed == 1
    assert "cannot close" in caplog.text


@pytest.mark.parametrize("dies_at", [0, 1, 2])
def test_close_is_called_once_when_the_visitor_goes_away(
    dies_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = Blocks(b"a", b"b")
    result, _ = run(answering(blocks), FakeOutput(dies_at))
    assert (result.status, result.sent, result.clean) == (200, dies_at, False)
    assert blocks.closed == 1
    assert not caplog.records


def test_to_write_the_vanished_visitor_is_a_broken_pipe(caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", length(9))
        for _ in range(2):
            with pytest.raises(BrokenPipeError) as caught:
                write(b"abc")
            assert caught.value.errno is not None
        return [b"swallowed"]

    result, output = run(application, FakeOutput(dies_at=0))
    assert result == Result(200, 0, False)
    assert not caplog.records


def test_an_error_that_a_vanished_visitor_causes_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        try:
            start_response("200 OK", TEXT)(b"abc")
        except OSError as error:
            raise RuntimeError("wrapped") from error
        return []

    run(application, FakeOutput(dies_at=0))
    assert len(caplog.records) == 1 and caplog.records[0].exc_info is None


def test_a_500_to_a_vanished_visitor(caplog: pytest.LogCaptureFixture) -> None:
    result, _ = run(answering(None), FakeOutput(dies_at=0))
    assert result == Result(500, 0, False)


@pytest.mark.parametrize("interrupt", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_interrupt_comes_out_after_close(interrupt: BaseException) -> None:
    output = FakeOutput()
    blocks = Blocks(b"a", interrupt)
    with pytest.raises(type(interrupt)):
        respond(answering(blocks), environ_for(output), output, LOG)
    assert blocks.closed == 1
    assert not output.ended


def test_an_interrupt_in_send_is_not_hidden_by_an_application_that_swallows_it() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        try:
            start_response("200 OK", TEXT)(b"abc")
        except BaseException:
            pass
        return []

    result, _ = run(application, FakeOutput(0, KeyboardInterrupt()))
    assert not result.clean


# -- header checks


@pytest.mark.parametrize(
    "status", ["200", "200OK", "OK", "", "099 Low", "101 Switching", "999", "20 OK", "2000 OK",
               "200 OK\r\nX: y", "200 O\nK", "200 \x00", "\u0662\u0660\u0660 OK", "200 \u20ac",
               200, b"200 OK", None]
)  # fmt: skip
def test_a_bad_status_is_a_500(status: Any) -> None:
    assert run(answering([b""], TEXT, status))[0].status == 500


@pytest.mark.parametrize(
    "headers",
    [
        [("X", "a\r\nSet-Cookie: b")],
        [("X", "a\nb")],
        [("X", "a\rb")],
        [("X", "a\x00")],
        [("X", "a\x7f")],
        [("X", "\u20ac")],
        [("X", 5)],
        [("X", b"5")],
        [("X", None)],
        [(b"X", "5")],
        [("", "5")],
        [("X:", "5")],
        [("X Y", "5")],
        [("X\r\nY", "5")],
        [("X\xe9", "5")],
        [("X", "1", "2")],
        [("X",)],
        ["X"],
        None,
        [("Connection", "close")],
        [("keep-alive", "5")],
        [("Transfer-Encoding", "chunked")],
        [("Upgrade", "h2c")],
        [("Status", "200 OK")],
        [("Content-Length", "-1")],
        [("Content-Length", "five")],
        [("Content-Length", "5, 5")],
        [("Content-Length", "")],
        [("Content-Length", "5"), ("content-length", "6")],
    ],
)
def test_bad_headers_are_a_500(headers: Any) -> None:
    result, output = run(lambda environ, start_response: [start_response("200 OK", headers)])
    assert result.status == 500
    assert output.head[0].startswith("Status: 500")


def test_good_headers_arrive_as_they_are() -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "caf\xe9 \xa0\x85"),
               ("x-tab", "a\tb"), ("X-Empty", "")]  # fmt: skip
    _, output = run(answering([], headers, "404 Nicht gefunden \xfc"))
    assert output.head == ["Status: 404 Nicht gefunden \xfc", *(": ".join(h) for h in headers)]


def test_a_length_given_twice_alike_is_sent_once() -> None:
    _, output = run(answering([b"hello"], [("Content-Length", "5"), ("content-length", "5")]))
    assert output.head == ["Status: 200 OK", "Content-Length: 5"]


awkward = st.text(st.sampled_from("aZ09-:; \t\r\n\0\x1f\x7f\x85\xa0\xe9\u0130\u2028\u20ac"))
words = st.one_of(awkward, st.text(max_size=12), st.from_regex(r"\A[A-Za-z-]{1,12}\Z"))


@given(st.one_of(words, words.map("200 ".__add__)), st.lists(st.tuples(words, words), max_size=4))
@example("200 OK", [("X", "a\r\n\r\n<script>")])
def test_a_header_block_says_what_the_application_said_or_is_refused(
    status: str, headers: list[tuple[str, str]]
) -> None:
    output = FakeOutput()
    seen: list[Exception] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        try:
            start_response(status, headers)
        except ApplicationError as error:
            seen.append(error)
            raise
        return []

    logging.disable(logging.CRITICAL)
    try:
        result = respond(application, environ_for(output), output, LOG)
    finally:
        logging.disable(logging.NOTSET)
    if seen:
        assert result.status == 500
        return
    assert output.head == ["Status: " + status, *(f"{name}: {value}" for name, value in headers)]
    assert output.answer.count(b"\r\n") == len(headers) + 2
    assert output.answer.count(b"\n") == output.answer.count(b"\r") == len(headers) + 2


# -- error_answer


def test_an_error_answer_is_complete_and_escaped() -> None:
    head, body = error_answer("413 Content Too Large", "<b>5 > 4</b>")
    lines = head.decode().split("\r\n")
    assert lines[0] == "Status: 413 Content Too Large"
    assert f"Content-Length: {len(body)}" in lines
    assert lines[-2:] == ["", ""]
    assert b"<b>" not in body and b"&lt;b&gt;5 &gt; 4" in body
