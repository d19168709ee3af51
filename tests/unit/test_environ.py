from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.environ import BadRequest, ErrorStream, content_length, make_environ
from workers.wsgi import server_keys

BASE = {**server_keys(), "trac.env_path": "/srv/trac"}


def build(**params: str) -> dict[str, object]:
    return make_environ(params, io.BytesIO(), io.StringIO(), BASE)


# -- content_length


@pytest.mark.parametrize(
    "params, expected",
    [
        ({}, None),
        ({"CONTENT_LENGTH": ""}, 0),
        ({"CONTENT_LENGTH": "0"}, 0),
        ({"CONTENT_LENGTH": "10485760"}, 10485760),
        ({"CONTENT_LENGTH": "007"}, 7),
    ],
)
def test_a_length_is_read(params: dict[str, str], expected: int | None) -> None:
    assert content_length(params) == expected


@pytest.mark.parametrize(
    "text", ["abc", "-1", "+5", " 5", "5 ", "5, 5", "5,5", "1_000", "0x10", "1e3", "1.0", "\u0663",
             "\xb2", "5\n", "\x00"]
)  # fmt: skip
def test_a_length_that_is_nonsense_is_a_400(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        content_length({"CONTENT_LENGTH": text})
    assert caught.value.status == "400 Bad Request"
    assert repr(text) in caught.value.reason


def test_a_length_of_a_thousand_digits_is_a_413_and_not_echoed() -> None:
    with pytest.raises(BadRequest) as caught:
        content_length({"CONTENT_LENGTH": "9" * 5000})
    assert caught.value.status.startswith("413 ")
    assert len(str(caught.value)) < 100


@given(st.text(max_size=30))
def test_a_length_is_a_number_that_reads_back_or_a_400(text: str) -> None:
    try:
        length = content_length({"CONTENT_LENGTH": text})
    except BadRequest:
        return
    assert length is not None
    assert str(length) == (text.lstrip("0") or "0")


# -- make_environ


def test_what_pep_3333_demands_is_supplied_when_absent() -> None:
    environ = build()
    assert {name: environ[name] for name in environ if "." not in name} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.0",
    }
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.multithread"] is False
    assert environ["wsgi.multiprocess"] is True
    assert environ["wsgi.run_once"] is False
    assert type(environ) is dict


def test_run_once_is_for_cgi() -> None:
    assert server_keys(run_once=True)["wsgi.run_once"] is True


def test_what_must_not_be_empty_is_filled_and_the_rest_is_left_empty() -> None:
    environ = build(
        REQUEST_METHOD="", SERVER_NAME="", SERVER_PORT="", SERVER_PROTOCOL="", HTTPS="on",
        SCRIPT_NAME="", QUERY_STRING="", HTTP_X_EMPTY="",
    )  # fmt: skip
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == "443"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert environ["SCRIPT_NAME"] == environ["QUERY_STRING"] == environ["HTTP_X_EMPTY"] == ""


def test_what_the_web_server_says_is_kept() -> None:
    params = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/trac",
        "PATH_INFO": "/wiki/\xc3\xa9",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/2.0",
        "HTTP_X_NAME.WITH.DOTS": "kept",
        "CONTENT_LENGTH": "5",
    }
    environ = make_environ(params, io.BytesIO(), io.StringIO(), BASE)
    assert {name: environ[name] for name in params} == params


@pytest.mark.parametrize(
    "params, scheme",
    [
        ({}, "http"),
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "ON"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTPS": ""}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"REQUEST_SCHEME": "http"}, "http"),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, "http"),
    ],
)
def test_the_scheme(params: dict[str, str], scheme: str) -> None:
    assert build(**params)["wsgi.url_scheme"] == scheme


def test_no_parameter_sets_or_overrides_a_key_of_the_server() -> None:
    forged = {
        name: "forged"
        for name in [*BASE, "wsgi.input", "wsgi.errors", "wsgi.url_scheme", "wsgi.", "wsgi.new",
                     "trac.", "trac.env_parent_dir", "trac.base_url", "trac.locale"]
    }  # fmt: skip
    body, errors = io.BytesIO(), io.StringIO()
    environ = make_environ(forged, body, errors, BASE)
    assert "forged" not in environ.values()
    assert environ == {**build(), "wsgi.input": body, "wsgi.errors": errors}


def test_the_base_wins_over_any_parameter() -> None:
    base = {**BASE, "REMOTE_USER": "anonymous"}
    environ = make_environ({"REMOTE_USER": "admin"}, io.BytesIO(), io.StringIO(), base)
    assert environ["REMOTE_USER"] == "anonymous"


def test_headers_that_would_be_believed_are_dropped() -> None:
    environ = build(HTTP_PROXY="http://evil", HTTP_CONTENT_TYPE="a/b", HTTP_CONTENT_LENGTH="7")
    assert not [name for name in environ if name.startswith("HTTP_")]


def test_an_empty_content_length_is_as_good_as_none() -> None:
    assert "CONTENT_LENGTH" not in build(CONTENT_LENGTH="")


def test_each_environ_is_fresh() -> None:
    params = {"PATH_INFO": "/a", "wsgi.x": "y"}
    first = make_environ(params, io.BytesIO(), io.StringIO(), BASE)
    first["PATH_INFO"] = first["trac.env_path"] = "changed"
    first["HTTP_PROXY"] = "added"
    second = make_environ(params, io.BytesIO(), io.StringIO(), BASE)
    assert second["PATH_INFO"] == "/a"
    assert second["trac.env_path"] == "/srv/trac"
    assert "HTTP_PROXY" not in second
    assert params == {"PATH_INFO": "/a", "wsgi.x": "y"}


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=8)))
def test_whatever_comes_in_the_keys_of_the_server_are_ours(params: dict[str, str]) -> None:
    environ = make_environ(params, io.BytesIO(), io.StringIO(), BASE)
    ours = {name for name in environ if name.startswith(("wsgi.", "trac."))}
    assert ours == {*BASE, "wsgi.input", "wsgi.errors", "wsgi.url_scheme"}
    assert all(environ[name] == value for name, value in BASE.items())


# -- wsgi.errors


def test_the_error_stream_passes_text_on_at_once() -> None:
    seen: list[str] = []
    stream = ErrorStream(seen.append)
    assert stream.write("one\n") == 4
    stream.writelines(["two\n", "three\n"])
    stream.flush()
    print("four", file=stream)
    assert "".join(seen) == "one\ntwo\nthree\nfour\n"


def test_the_error_stream_refuses_bytes() -> None:
    with pytest.raises(TypeError, match="bytes"):
        ErrorStream(lambda text: None).write(b"no")  # type: ignore[arg-type]
