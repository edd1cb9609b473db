"""The helpers, with the tools that run them and servers on loopback that record which credential arrived."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.broker import registration
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.broker import Broker

TOOLS = REPOSITORY / ".cache/tools/bin"
LAUNCHER = """#!{python}
import sys
sys.path.insert(0, {repository!r})
from remo_broker.secret.main import main
sys.exit(main())
"""


class Index:
    """A package index that wants a password, and records each that it is sent."""

    def __init__(self) -> None:
        self.credentials: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if (self.headers.get("Authorization") or "").startswith("Bearer "):  # npm
                    owner.credentials.append(str(self.headers["Authorization"]))
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", "18")
                    self.end_headers()
                    self.wfile.write(b'{"username": "zq"}')
                    return
                sent = base64.b64decode((self.headers.get("Authorization") or "x ").split(" ")[1])
                # pip sends what latin-1 can express in it, uv UTF-8.
                given = sent.decode("latin-1" if b"\xe4" in sent else "utf-8")
                if given.endswith(":") or not given:  # pip tries the user's name alone first
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="x"')
                else:
                    owner.credentials.append(given)
                    self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def index() -> Iterator[Index]:
    with contextlib.closing(Index()) as server:
        yield server


class Place:
    """A broker with a secret for each tool, a home, and the programs on the PATH."""

    def __init__(self, broker: Broker, directory: pathlib.Path, host: str) -> None:
        self.broker = broker
        self.home = directory / "home"
        self.home.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        launcher = self.bin / "remo-secret"
        launcher.write_text(LAUNCHER.format(python=sys.executable, repository=str(REPOSITORY)))
        launcher.chmod(0o755)
        self.host = host

    @property
    def environment(self) -> dict[str, str]:
        return programs.environment(
            {
                "HOME": str(self.home),
                "PATH": f"{self.home}/.local/bin:{self.bin}:{TOOLS}:{os.environ['PATH']}",
                "REMO_BROKER_SOCKET": str(self.broker.project()),
                "GIT_CONFIG_NOSYSTEM": "1",
            }
        )

    def run(self, *argv: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | env
        return subprocess.run(
            argv, env=environment, cwd=self.home, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )

    def remo(self, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("remo-secret", *arguments, stdin=stdin, **env)


@pytest.fixture
def place(start_broker: StartBroker, directory: pathlib.Path, index: Index) -> Place:
    manifest = f"""
