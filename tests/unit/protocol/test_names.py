"""Names, and how text that is not a name is shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remo_broker.protocol.names import (
    HOST_PATTERN,
    MAX_SHOWN_NAME,
    PROJECT_NAME_PATTERN,
    RESERVED_PROJECT_NAMES,
    SECRET_NAME_PATTERN,
    counted,
    is_host,
    is_project_name,
    is_secret_name,
    printable,
)


@pytest.mark.parametrize("name", ["a", "0", "my-repo_2", "a" * 64, "a-", "a_"])
def test_project_names(name: str) -> None:
    assert is_project_name(name)
    assert re.fullmatch(PROJECT_NAME_PATTERN, name)


@pytest.mark.parametrize(
    "name",
    ["", "A", "-a", "_a", "a" * 65, "a.b", "a/b", "..", "a\n", "a b", "é", "\N{ARABIC-INDIC DIGIT ONE}", "a\0"],
)
def test_no_project_names(name: str) -> None:
    assert not is_project_name(name)
    assert not re.fullmatch(PROJECT_NAME_PATTERN, name)


@pytest.mark.parametrize("name", ["A", "a", "0", "_", "GITHUB_TOKEN", "A" * 128])
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)
    assert re.fullmatch(SECRET_NAME_PATTERN, name)


@pytest.mark.parametrize("name", ["", "A-B", "A" * 129, "A\n", "\nA", "A B", "A=B", "é", "\N{KELVIN SIGN}", "٣", "A\0"])
def test_no_secret_names(name: str) -> None:
    assert not is_secret_name(name)
    assert not re.fullmatch(SECRET_NAME_PATTERN, name)


def test_the_control_sockets_are_reserved() -> None:
    assert {"admin", "status", "credentials"} == RESERVED_PROJECT_NAMES


@given(st.text())
def test_shown_text_is_printable_and_short(text: str) -> None:
    assert re.fullmatch("[ -~]*", printable(text))
    assert len(printable(text)) <= MAX_SHOWN_NAME


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=MAX_SHOWN_NAME))
def test_printable_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nREMO_DECISION=allow", "a\\nREMO_DECISION=allow"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\N{CYRILLIC SMALL LETTER A}", "\\u0430"),
        ("\\n", "\\\\n"),
        ("\x7f\x9b", "\\x7f\\x9b"),
    ],
)
def test_control_and_invisible_characters_are_escaped_in_names(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_counted_nouns() -> None:
    assert [counted(count, "secret") for count in (0, 1, 2)] == ["0 secrets", "1 secret", "2 secrets"]


@given(st.text(alphabet="aZ09_-.\n\u00e9 ", max_size=4) | st.text(alphabet="a_-", min_size=60, max_size=130))
@example("a" * 64)
@example("a" * 65)
@example("a" * 128)
@example("a" * 129)
def test_names_match_their_patterns(text: str) -> None:
    assert is_secret_name(text) == (re.fullmatch(SECRET_NAME_PATTERN[1:-1], text) is not None)
    assert is_project_name(text) == (re.fullmatch(PROJECT_NAME_PATTERN[1:-1], text) is not None)


@given(st.text(alphabet="a0_-.:\n\u00e9A", max_size=6) | st.text(alphabet="a.", min_size=250, max_size=255))
@example("registry.example.org:5000")
@example("a" * 253 + ":" + "9" * 5)
@example("a" * 254)
@example("a:" + "9" * 6)
def test_hosts_match_their_pattern(text: str) -> None:
    assert is_host(text) == (re.fullmatch(HOST_PATTERN[1:-1], text) is not None)
