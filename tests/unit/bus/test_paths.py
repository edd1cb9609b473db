"""Object paths are escaped as by systemd: compared with libsystemd."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.bus import paths
from remo_broker.protocol.names import PROJECT_NAME_PATTERN
from tests.support.machine import unavailable


def systemd_escapes(name: str) -> str:
    """`sd_bus_path_encode` of the project `name`."""
    library = ctypes.util.find_library("systemd")
    if library is None:
        unavailable("libsystemd is not installed here")
    result = ctypes.c_char_p()
    encode = ctypes.CDLL(library).sd_bus_path_encode
    status = encode(paths.PROJECTS.encode(), name.encode(), ctypes.byref(result))
    assert status >= 0
    assert result.value is not None
    return result.value.decode()


@given(st.from_regex(PROJECT_NAME_PATTERN, fullmatch=True))
def test_project_names_are_escaped_as_systemd_does(name: str) -> None:
    assert paths.project_path(name) == systemd_escapes(name)
    assert paths.project_name(paths.project_path(name)) == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_other_text_is_escaped_as_systemd_does(text: str) -> None:
    assert paths.project_path(text) == systemd_escapes(text)
    assert paths.unescape_label(paths.escape_label(text)) == text


@given(st.from_regex(r"[A-Za-z0-9_]{1,12}", fullmatch=True))
def test_a_label_decodes_to_one_text_or_none(label: str) -> None:
    text = paths.unescape_label(label)
    assert text is None or paths.escape_label(text) == label


@pytest.mark.parametrize(
    ("label", "text"), [("my_2drepo", "my-repo"), ("_37zip", "7zip"), ("_", ""), ("my-repo", None), ("7zip", None)]
)
def test_examples(label: str, text: str | None) -> None:
    assert paths.unescape_label(label) == text


def test_every_node_leads_to_the_projects() -> None:
    path = "/"
    while path != paths.PROJECTS:
        (child,) = paths.children(path) or ("nothing",)
        path = f"{path.rstrip('/')}/{child}"
    assert paths.children(paths.PROJECTS) == ()
    for other in ("/io/get2know/RemoBroker", "/io/get2know/RemoBroker1/projec", f"{paths.PROJECTS}/myrepo", "/org"):
        assert paths.children(other) is None
