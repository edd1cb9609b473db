"""`remo-secret keyring`, with pip and uv asking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.conftest import tool

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import Index, ToolSetup


@pytest.mark.parametrize("program", ["pip", "uv"])
def test_package_index(place: ToolSetup, index: Index, program: str) -> None:
    tool(program)
    assert place.remo("setup", program).returncode == 0
    argv = {"pip": ["pip", "install", "--no-deps"], "uv": ["uv", "pip", "install", "--system", "--no-cache"]}[program]
    url = f"http://alice@{index.host}/simple"
    done = place.run(*argv, "--index-url", url, "zq-no-such-package", PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert done.returncode != 0, "the index has no package"
    assert set(index.credentials) == {"alice:zqp\u00e4ss"}, done.stderr


def test_keyring_protocol(place: ToolSetup) -> None:
    url = "https://registry.example.org:5000/simple/"
    for words in (
        ["get", url, "alice"],
        ["--mode=password", "get", url, "alice"],
        ["get", url, "alice", "--mode", "password"],
    ):
        assert place.remo("keyring", *words).stdout == "zqp\u00e4ss\n"
    done = place.remo("keyring", "--mode=creds", "--output=json", "get", url)
    assert json.loads(done.stdout) == {"username": "alice", "password": "zqp\u00e4ss"}
    assert place.remo("keyring", "get", url, "--mode=creds").stdout == "alice\nzqp\u00e4ss\n"
    assert place.remo("keyring", "get", "https://upload.pypi.org/legacy/", "__token__").stdout == "pypi-zq\n"
    for words in (["get", "https://other.example.org/", "x"], ["get", url, "bob"], ["set", url, "alice"]):
        done = place.remo("keyring", *words)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
