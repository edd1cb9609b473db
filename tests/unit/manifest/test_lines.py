"""The line of a key in a manifest."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.manifest import content_faults, lines
from remo_broker.manifest.lines import Lines

MANIFEST = (
    b'''# ttl_seconds = 1
schema_version = 1

[project] # [cache]
name = "myrepo"
description = """
[cache]
ttl_seconds = 5 \\"""
"""
[ allowlist ]
secrets = [
  "A=B",
  "C",
]
[secrets."aws"]
fetch_as = "file"
template = '''
    b"'''\n[cache]\nttl_seconds = 6\n'''\n"
    b"""
[secrets]
npm.env_var = "X"
other = { fetch_as = "env" }
[cache]
'max_entries' = 3
ttl_seconds = 7
"""
)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("schema_version", "schema_version = 1"),
        ("project", "[project] # [cache]"),
        ("project.name", 'name = "myrepo"'),
        ("project.description", 'description = """'),
        ("allowlist.secrets", "secrets = ["),
        ("allowlist.secrets[1]", "secrets = ["),
        ("secrets.aws", '[secrets."aws"]'),
        ("secrets.aws.fetch_as", 'fetch_as = "file"'),
        ("secrets.npm.env_var", 'npm.env_var = "X"'),
        ("secrets.npm", 'npm.env_var = "X"'),
        ("secrets.other.fetch_as", 'other = { fetch_as = "env" }'),
        ("cache", "[cache]"),
        ("cache.max_entries", "'max_entries' = 3"),
        ("cache.ttl_seconds", "ttl_seconds = 7"),
        # For a missing key, the line is its table's.
        ("secrets.aws.file_mode", '[secrets."aws"]'),
    ],
)
def test_where(key: str, text: str) -> None:
    assert tomllib.loads(MANIFEST.decode())
    line = Lines(MANIFEST).of(key)
    assert line is not None
    lines = MANIFEST.decode().split("\n")
    assert lines[line - 1] == text
    if key == "cache":
        assert line > 15, "not the ones in strings"


def test_nowhere() -> None:
    assert Lines(MANIFEST).of(None) is None
    assert Lines(b"").of("cache.ttl_seconds") is None
    assert Lines(b"a = 1\r\n[cache]\r\nttl_seconds = 1\r\n").of("cache.ttl_seconds") == 3


def test_a_byte_order_mark_hides_no_key() -> None:
    assert Lines(b"\xef\xbb\xbfproject = 1\n").of("project") == 1
    assert Lines(b"\xef\xbb\xbf[project]\nname = 1\n").of("project.name") == 2


@given(st.binary(max_size=200) | st.text("[]{}=.#\\\"'\n a", max_size=60).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    line = Lines(content).of("a.a")
    assert line is None or 1 <= line <= content.count(b"\n") + 1


def test_a_file_is_looked_through_once_for_all_its_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile manifest has thousands."""
    looked: list[bytes] = []

    def look(content: bytes) -> Lines:
        looked.append(content)
        return Lines(content)

    monkeypatch.setattr(lines, "Lines", look)
    found = content_faults(b"schema_version = 1\n[secrets.A]\nx = 1\n[secrets.B]\nx = 1\n")
    assert {one.line for one in found} >= {3, 5}
    assert len(looked) == 1
