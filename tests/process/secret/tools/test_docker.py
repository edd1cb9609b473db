"""`docker-credential-remo`, with docker's own client library asking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.conftest import tool

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup


def test_docker(place: ToolSetup) -> None:
    python = tool("python")
    assert place.remo("setup", "docker").returncode == 0
    settings = json.loads((place.home / ".docker/config.json").read_text())
    assert settings["credHelpers"]["registry.example.org:5000"] == "remo"
    code = (
        "import docker.auth, json, sys\n"
        "config = docker.auth.load_config()\n"
        "found = [config.resolve_authconfig(one) for one in sys.argv[1:]]\n"
        "print(json.dumps([one and [one['Username'], one['Password']] for one in found]))\n"
    )
    done = place.run(python, "-c", code, "registry.example.org:5000", "other.example.org")
    assert json.loads(done.stdout) == [["alice", "zqp\u00e4ss"], None], done.stderr


@pytest.mark.parametrize("argv", [["remo-secret", "docker-credential"], ["docker-credential-remo"]])
def test_docker_protocol(place: ToolSetup, argv: list[str]) -> None:
    place.remo("setup", "docker")
    done = place.run(*argv, "get", stdin="https://registry.example.org:5000/v2/\n")
    assert json.loads(done.stdout) == {
        "ServerURL": "https://registry.example.org:5000/v2/",
        "Username": "alice",
        "Secret": "zqp\u00e4ss",
    }
    done = place.run(*argv, "get", stdin="registry.example.net")
    assert (done.returncode, done.stdout, done.stderr) == (1, "credentials not found in native keychain\n", "")
    done = place.run(*argv, "get", stdin="denied.example.org")
    assert (done.returncode, done.stderr) == (1, "")
    assert "LATER" in done.stdout
    for operation in ("store", "erase"):
        done = place.run(*argv, operation, stdin='{"ServerURL":"x","Username":"u","Secret":"zqstored"}')
        assert done.returncode == 1
        assert done.stdout.count("\n") == 1
        assert "zqstored" not in done.stdout
    assert "registry.example.org:5000" in json.loads(place.run(*argv, "list").stdout)
    assert place.run(*argv, "version").stdout.startswith("docker-credential-remo")
