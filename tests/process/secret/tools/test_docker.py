"""`docker-credential-remo`, run by docker's own client library."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.conftest import NEWER, tool
from tests.process.secret.tools.servers import Answer, Asked, RecordingServer, unauthorized
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib
    import subprocess

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


REGISTRY = "Basic " + base64.b64encode(b"alice:zqforge").decode()


def registry(asked: Asked) -> Answer:
    """A minimal registry: it admits clients with a password, and has no images."""
    return (
        Answer(404)
        if asked.credential and asked.path != "/v2/"
        else Answer(200)
        if asked.credential
        else unauthorized()
    )


@pytest.mark.parametrize("client", ["podman", "skopeo"])
def test_a_registry_that_requires_a_password(
    place: ToolSetup, forge: RecordingServer, other: RecordingServer, client: str
) -> None:
    if shutil.which(client) is None:
        unavailable(f"{client} is not installed: ./run test installs it")
    forge.answer = registry
    for _ in range(2):
        assert place.remo("setup", "docker").returncode == 0
    assert "zq" not in "".join(place.files().values())

    def ask(host: str) -> subprocess.CompletedProcess[str]:
        # Storage of its own, and that needs no overlay: this host's root may be one.
        storage = [f"--root={place.home}/layers", f"--runroot={place.home}/state", "--storage-driver=vfs"]
        login = ["podman", *storage, "login", "--tls-verify=false", host]
        inspect = ["skopeo", "inspect", "--tls-verify=false", f"docker://{host}/x:latest"]
        return place.run(*(login if client == "podman" else inspect))

    done = ask(forge.host)
    assert forge.credentials == {REGISTRY}, done.stderr
    if client == "podman":
        assert (done.returncode, "Existing credentials are valid" in done.stdout) == (0, True), done.stderr
    assert ask(other.host).returncode != 0
    assert other.credentials <= {"Basic Og=="}, "another registry gets nothing: no name, no password"
    assert {one["REMO_SECRET"] for one in place.broker.records("fetch")} == {"FORGE"}
    place.assert_nowhere_else("zqforge", forge, other)
    assert place.remo("setup", "--remove", "docker").returncode == 0
    assert not [name for name in place.files() if "docker" in name]


def test_docker_pulls_with_the_credential_of_the_registry(place: ToolSetup, directory: pathlib.Path) -> None:
    """docker itself runs the helper, and sends its answer to the daemon: here, a server that
    records it."""
    docker = tool("docker", NEWER)
    place.broker.push({"DOCKERHUB": {"username": "carol", "password": "zqhub"}, "FORGE": "x"})
    assert place.remo("setup", "docker").returncode == 0
    path = directory / "daemon.sock"
    with contextlib.closing(RecordingServer(lambda _: Answer(200, b"{}", Api_Version="1.41"), path=path)) as daemon:
        for image in ("registry.example.org:5000/x", "docker.io/library/x", "quay.example/x"):
            place.run(docker, "--host", f"unix://{path}", "pull", image)
        sent = [one.headers["x-registry-auth"] for one in daemon.asked if "images/create" in one.path]
    found = [json.loads(base64.urlsafe_b64decode(one)) for one in sent]
    assert found[1]["username"] == "carol", "Docker Hub has a key of its own"
    assert found[1]["password"] == "zqhub"
    assert found[2].get("username") is None, "another registry gets nothing"