schema_version = 1
project = "myrepo"
[secrets.aws]
[secrets.REGISTRY]
[secrets.PYPI_TOKEN]
[secrets.KUBE_TOKEN]
[secrets.GITHUB_TOKEN]
[secrets.QUOTES]
[secrets.LATER]
optional = true
[hosts]
"{index.host}" = "REGISTRY"
"registry.example.org:5000" = "REGISTRY"
"denied.example.org" = "LATER"
"""
    broker = start_broker(projects=[registration("myrepo", manifest=manifest)])
    broker.push(
        {
            "aws": {"aws_access_key_id": "AKIAzq", "aws_secret_access_key": "zqkey\u20ac", "aws_session_token": "zqs"},
            "REGISTRY": {"username": "alice", "password": "zqp\u00e4ss"},
            "PYPI_TOKEN": "pypi-zq",
            "KUBE_TOKEN": "zqkube",
            "GITHUB_TOKEN": "zqgithub",
            "QUOTES": 'it\'s $HOME "x" `y` \\ z',
        }
    )
    return Place(broker, directory, index.host)


def tool(name: str) -> str:
    path = TOOLS / name
    if not path.exists():
        unavailable(f"{name} is not installed: ./run test installs it")
    return str(path)


# --- AWS


def test_botocore(place: Place) -> None:
    python = tool("python")
    assert place.remo("setup", "aws").returncode == 0
    code = (
        "import botocore.session, json\n"
        "c = botocore.session.get_session().get_credentials()\n"
        "print(json.dumps([c.method, c.access_key, c.secret_key, c.token]))\n"
    )
    done = place.run(python, "-c", code)
    assert json.loads(done.stdout) == ["custom-process", "AKIAzq", "zqkey\u20ac", "zqs"], done.stderr
    assert [one["REMO_SECRET"] for one in place.broker.records("fetch")] == ["aws"]


def test_aws_answers(place: Place) -> None:
    answer = json.loads(place.remo("aws-credentials", "aws").stdout)
    assert answer["Version"] == 1
    assert "Expiration" not in answer, "a lease's end is not an expiry"
    done = place.remo("aws-credentials", "PYPI_TOKEN")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pypi-zq" not in done.stderr
    done = place.remo("aws-credentials", "OTHER")
    assert (done.returncode, done.stdout) == (3, "")
    assert "OTHER: " in done.stderr


# --- docker


def test_docker(place: Place) -> None:
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
def test_docker_protocol(place: Place, argv: list[str]) -> None:
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


# --- pip and uv


@pytest.mark.parametrize("program", ["pip", "uv"])
def test_package_index(place: Place, index: Index, program: str) -> None:
    tool(program)
    assert place.remo("setup", program).returncode == 0
    argv = {"pip": ["pip", "install", "--no-deps"], "uv": ["uv", "pip", "install", "--system", "--no-cache"]}[program]
    url = f"http://alice@{index.host}/simple"
    done = place.run(*argv, "--index-url", url, "zq-no-such-package", PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert done.returncode != 0, "the index has no package"
    assert set(index.credentials) == {"alice:zqp\u00e4ss"}, done.stderr


def test_keyring_protocol(place: Place) -> None:
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


# --- kubernetes


def test_kubernetes_client(place: Place) -> None:
    python = tool("python")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "remo"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://{place.host}"}}],
        "users": [
            {
                "name": "remo",
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": "remo-secret",
                        "args": ["kubernetes", "KUBE_TOKEN"],
                        "interactiveMode": "Never",
                    }
                },
            }
        ],
    }
    (place.home / "kube.json").write_text(json.dumps(config))
    code = (
        "import kubernetes.config, kubernetes.client\n"
        "kubernetes.config.load_kube_config('kube.json')\n"
        "print(kubernetes.client.Configuration.get_default_copy().api_key)\n"
    )
    done = place.run(python, "-c", code)
    assert "Bearer zqkube" in done.stdout, done.stderr


def test_kubernetes_answers(place: Place) -> None:
    answer = json.loads(place.remo("kubernetes", "KUBE_TOKEN").stdout)
    assert answer == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "zqkube"},
    }
    place.broker.push({"KUBE_TOKEN": {"certificate": "C", "key": "K"}})
    info = json.dumps({"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential"})
    answer = json.loads(place.remo("kubernetes", "KUBE_TOKEN", KUBERNETES_EXEC_INFO=info).stdout)
    assert answer["apiVersion"] == "client.authentication.k8s.io/v1beta1"
    assert answer["status"] == {"clientCertificateData": "C", "clientKeyData": "K"}


# --- env and check


def test_env(place: Place) -> None:
    expected = 'it\'s $HOME "x" `y` \\ z'
    assert json.loads(place.remo("env", "--format=json").stdout)["QUOTES"] == expected
    shell = place.remo("env", "--format=shell", "--only=QUOTES").stdout
    assert place.run("sh", "-c", f'{shell}\nprintf %s "$QUOTES"').stdout == expected
    (place.home / ".env").write_text(place.remo("env", "--only=QUOTES,GITHUB_TOKEN").stdout)
    assert place.run("bash", "-c", '. ./.env; printf %s "$QUOTES$GITHUB_TOKEN"').stdout == expected + "zqgithub"


def test_check_fetches_nothing(place: Place) -> None:
    done = place.remo("check")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()][:2] == [["aws", "present"], ["REGISTRY", "present"]]
    assert "absent (optional)" in done.stdout
    assert "zq" not in done.stdout
    assert place.remo("check", "OTHER").returncode == 3
    place.broker.push({"aws": "x"})
    assert place.remo("check", "aws").returncode == 0
    assert place.remo("check", "REGISTRY").returncode == 4
    assert not place.broker.records("fetch")


# --- setup


def test_setup_and_remove_leave_the_file_as_it_was(place: Place) -> None:
    before = {
        ".aws/config": "[default]\nregion = eu-west-1\n[profile x]\nregion = us-east-1\n",
        ".npmrc": "fund=false\n",
        ".cargo/config.toml": "[net]\noffline = true\n",
        ".config/uv/uv.toml": "[pip]\nstrict = true\n",
        ".gitconfig": "[user]\n\tname = me\n",
        ".docker/config.json": '{\n\t"auths": {}\n}\n',
    }
    for name, text in before.items():
        (place.home / name).parent.mkdir(parents=True, exist_ok=True)
        (place.home / name).write_text(text)
    tools = ["aws", "npm", "cargo", "uv", "git", "docker"]
    shown = place.remo("setup", "--dry-run", *tools)
    assert shown.returncode == 0, shown.stderr
    assert "+credential_process = remo-secret aws-credentials aws" in shown.stdout
    assert {name: (place.home / name).read_text() for name in before} == before
    for _ in range(2):
        assert place.remo("setup", *tools).returncode == 0
    after = {name: (place.home / name).read_text() for name in before}
    assert after[".aws/config"].index("credential_process") < after[".aws/config"].index("[profile x]")
    assert after[".aws/config"].count("credential_process") == 1
    assert after[".config/uv/uv.toml"].index("keyring-provider") < after[".config/uv/uv.toml"].index("[pip]")
    helpers = place.run("git", "config", "--global", "--get-all", "credential.helper").stdout
    assert helpers == "\n!remo-secret git-credential\n"
    assert "zq" not in "".join(after.values())
    assert place.remo("setup", "--remove", *tools).returncode == 0
    restored = {name: (place.home / name).read_text() for name in before}
    restored[".gitconfig"] = restored[".gitconfig"].replace("[credential]\n", "")
    assert restored == before
    assert not (place.home / ".local/bin/docker-credential-remo").exists()


def test_setup_does_not_overrule_what_is_set(place: Place) -> None:
    (place.home / ".aws").mkdir()
    (place.home / ".aws/config").write_text("[default]\ncredential_process = other\n")
    done = place.remo("setup", "aws")
    assert done.returncode == 1
    assert "credential_process" in done.stderr


def test_git_after_setup(place: Place) -> None:
    """Another helper in the system's configuration must not be handed the token to store."""
    system = place.home / "system"
    system.write_text("[credential]\n\thelper = store\n")
    assert place.remo("setup", "git").returncode == 0
    env = {"GIT_CONFIG_SYSTEM": str(system), "GIT_CONFIG_NOSYSTEM": "0", "GIT_TERMINAL_PROMPT": "0"}
    filled = place.run("git", "credential", "fill", stdin="url=https://github.com/x\n\n", **env).stdout
    assert "password=zqgithub" in filled
    place.run("git", "credential", "approve", stdin=filled, **env)
    assert not (place.home / ".git-credentials").exists()


