"""The environment of the tools: a broker, a home, and servers on loopback."""

from __future__ import annotations

import base64
import contextlib
import http.server
import os
import pathlib
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.process.secret.tools.servers import Answer, Certificate, RecordingServer, unauthorized
from tests.support import programs
from tests.support.broker import registration
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.broker import Broker


TOOLS = REPOSITORY / ".cache/tools/bin"
# Of a newer release than the host's; see downloads.sh.
NEWER = REPOSITORY / ".cache/trixie/bin"
LAUNCHER = """import sys
sys.path.insert(0, {repository!r})
from remo_broker.secret.main import main
sys.exit(main())
"""


class Index:
    """A package index that requires a password, and records each one it receives."""

    def __init__(self) -> None:
        self.credentials: list[str] = []
        owner = self

        class IndexHandler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = base64.b64decode((self.headers.get("Authorization") or "x ").split(" ")[1])
                # pip encodes in latin-1 if possible, uv in UTF-8.
                given = sent.decode("latin-1" if b"\xe4" in sent else "utf-8")
                if given.endswith(":") or not given:  # pip first tries the user name alone
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="x"')
                else:
                    owner.credentials.append(given)
                    self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), IndexHandler)
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def forge(certificate: Certificate) -> Iterator[RecordingServer]:
    """A server with TLS, for which `[hosts]` names the secret FORGE; tests set its answers."""
    with contextlib.closing(RecordingServer(lambda _: Answer(404), certificate)) as server:
        yield server


@pytest.fixture
def other() -> Iterator[RecordingServer]:
    """A server that requires a password and has no secret."""
    with contextlib.closing(RecordingServer(lambda _: unauthorized())) as server:
        yield server


class ToolSetup:
    """A broker with a secret for each tool, a home, and the programs on the PATH."""

    def __init__(self, broker: Broker, directory: pathlib.Path, memory: pathlib.Path, host: str) -> None:
        self.broker = broker
        self.memory = memory
        self.home = directory / "home"
        self.home.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        launcher = self.bin / "remo-secret"
        launcher.write_text(programs.first_lines() + LAUNCHER.format(repository=str(REPOSITORY)))
        launcher.chmod(0o755)
        self.host = host

    def page(self, section: str) -> list[str]:
        """The literal blocks of a section of remo-secret-tools(7)."""
        text = (REPOSITORY / "man/remo-secret-tools.7").read_text()
        section = text.partition(f".Ss {section}\n")[2].partition("\n.Ss ")[0].partition("\n.Sh ")[0]
        blocks = section.split(".Bd -literal -offset indent\n")[1:]
        return [(block.partition("\n.Ed")[0] + "\n").replace("\\e", "\\") for block in blocks]

    def files(self) -> dict[str, str]:
        """The files in the home, without npm's logs: some versions log each start."""
        return {
            str(path.relative_to(self.home)): path.read_text(errors="replace")
            for path in self.home.rglob("*")
            if path.is_file() and ".npm" not in path.parts
        }

    def write(self, files: dict[str, str]) -> None:
        """Write files of the home, with their directories."""
        for name, text in files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def assert_nowhere_else(self, value: str, *servers: RecordingServer) -> None:
        """Assert that the value is in no file of the home, where tools keep logs and caches, and in
        no argument."""
        assert value not in "".join(self.files().values())
        for one in (asked for server in servers for asked in server.asked):
            assert value.encode() not in one.command_lines

    @property
    def environment(self) -> dict[str, str]:
        return programs.environment(
            {
                "HOME": str(self.home),
                "PATH": f"{self.home}/.local/bin:{self.bin}:{TOOLS}:{os.environ['PATH']}",
                "REMO_BROKER_SOCKET": str(self.broker.project()),
                # Without it, concurrent tests would share a directory in /dev/shm.
                "XDG_RUNTIME_DIR": str(self.memory),
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
def place(
    start_broker: StartBroker, directory: pathlib.Path, memory: pathlib.Path, index: Index, forge: RecordingServer
) -> ToolSetup:
    manifest = f"""
schema_version = 1
project = "myrepo"
[secrets.aws]
[secrets.REGISTRY]
[secrets.FORGE]
[secrets.PYPI_TOKEN]
[secrets.KUBE_TOKEN]
[secrets.GITHUB_TOKEN]
[secrets.QUOTES]
[secrets.DOCKERHUB]
optional = true
[secrets.LATER]
optional = true
[hosts]
"{index.host}" = "REGISTRY"
"{forge.host}" = "FORGE"
"registry.example.org:5000" = "REGISTRY"
"denied.example.org" = "LATER"
"""
    broker = start_broker(projects=[registration("myrepo", manifest=manifest), registration("other", "OTHER")])
    broker.push(
        {
            "aws": {"aws_access_key_id": "AKIAzq", "aws_secret_access_key": "zqkey\u20ac", "aws_session_token": "zqs"},
            "REGISTRY": {"username": "alice", "password": "zqp\u00e4ss"},
            "FORGE": {"username": "alice", "password": "zqforge"},
            "PYPI_TOKEN": "pypi-zq",
            "KUBE_TOKEN": "zqkube",
            "GITHUB_TOKEN": "zqgithub",
            "QUOTES": 'it\'s $HOME "x" `y` \\ z',
        }
    )
    return ToolSetup(broker, directory, memory, index.host)


def tool(name: str, directory: pathlib.Path = TOOLS) -> str:
    path = directory / name
    if not path.exists():
        unavailable(f"{name} is not installed: ./run test installs it")
    return str(path)
