"""Manifests that version 0.1.0 of the broker, given the same ones, accepted or refused.

Projects may rely on that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.manifest import ManifestError, load
from remo_broker.protocol.codes import Code

if TYPE_CHECKING:
    from tests.support.manifests import ProjectDirectory

_HEAD = 'schema_version = 1\n[project]\nname = "myrepo"\n'
_LIST = '[allowlist]\nsecrets = ["T"]\n'


def _secrets(array: str) -> str:
    return f"{_HEAD}[allowlist]\nsecrets = {array}\n"


def _version(value: str) -> str:
    return f'schema_version = {value}\n[project]\nname = "myrepo"\n{_LIST}'


def _cache(line: str) -> str:
    return f"{_HEAD}{_LIST}[cache]\n{line}\n"


TAKEN: dict[str, str] = {
    "plain": _HEAD + _LIST,
    "a byte-order mark": "\ufeff" + _HEAD + _LIST,
    "carriage returns": (_HEAD + _LIST).replace("\n", "\r\n"),
    "no newline at the end": (_HEAD + _LIST).rstrip(),
    "comments": f"# c\n{_HEAD}# d\n{_LIST}",
    "tabs before keys": "\t" + _HEAD.replace("\n", "\n\t") + _LIST,
    "no secrets": _secrets("[]"),
    "a digit first": _secrets('["1A"]'),
    "small letters": _secrets('["abc"]'),
    "128 characters": _secrets(f'["{"A" * 128}"]'),
    "an array over several lines": _secrets('[\n  "T", # c\n  "U",\n]'),
    "an escape": _secrets('["\\u0054"]'),
    "a string of three quotes": _secrets('["""T"""]'),
    "two thousand secrets": _secrets("[" + ",".join(f'"S{number}"' for number in range(2000)) + "]"),
    "tables in braces": 'schema_version = 1\nproject = {name = "myrepo"}\nallowlist = {secrets = ["T"]}\n',
    "dotted keys": 'schema_version = 1\nproject.name = "myrepo"\nallowlist.secrets = ["T"]\n',
    "keys in quotes": f'"schema_version" = 1\n["project"]\n\'name\' = "myrepo"\n{_LIST}',
    "a literal string": _HEAD.replace('"', "'") + _LIST,
    "a hexadecimal version": _version("0x1"),
    "a lease": _cache("ttl_seconds = 60"),
    "a number of leases": _cache("max_entries = 5"),
}
REFUSED: dict[str, str | bytes] = {
    "no allowlist": _HEAD,
    "no project": f"schema_version = 1\n{_LIST}",
    "no version": f'[project]\nname = "myrepo"\n{_LIST}',
    **{f"version {value}": _version(value) for value in ("0", "2", '"1"', "1.0", "true", "1_0")},
    "an unknown key": f"x = 1\n{_HEAD}{_LIST}",
    "an unknown table": f"{_HEAD}{_LIST}[other]\nx = 1\n",
    "an unknown key of the project": f"{_HEAD}x = 1\n{_LIST}",
    "an unknown key of the allowlist": f"{_HEAD}{_LIST}x = 1\n",
    "a key twice": f'{_HEAD}name = "myrepo"\n{_LIST}',
    "a table twice": _HEAD + _LIST + _LIST,
    "another project's name": _HEAD.replace("myrepo", "other") + _LIST,
    **{
        f"secrets {array[:20]}": _secrets(array)
        for array in ('["T","T"]', "[1]", '["T", 1]', '[""]', '["A B"]', '["A-B"]', '["A.B"]', '["É"]', '["*"]', '"T"')
    },
    "129 characters": _secrets(f'["{"A" * 129}"]'),
    **{
        f"cache {line}": _cache(line)
        for line in (
            *("ttl_seconds = 0", "ttl_seconds = -1", "ttl_seconds = 99999999999", "ttl_seconds = 1.5"),
            *("ttl_seconds = 2020-01-01", "max_entries = 0"),
        )
    },
    "words": "hello",
    "nothing": "",
    "a NUL": f"{_HEAD}\0{_LIST}",
    "several projects": f'schema_version = 1\n[[project]]\nname = "myrepo"\n{_LIST}',
    "a project that is a string beside an allowlist": f'schema_version = 1\nproject = "myrepo"\n{_LIST}',
    "Latin-1": (f"{_HEAD}{_LIST}# ".encode() + b"\xe9\n"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_it_is_accepted(project: ProjectDirectory, name: str) -> None:
    project.write(TAKEN[name])
    load(str(project.path), name="myrepo")


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_as_invalid(project: ProjectDirectory, name: str) -> None:
    project.write(REFUSED[name])
    with pytest.raises(ManifestError) as caught:
        load(str(project.path), name="myrepo")
    assert caught.value.code is Code.MANIFEST_INVALID
