"""A real broker process for a test, and plain clients of its sockets.

The broker runs as `python -m remo_broker` in its own directory and audits to a file that `records`
reads. SIGTERM ends it; an internal error in its log or a nonzero exit status fails the test.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from remo_broker.broker import registrations
from remo_broker.broker.daemon import IDLE_STATUS
from remo_broker.broker.projects import ManifestSource, Registration
from remo_broker.manifest.document import parse
from remo_broker.manifest.result import build
from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from tests.support import processes
from tests.support.host_memory import of_this_host
from tests.support.late import patiently
from tests.support.machine import REPOSITORY, poll
from tests.support.privileges import require_tracing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from tests.support.notify import NotifySocket

    Reply: TypeAlias = dict[str, Any]

# Generous: a reply takes microseconds, a start about 50 ms, on a machine that is not busy.
WAIT_SECONDS = 60.0
NOBODY = 65534
# The broker keeps them open of the process that connected last, unless that had ended by then.
FILES_OF_LAST_PEER = 3

FAULT = "Internal error"

# systemd's side of socket activation: descriptors from 3 on, and LISTEN_PID, which only the process
# itself knows.
LAUNCH = """
import fcntl, os, sys
passed, command = sys.argv[1], sys.argv[2:]
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 200) for number in passed.split(",")]
for number, descriptor in enumerate(high, 3):
    os.dup2(descriptor, number)
os.closerange(3 + len(high), 300)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


def registration(
    name: str,
    *allowlist: str,
    ttl_seconds: int = 900,
    max_entries: int = 64,
    allowed_uids: Sequence[int] = (),
    project_path: str = "/nowhere",
    manifest: str | None = None,
) -> Registration:
    """The broker's stored record of an earlier registration, with a manifest if given."""
    source = None
    if manifest is not None:
        content = manifest.encode()
        built = build(parse(content), f"{project_path}/.remo/manifest.toml")
        bindings = json.dumps(built.tables).encode()
        source = ManifestSource(built.source, hashlib.sha256(content).hexdigest(), built.hosts, bindings)
        allowlist = allowlist or built.allowlist
    return Registration(name, project_path, allowlist, ttl_seconds, max_entries, allowed_uids, source)


def encode(request: object) -> bytes:
    """A request as a line; bytes stay unchanged."""
    return request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"