def test_recipes_of_the_manual_are_what_setup_writes(place: Place) -> None:
    """Each setting in remo-secret-tools(7) for a tool that `setup` knows, word for word."""
    done = place.remo("setup", "--dry-run", "git", "aws", "docker", "pip", "uv", "npm", "cargo")
    assert done.returncode == 0, done.stderr
    added = [line[1:].strip() for line in done.stdout.splitlines() if line.startswith("+")]
    page = (REPOSITORY / "man/remo-secret-tools.7").read_text()
    for line in added:
        if "=" in line and not line.startswith(("#", "++", "helper")):
            assert line in page, line
    for helper in ("''", "'!remo-secret git-credential'"):
        assert f"credential.helper {helper}" in page


def test_the_recipe_for_npm(place: Place, index: Index) -> None:
    if shutil.which("npm") is None:
        unavailable("npm is not installed: ./run test installs it")
    assert place.remo("setup", "npm=KUBE_TOKEN").returncode == 0
    npmrc = place.home / ".npmrc"
    npmrc.write_text(npmrc.read_text().replace("registry.npmjs.org", index.host))
    registry = f"--registry=http://{index.host}/"
    done = place.remo("exec", "--only=KUBE_TOKEN", "--", "npm", "whoami", registry)
    assert done.stdout == "zq\n", done.stderr
    assert set(index.credentials) == {"Bearer zqkube"}


class Database:
    """Enough of a PostgreSQL server to be told a password: it records user and password, and refuses them."""

    def __init__(self) -> None:
        self.logins: list[tuple[str, str]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, struct.error):
                while True:
                    size, version = struct.unpack("!ii", stream.read(8))
                    startup = stream.read(size - 8)
                    if version == 196_608:
                        break
                    connection.sendall(b"N")  # no TLS, no GSSAPI
                connection.sendall(b"R" + struct.pack("!ii", 8, 3))
                _, size = struct.unpack("!ci", stream.read(5))
                password = stream.read(size - 4).rstrip(b"\0").decode()
                words = startup.split(b"\0")
                self.logins.append((words[words.index(b"user") + 1].decode(), password))
                refusal = b"SFATAL\0C28P01\0Mno\0\0"
                connection.sendall(b"E" + struct.pack("!i", len(refusal) + 4) + refusal)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def test_the_recipe_for_psql(start_broker: StartBroker, directory: pathlib.Path) -> None:
    if shutil.which("psql") is None:
        unavailable("psql is not installed: ./run test installs it")
    page = (REPOSITORY / "man/remo-secret-tools.7").read_text()
    recipe = page.partition("[secrets.db]\n")[2].partition(".Ed")[0].replace("\\en", "\\n")
    with contextlib.closing(Database()) as database:
        recipe = recipe.replace("db.example.org:5432", f"127.0.0.1:{database.port}")
        manifest = f'schema_version = 1\nproject = "myrepo"\n[secrets.db]\n{recipe}'
        broker = start_broker(projects=[registration("myrepo", manifest=manifest)])
        broker.push({"db": {"username": "zq:user", "password": "zq\\p:w"}})
        place = Place(broker, directory, "")
        argv = ["psql", "-h", "127.0.0.1", "-p", str(database.port), "-U", "zq:user", "-d", "x", "-c", "select 1"]
        done = place.remo("exec", "--", *argv)
        assert database.logins == [("zq:user", "zq\\p:w")], done.stderr
        place.remo("render", "--remove")
