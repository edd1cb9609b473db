"""The broker under measurement: the installed unit, or any executable that speaks the protocol."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pwd
import re
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from remo_broker.broker.projects import Registration
from remo_broker.broker.registrations import FILE_NAME, encode
from tests.bench.contestant import SECRET
from tests.bench.generator import Failed, Target
from tests.support.late import patiently

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.contestant import Place

# The project whose secrets are fetched, and what it may fetch.
PROJECT = "bench"
ALLOWED = tuple(f"S{number:05}" for number in range(10))

UNIT = "remo-broker.service"
SOCKETS = ("remo-broker-admin.socket", f"remo-broker-client@{PROJECT}.socket")
ANSWER_SECONDS = 30

GET = b'{"op":"get","name":"S00003"}\n'
PING = b'{"op":"ping"}\n'


def secrets(count: int) -> dict[str, str]:
    """So many secrets of usual length."""
    return {f"S{number:05}": SECRET for number in range(count)}


def push_request(values: dict[str, str]) -> bytes:
    return json.dumps({"op": "push-creds", "secrets": values}, separators=(",", ":")).encode() + b"\n"


def push_of_size(size: int, count: int) -> bytes:
    """A push of exactly `size` bytes, newline included, with `count` secrets."""
    empty = len(push_request(secrets(count))) - count * len(SECRET)
    length, rest = divmod(size - empty, count)
    return push_request({name: "v" * (length + (rest if name == "S00000" else 0)) for name in secrets(count)})


class BenchBroker:
    """A broker that is reached by its sockets."""

    def __init__(self, socket_dir: pathlib.Path, projects: pathlib.Path) -> None:
        self.socket_dir = socket_dir
        self._projects = projects

    @property
    def admin(self) -> str:
        return str(self.socket_dir / "admin.sock")

    def project_socket(self, name: str = PROJECT) -> str:
        return str(self.socket_dir / f"{name}.sock")

    @property
    def get(self) -> Target:
        return Target(self.project_socket(), GET, expect='{"ok":true,"value":')

    @property
    def ping(self) -> Target:
        return Target(self.project_socket(), PING, expect='{"ok":true,"broker_version":')

    def push_target(self, request: bytes) -> Target:
        return Target(self.admin, request, expect='{"ok":true,"loaded_at":')

    def ask(self, request: bytes) -> dict[str, Any]:
        """One request on the admin socket. Raises Failed when it is refused."""
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
            client.settimeout(ANSWER_SECONDS)
            client.connect(self.admin)
            client.sendall(request)
            reply: dict[str, Any] = json.loads(answers.readline())
        if not reply["ok"]:
            raise Failed(f"the broker answered {reply}")
        return reply

    def fetch(self) -> dict[str, Any]:
        """What a get is answered, on a connection of its own."""
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
            client.settimeout(ANSWER_SECONDS)
            client.connect(self.project_socket())
            client.sendall(GET)
            reply: dict[str, Any] = json.loads(answers.readline())
        return reply

    def push(self, count: int) -> int:
        """Push so many secrets; the generation."""
        return int(self.ask(push_request(secrets(count)))["generation"])

    def register(self, name: str = PROJECT, allowlist: Sequence[str] = ALLOWED) -> None:
        manifest = self._projects / name / ".devcontainer/remo-broker.toml"
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(
            f'schema_version = 1\n[project]\nname = "{name}"\n[allowlist]\nsecrets = {json.dumps(list(allowlist))}\n'
        )
        request = json.dumps({"op": "register", "name": name, "project_path": str(self._projects / name)}).encode()
        if (failure := patiently(lambda: self._failure(request + b"\n"))) is not None:
            raise failure

    def _failure(self, request: bytes) -> Failed | None:
        try:
            self.ask(request)
        except Failed as failure:
            return failure
        return None


class Unit(BenchBroker):
    """The installed service under the systemd that runs here."""

    config_file = pathlib.Path("/etc/remo-broker/config.toml")
    _STATE = pathlib.Path("/var/lib/remo-broker")

    def __init__(self) -> None:
        super().__init__(pathlib.Path("/run/remo-broker"), pathlib.Path("/srv/remo-bench"))

    def prepare(self) -> None:
        """A socket unit for the project, and the directory for the registrations."""
        self.config_file.parent.mkdir(exist_ok=True)
        _systemctl("enable", "--quiet", "--now", *SOCKETS)
        self.start()

    def settle(self, *, configured: bool = True) -> str:
        """One project, ten secrets, whatever was there before; how the broker says it protects
        its memory."""
        self.populate(1, configured=configured)
        self.push(len(ALLOWED))
        return str(self.ask(b'{"op":"status"}\n')["memory_protection"])

    def start(self) -> None:
        _systemctl("start", UNIT)

    def stop(self) -> None:
        """Return when the service is gone; its sockets stay."""
        _systemctl("stop", "--quiet", UNIT)

    def populate(self, projects: int, *, configured: bool = True) -> None:
        """Stop it and leave so many projects registered, of which one is `PROJECT`.

        `configured` is for measurements under load: no rate limit, no idle exit. Else there is no configuration, as on
        most hosts: reading one takes a start its time.
        """
        self.stop()
        if configured:
            self.config_file.write_text("rate_limit_per_second = 0\nidle_exit_seconds = 0\n")
        else:
            self.config_file.unlink(missing_ok=True)
        names = [PROJECT, *(f"project-{number:04}" for number in range(1, projects))][:projects]
        registrations = [Registration(name, f"/srv/remo-bench/{name}", ALLOWED, 900, 64, ()) for name in names]
        state = self._STATE / FILE_NAME
        state.write_bytes(encode(registrations))
        owner = pwd.getpwnam("remo-broker")
        os.chown(state, owner.pw_uid, owner.pw_gid)

    @property
    def pid(self) -> int:
        shown = subprocess.run(["systemctl", "show", UNIT, "-pMainPID", "--value"], capture_output=True, check=True)
        return int(shown.stdout)

    def audited(self, generation: int) -> tuple[str, ...]:
        """What matches the records in the journal of the fetches from one generation."""
        return "REMO_EVENT=fetch", f"REMO_PROJECT={PROJECT}", f"REMO_GENERATION={generation}", f"_PID={self.pid}"


def _systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", *arguments], check=True)


@contextlib.contextmanager
def started(place: Place, name: str, argv: Sequence[str]) -> Iterator[BenchBroker]:
    """Run `argv --socket-dir D --state-dir S`, register the project and push ten secrets.

    What it writes is kept in a file and not looked at.
    """
    home = place.directory(f"broker-{name}")
    (home / "state").mkdir()
    (home / "sockets").mkdir()
    broker = BenchBroker(home / "sockets", home / "projects")
    options = ["--socket-dir", str(broker.socket_dir), "--state-dir", str(home / "state")]
    with place.server([*argv, *options], pathlib.Path(broker.admin)):
        broker.register()
        broker.push(len(ALLOWED))
        yield broker


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use (VmRSS)."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