class Link:
    """One blocking connection."""

    def __init__(self, path: str | os.PathLike[str], timeout: float = WAIT_SECONDS) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(os.fspath(path))
        except BaseException:
            self.socket.close()
            raise
        self._read = b""

    def send(self, request: object) -> None:
        self.socket.sendall(encode(request))

    def line(self) -> bytes:
        """The next line, newline included.

        Raises EOFError at the end of the stream, with the unfinished line.
        """
        while b"\n" not in self._read:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError(self._read)
            self._read += data
        line, newline, self._read = self._read.partition(b"\n")
        return line + newline

    def reply(self) -> Reply:
        fields = json.loads(self.line())
        assert isinstance(fields, dict)
        return fields

    def ask(self, request: object) -> Reply:
        self.send(request)
        return self.reply()

    def say_no_more(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        while data := self.socket.recv(1 << 20):
            self._read += data
        return self._read

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ask(path: str | os.PathLike[str], request: object) -> Reply:
    """One request on a new connection."""
    with Link(path) as link:
        return link.ask(request)


def listen(path: str | os.PathLike[str], backlog: int = 128) -> socket.socket:
    """A listening socket as from a socket unit.

    This process owns it and starts the broker, as systemd does.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(os.fspath(path))
    listening.listen(backlog)
    return listening


# The flag of a listening socket in /proc/net/unix.
LISTENS = "00010000"


class Broker:
    """One broker process.

    `config` has keys of config.toml, passed as flags; `through` is a wrapper command.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        projects: Iterable[Registration] = (),
        listeners: Mapping[str, socket.socket] | Sequence[tuple[str, socket.socket]] = (),
        notify: NotifySocket | None = None,
        environment: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        through: Sequence[str] = (),
        stderr: int | None = None,
        **config: str | int,
    ) -> None:
        self.directory = directory
        self.sockets = directory / "s"
        self.state = directory / "state"
        self.log = directory / "audit.jsonl"
        self.config = config
        self.flags = flags
        self.through = through
        self.environment = environment or {}
        self.listeners = list(listeners.items() if hasattr(listeners, "items") else listeners)
        self.notify = notify
        self.stderr = stderr
        self.faults_expected = False
        self._process: subprocess.Popen[bytes] | None = None
        self.state.mkdir(mode=0o700, exist_ok=True)
        if seeds := list(projects):
            registrations.save(str(self.state), registrations.encode(seeds))

    # --- lifecycle

    def start(self) -> Self:
        """Start it and wait until it replies or, with a notify socket, reports ready."""
        told = len(self.notify.read()) if self.notify else 0
        self.launch()
        if self.notify is not None:
            notify = self.notify
            poll(
                "the broker to be ready", lambda: self._alive() and any("READY" in one for one in notify.read()[told:])
            )
        elif not self.listeners:
            poll("the broker to listen", lambda: self._alive() and self._listens())
        return self

    def launch(self) -> None:
        """Start it and return at once."""
        command = [*self.through, sys.executable, "-m", "remo_broker", "--socket-dir", str(self.sockets)]
        command += ["--state-dir", str(self.state), "--audit", "stderr"]
        for key, value in self.config.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        command += self.flags
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(REPOSITORY),
            **MEMORY_ENVIRONMENT,
        }
        if self.notify is not None:
            environment["NOTIFY_SOCKET"] = str(self.notify.path)
        passed = [listening.fileno() for _, listening in self.listeners]
        if passed:
            environment["LISTEN_FDS"] = str(len(passed))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.listeners)
            numbers = ",".join(map(str, passed))
            command = [sys.executable, "-I", "-S", "-c", LAUNCH, numbers, *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**environment, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log if self.stderr is None else self.stderr,
                pass_fds=passed,
            )

    def _alive(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the broker ended with {self._process.returncode}: {self.log.read_text()}")
        return True

    def _listens(self) -> bool:
        """The broker binds the admin socket last.

        Connecting to it would count against the limit on operators.
        """
        sockets = pathlib.Path("/proc/net/unix").read_text().splitlines()
        admin = f" {self.admin}"
        return any(one.endswith(admin) and one.split()[3] == LISTENS for one in sockets)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for it to exit; return its exit status."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """Send SIGTERM; it must exit cleanly, unless it was just about to go by itself."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # a test may have stopped it, and then failed or been skipped
            assert self.wait() in (0, IDLE_STATUS if self.config.get("idle_exit_seconds") else 0)

    def close(self) -> None:
        """End it, whatever the test's outcome."""
        try:
            self.stop()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        if not self.faults_expected:
            assert not [one for one in self.records() if FAULT in one.get("MESSAGE", "")]

    # --- requests

    @property
    def admin(self) -> pathlib.Path:
        return self.sockets / "admin.sock"

    @property
    def status_socket(self) -> pathlib.Path:
        return self.sockets / "status.sock"

    def project(self, name: str = "myrepo") -> pathlib.Path:
        return self.sockets / f"{name}.sock"

    def mount(self, project: str = "myrepo") -> pathlib.Path:
        """The project's other socket, for mounting into containers."""
        return self.sockets / "mount" / project / "broker.sock"

    def ask(self, request: object) -> Reply:
        """One request on the admin socket."""
        return patiently(lambda: ask(self.admin, request))

    def get(self, name: str, project: str = "myrepo") -> Reply:
        return ask(self.project(project), {"op": "get", "name": name})

    def push(self, secrets: Mapping[str, object] | None = None, **binary: str) -> Reply:
        """Push; the push must succeed."""
        request = {"op": "push-creds", "secrets": secrets or {}} | ({"secrets_b64": binary} if binary else {})
        reply = self.ask(request)
        assert reply["ok"], reply
        return reply

    def status(self) -> Reply:
        return self.ask({"op": "status"})

    # --- observation

    def records(self, event: str | None = None, **fields: str) -> list[dict[str, str]]:
        """Audit and log records, oldest first; `fields` has lower-case names without `REMO_`."""
        wanted = {f"REMO_{name.upper()}": value for name, value in fields.items()}
        if event is not None:
            wanted["REMO_EVENT"] = event
        found = []
        for line in self.log.read_bytes().splitlines(keepends=True):
            if line.startswith(b"{") and line.endswith(b"\n"):
                record = json.loads(line)
                if wanted.items() <= record.items():
                    found.append(record)
        return found

    def notes(self) -> list[str]:
        """What the broker logged besides audit records."""
        return [one["MESSAGE"] for one in self.records() if "REMO_EVENT" not in one and not of_this_host(one)]

    def descriptors(self) -> int:
        """How many descriptors it has open. Skips the test unless run as root."""
        return len(os.listdir(inside(self.pid, "fd")))

    def resident_kib(self) -> int:
        return processes.resident_kib(self.pid)

    def processor_seconds(self) -> float:
        """Its user and system time."""
        return processes.processor_seconds(self.pid)


def inside(pid: int, name: str) -> pathlib.Path:
    """A broker's /proc file, readable only by root: the broker makes itself non-dumpable."""
    require_tracing()
    return pathlib.Path(f"/proc/{pid}/{name}")


def run_to_end(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a broker that should exit by itself."""
    return subprocess.run(
        [sys.executable, "-m", "remo_broker", *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY), **MEMORY_ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


@contextlib.contextmanager
def short_directory() -> Iterator[pathlib.Path]:
    """A directory with a short path, as socket paths may have 107 bytes; any user may enter it."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="rb-"))
    try:
        directory.chmod(0o755)
        yield directory
    finally:
        shutil.rmtree(directory)


def settle(seconds: float) -> None:
    """Wait, in tests where the time itself matters."""
    time.sleep(seconds)
