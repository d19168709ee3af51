"""Which path a request is for, whatever the web server made of it."""

from __future__ import annotations

from typing import Optional
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.paths import parse_script_name, requested_path, spelled, split_at


def params(uri: Optional[str], script_name: str = "", path_info: str = "") -> dict[str, str]:
    found = {"SCRIPT_NAME": script_name, "PATH_INFO": path_info}
    return found if uri is None else {**found, "REQUEST_URI": uri}


# -- the option


@pytest.mark.parametrize(
    "given_text, name",
    [
        ("", ""), ("/", ""), ("/trac", "/trac"), ("/trac/", "/trac"), ("/a/b", "/a/b"),
        ("/my%20trac", "/my trac"), ("/tr\xe4c", "/tr\xe4c"), ("/tr%C3%A4c", "/tr\xe4c"),
    ],
)  # fmt: skip
def test_a_script_name(given_text: str, name: str) -> None:
    assert parse_script_name(given_text) == name


@pytest.mark.parametrize(
    "text, why",
    [
        ("trac", "begin with '/'"), ("//trac", "plain path"), ("/a//b", "plain path"),
        ("/a/../b", "plain path"), ("/.", "plain path"), ("/a?b", "plain path"), ("/a#b", "plain path"),
        ("/%ff", "'/%ff' is not UTF-8"), ("/\udcff", "is not UTF-8"),
        ("/%00", "'/%00' has a control character"), ("/a\nb", "has a control character"),
    ],
)  # fmt: skip
def test_what_is_no_script_name(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_script_name(text)


# -- REQUEST_URI


@pytest.mark.parametrize(
    "uri, path",
    [
        ("/trac/wiki", "/trac/wiki"),
        ("/trac/wiki?a=/b", "/trac/wiki"),
        ("/trac?", "/trac"),
        ("/trac#a?b", "/trac"),
        ("/a%20b+c", "/a b+c"),
        ("/A%2FB%252F", "/A/B%2F"),
        ("/caf%C3%A9", "/caf\xc3\xa9"),
        ("/caf\xc3\xa9", "/caf\xc3\xa9"),
        ("/caf%E9", "/caf\xe9"),
        ("/%ff%fe", "/\xff\xfe"),
        ("/100%", "/100%"),
        ("/%zz%4", "/%zz%4"),
        ("//double//slash", "//double//slash"),
        ("/A/../B/./C", "/A/../B/./C"),
        ("http://example.org/trac/wiki?q", "/trac/wiki"),
        ("HTTPS://user@[::1]:80/trac", "/trac"),
        ("http://example.org", "/"),
        ("http://example.org?q", "/"),
        ("//example.org/trac", "//example.org/trac"),
        ("/http://example.org/", "/http://example.org/"),
        ("*", None),
        ("", None),
        ("trac/wiki", None),
        ("?q", None),
    ],
)
def test_the_path_of_a_request(uri: str, path: Optional[str]) -> None:
    assert requested_path(uri) == path


@given(st.binary())
def test_each_byte_of_a_path_arrives(path: bytes) -> None:
    assert requested_path("/" + quote(path, safe="")) == "/" + path.decode("latin-1")


# -- with --script-name

#: What becomes of a request for PATH in the web servers known: the same place under other names.
SHAPES = {
    "as the specification has it": ("/trac", "/wiki/A"),
    "all in SCRIPT_NAME": ("/trac/wiki/A", ""),
    "all in PATH_INFO": ("", "/trac/wiki/A"),
    "neither": ("", ""),
    "a program of another name": ("/cgi-bin/trac.fcgi", "/wiki/A"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_what_the_web_server_made_of_it_does_not_matter(shape: tuple[str, str]) -> None:
    assert split_at(params("/trac/wiki/A?q", *shape), "/trac", 1) == ("/trac", "/wiki/A")


def test_at_the_root_too() -> None:
    for shape in [("", "/wiki/A"), ("/wiki/A", ""), ("/wiki", "/A"), ("", ""), ("/trac.fcgi", "/wiki/A")]:
        assert split_at(params("/wiki/A?q", *shape), "", 1) == ("", "/wiki/A")


@pytest.mark.parametrize(
    "uri, path_info",
    [
        ("/trac", ""),
        ("/trac/", "/"),
        ("/trac//wiki", "//wiki"),
        ("//trac/wiki", "/wiki"),
        ("/%74rac/wiki", "/wiki"),
        ("/trac%2Fwiki", "/wiki"),
        ("/trac/wiki/A/../B", "/wiki/A/../B"),
        ("/trac/wiki/.", "/wiki/."),
        ("/trac/wiki/...", "/wiki/..."),
        ("/trac/wiki/A%2F%2E%2E%2FB", "/wiki/A/../B"),
        ("http://example.org/trac/wiki", "/wiki"),
    ],
)
def test_the_page_is_what_the_visitor_asked_for(uri: str, path_info: str) -> None:
    assert split_at(params(uri), "/trac", 1) == ("/trac", path_info)


def test_the_root_has_a_path() -> None:
    """PEP 3333: SCRIPT_NAME and PATH_INFO are not both empty."""
    assert split_at(params("/"), "", 1) == ("", "/")
    assert split_at(params("*"), "", 1) == ("", "/")
    assert split_at(params("//wiki"), "", 1) == ("", "//wiki")
    assert split_at(params("/?q", "", "/"), "", 1) == ("", "/")


@pytest.mark.parametrize("uri", [None, "", "*", "/t/1", "relative"])
def test_a_path_that_is_missing_or_rewritten_is_what_the_web_server_says(uri: Optional[str]) -> None:
    assert split_at(params(uri, "/trac", "/ticket/1"), "/trac", 1) == ("/trac", "/ticket/1")
    assert split_at(params(uri, "/trac/ticket/1"), "/trac", 1) == ("/trac", "/ticket/1")


@pytest.mark.parametrize(
    "uri, decided",
    [
        # Apache with "AllowEncodedSlashes NoDecode", whose rules are about names with "%2F" in them.
        ("/trac/admin%2Fgeneral", "/admin%2Fgeneral"),
        # Rewritten below the place.
        ("/trac/t/1", "/ticket/1"),
    ],
)
def test_the_first_name_is_what_the_web_server_says(uri: str, decided: str) -> None:
    assert split_at(params(uri, "/trac", decided), "/trac", 1) == ("/trac", decided)
    assert split_at(params(uri, f"/trac{decided}"), "/trac", 1) == ("/trac", decided)


@pytest.mark.parametrize("uri", ["/", "/tracs", "/Trac/wiki", "/other?/trac/", "*", "", "/trac.fcgi/wiki"])
def test_another_place(uri: str) -> None:
    assert split_at(params(uri, "/other", "/trac/wiki"), "/trac", 1) is None


@pytest.mark.parametrize(
    "uri",
    [
        "/trac/admin/../wiki/A",
        "/trac/admin/x/../../wiki/A",
        "/trac/admin%2f..%2Fwiki/A",
        "/trac/%2e%2e/trac/wiki/A",
        "/trac/./wiki/A",
        "/x/../trac/wiki/A",
        "/trac/wiki/..",
        "/trac/..",
    ],
)
def test_a_path_that_evades_rules_of_the_web_server_is_as_that_has_resolved_it(uri: str) -> None:
    assert split_at(params(uri, "/trac", "/wiki/A"), "/trac", 1) == ("/trac", "/wiki/A")
    # ... and a web server that resolves nothing gets no page.
    assert split_at(params(uri, "", requested_path(uri) or ""), "/trac", 1) is None


def test_below_a_directory_of_environments_two_names_count() -> None:
    evasive = params("/trac/one/admin/../wiki/A", "/trac", "/one/wiki/A")
    assert split_at(evasive, "/trac", 1) == ("/trac", "/one/admin/../wiki/A")
    assert split_at(evasive, "/trac", 2) == ("/trac", "/one/wiki/A")


# -- without it


@pytest.mark.parametrize(
    "uri, script_name, path_info, expected",
    [
        ("/trac/wiki/A", "/trac", "/wiki/A", None),
        ("/trac/wiki/A//B?q=//", "/trac", "/wiki/A/B", "/wiki/A//B"),
        ("/trac/wiki/A/../B", "/trac", "/wiki/B", "/wiki/A/../B"),
        ("/trac/wiki/A/%2e%2e/B", "/trac", "/wiki/B", "/wiki/A/../B"),
        ("/wiki//A", "", "/wiki/A", "/wiki//A"),
        ("/trac/wiki/A/.", "/trac", "/wiki/A/", "/wiki/A/."),
        # Rewritten by the web server.
        ("/old//A", "/trac", "/wiki/A", None),
        ("/trac//t/1", "/trac", "/ticket/1", None),
        ("/trac/wiki//A/", "/trac", "/wiki/A", None),
        # Shapes that only --script-name can mend.
        ("/trac/wiki//A", "/trac/wiki/A", "", None),
        ("/wiki//A", "/wiki/A", "", None),
        # Evasive.
        ("/trac/admin/../wiki/A", "/trac", "/wiki/A", None),
        ("/trac/../trac/wiki/A", "/trac", "/wiki/A", None),
        # A query looks like it, or there is no path.
        ("/trac/wiki/A?b=//c/..", "/trac", "/wiki/A", "/wiki/A"),
        ("*//", "/trac", "/wiki/A", None),
        ("", "/trac", "/wiki/A", None),
    ],
)
def test_spelling_comes_back_where_nothing_else_differs(
    uri: str, script_name: str, path_info: str, expected: Optional[str]
) -> None:
    assert spelled(params(uri, script_name, path_info), 1) == expected


# -- whatever comes

NAMES = st.sampled_from(["trac", "admin", "wiki", "a", "..", ".", "", "%2e%2e", "%2F", "caf%C3%A9"])
URIS = st.lists(NAMES, max_size=8).map(lambda names: "/" + "/".join(names))


def resolved(path: str) -> list[str]:
    """As web servers do it, written another way."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            names = names[:-1]
        elif name and name != ".":
            names = [*names, name]
    return names


@given(URIS, st.sampled_from(["", "/trac"]), st.sampled_from([1, 2]))
@example("/trac/admin/../wiki", "/trac", 1)
def test_no_rule_for_the_first_names_is_evaded(uri: str, script_name: str, depth: int) -> None:
    """Neither in a web server that resolves paths, nor in one that does not."""
    path = requested_path(uri)
    assert path is not None
    for decided in ("/" + "/".join(resolved(path)), path):
        found = split_at(params(uri, "", decided), script_name, depth)
        if found is not None:
            names = [name for name in found[1].split("/") if name]
            place = [name for name in script_name.split("/") if name]
            assert (place + resolved(decided)[len(place) :])[: len(place) + depth] == (
                place + names
            )[: len(place) + depth]


@given(URIS)
def test_without_the_option_only_spelling_changes(uri: str) -> None:
    path = requested_path(uri)
    assert path is not None
    decided = "/" + "/".join(resolved(path))
    result = spelled(params(uri, "", decided), 1)
    assert result is None or resolved(result) == resolved(decided)
