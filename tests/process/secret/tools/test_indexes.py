"""`remo-secret keyring`, run by pip and uv."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.conftest import tool

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import Index, ToolSetup
    from tests.process.secret.tools.servers import RecordingServer

NAME_ALONE = "Basic " + base64.b64encode(b"alice:").decode()


@pytest.mark.parametrize("program", ["pip", "uv"])
def test_package_index(place: ToolSetup, index: Index, other: RecordingServer, program: str) -> None:
    tool(program)
    assert place.remo("setup", program).returncode == 0
    uv = ["uv", "pip", "install", "--system", "--break-system-packages", "--no-cache"]
    argv = {"pip": ["pip", "install", "--no-deps"], "uv": uv}[program]
    # If pip may not prompt, it uses a keyring only if configured to.
    env = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    done = place.run(*argv, "--index-url", f"http://alice@{index.host}/simple", "zq-no-such-package", **env)
    assert done.returncode != 0, "the index has no package"
    assert set(index.credentials) == {"alice:zqp\u00e4ss"}, done.stderr
    place.run(*argv, "--index-url", f"http://alice@{other.host}/simple", "zq-no-such-package", **env)
    assert other.asked
    assert other.credentials <= {NAME_ALONE}, "another index gets no password"
    assert {one["REMO_SECRET"] for one in place.broker.records("fetch")} == {"REGISTRY"}


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
