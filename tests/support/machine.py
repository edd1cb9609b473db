"""A complete systemd, booted in a container for tests; `installation` installs the project on it.

Its root is an overlay, written to memory, of the host's `/` or of the system in
`REMO_MACHINE_ROOT`: see `tests.matrix`. It is mounted in its own mount namespace. The container
runs in a PID namespace whose process 1 dies with its parent, so `kill -9` of the tests leaves only
an empty directory and empty control groups.

Differences from the host: the host's services are disabled (they would compete for ports); it has
its own machine id, network namespace and system bus; and its journal is on its disk, to survive a
reboot.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import pytest

from tests.support.bootable import ISOLATED, obstacle, systemd_runs
from tests.support.containment import HIERARCHIES, hierarchies, is_init, removed
from tests.support.processes import children

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")
Bus = Literal["dbus-daemon", "dbus-broker"]

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# This repository in the machine, read-only.
SOURCE = "/usr/src/remo-broker"
DBUS_BROKER = REPOSITORY / ".cache/dbus-broker"  # fetched by ./run
ROOT = pathlib.Path(os.environ.get("REMO_MACHINE_ROOT", "/"))
# From this version on, systemd boots only with cgroup v2.
UNIFIED_ONLY = 258

# Generous: a boot takes half a second on an idle machine with two cores.
BOOT_SECONDS = 60
RUN_SECONDS = 60
WAIT_SECONDS = 60

# Needed for secret memory, but not granted to containers by default: see the unit.
_CAPABILITIES = "CAP_IPC_LOCK"
_SYSTEM_CALLS = "@memlock memfd_secret"

_RESET = pathlib.Path(__file__).with_name("reset.sh").read_text()
_BOOT = pathlib.Path(__file__).with_name("boot.sh").read_text()
# Terminals, logins, and units that are slow or noisy in a container that lives for two minutes.
_MASKED = (
    "getty.target",
    "console-getty.service",
    "systemd-logind.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-firstboot.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
)

# A client in plain Python: argv is the path, standard input the request, standard output the
# reply's first line.
_CLIENT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(60)
client.connect(sys.argv[1])
client.sendall(sys.stdin.buffer.read())
sys.stdout.buffer.write(client.makefile("rb").readline())
"""


def unavailable(reason: str) -> NoReturn:
    """Skip the test because this host lacks something; in continuous integration, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def poll(what: str, probe: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
    """Call `probe` until it returns something true, and return that."""
    began = time.monotonic()
    while not (result := probe()):
        waited = time.monotonic() - began
        if waited > seconds:
            raise TimeoutError(f"waited {seconds:g} s for {what}; last: {result!r}")
        # Many a probe starts a program: what takes longer is asked for less often.
        time.sleep(min(max(0.02, waited / 10), 0.1))
    return result


class Machine:
    """One booted container.

    Paths and commands are the container's; the caller stays outside, as root.
    """

    def __init__(self, bus: Bus = "dbus-daemon", unpacked: pathlib.Path | None = None) -> None:
        """`unpacked` is a tar file to unpack into its root before it boots."""
        self.bus = bus
        self._unpacked = unpacked
        self.name = f"remo-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.leader = 0
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._top = pathlib.Path()

    # --- lifecycle --------------------------------------------------------------------------------

    @staticmethod
    def require() -> None:
        """Skip the test if this host cannot boot a machine; fail in continuous integration."""
        if os.geteuid() != 0:
            unavailable("booting a systemd takes root")
        for program in ("systemd-nspawn", "nsenter", "setpriv", "unshare"):
            if shutil.which(program) is None:
                unavailable(f"{program} is not installed here: ./run test installs it")
        if obstacle():
            unavailable(f"no machine can be booted here: {obstacle()}")

    def start(self) -> None:
        """Boot, and return when the machine has finished starting."""
        self._top = pathlib.Path(tempfile.mkdtemp(prefix="remo-machine-"))
        added = ""
        if self.bus == "dbus-broker" and not (ROOT / "usr/bin/dbus-broker-launch").exists():
            if not DBUS_BROKER.exists():
                unavailable(f"{DBUS_BROKER} is not there: ./run test fetches it")
            added = str(DBUS_BROKER)
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "TOP": str(self._top),
            "LOWER": str(ROOT),
            "ADDED": added,
            "UNPACKED": str(self._unpacked or ""),
            "BUS": self.bus,
            "GROUP": self.name,
            "HIERARCHIES": "",
            "MACHINE_ID": uuid.uuid4().hex,
            "MASKED": " ".join(_MASKED),
        }
        nspawn = ["systemd-nspawn", "--quiet", "--boot", f"--directory={self._top}/root", f"--machine={self.name}"]
        nspawn += [f"--capability={_CAPABILITIES}", f"--system-call-filter={_SYSTEM_CALLS}", "--private-network"]
        repository = str(REPOSITORY).replace("\\", "\\\\").replace(":", "\\:")
        nspawn += [f"--bind-ro={repository}:{SOURCE}", "--register=no", "--resolv-conf=off", "--timezone=off"]
        if not systemd_runs():
            # No systemd here to make a unit for it. It still needs its own control groups: its
            # systemd would otherwise share those of the host and of other machines, and kill their
            # processes.
            nspawn.append("--keep-unit")
            environment["HIERARCHIES"] = " ".join(HIERARCHIES)
        if systemd_version() >= UNIFIED_ONLY:
            environment["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
        nspawn.append("systemd.unit=multi-user.target")
        with (self._top.with_suffix(".log")).open("wb") as log:
            self._supervisor = subprocess.Popen(
                [*ISOLATED, "sh", "-c", _BOOT, "sh", *nspawn],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_until_booted(other_than=0)

    def stop(self) -> None:
        """Kill the machine. Leaves nothing on the host."""
        if self._supervisor is None:
            return
        with contextlib.ExitStack() as stack:
            leader = None
            with contextlib.suppress(OSError):  # it did not boot, or has ended
                # Not its number, which another process may get at once.
                leader = os.pidfd_open(self.leader)
                stack.callback(os.close, leader)
            self._supervisor.kill()  # this also kills the container, see _BOOT
            self._supervisor.wait()
            poll("the container to end", lambda: leader is None or select.select([leader], [], [], 0)[0], BOOT_SECONDS)
        for group in hierarchies(self.name):
            for directory, _, _ in os.walk(group, topdown=False):
                poll(f"{directory} to be empty", lambda directory=directory: removed(directory))  # type: ignore[misc]
        self._supervisor = None
        self._top.rmdir()
        self._top.with_suffix(".log").unlink()

    def reboot(self, *, until: str = "") -> None:
        """Shut down and boot again from the same disk; until that has finished, or until the manager is in the
        state `until`."""
        before = self.leader
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run(["systemctl", "reboot"], check=False, timeout=10)
        self._wait_until_booted(other_than=before, until=until)

    def _wait_until_booted(self, other_than: int, until: str = "") -> None:
        self.leader = poll("the container", lambda: self._find_leader(other_than), BOOT_SECONDS)
        try:
            poll("the machine to boot", lambda: self._is_booted(until), BOOT_SECONDS)
        except TimeoutError as error:
            log = self._top.with_suffix(".log").read_text(errors="replace")
            raise RuntimeError(f"{error}; its console: {log}") from error

    def _find_leader(self, other_than: int) -> int:
        assert self._supervisor is not None
        if self._supervisor.poll() is not None:
            log = self._top.with_suffix(".log").read_text(errors="replace")
            raise RuntimeError(f"systemd-nspawn ended with {self._supervisor.returncode}: {log}")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one has ended meanwhile
            for shell in children(self._supervisor.pid):
                for nspawn in children(shell):
                    for child in children(nspawn):
                        if child != other_than and is_init(child):
                            return child
        return 0

    def _is_booted(self, until: str) -> bool:
        try:
            state = self.run(["systemctl", "is-system-running"], check=False, timeout=10).stdout.strip()
        except subprocess.TimeoutExpired:
            return False  # it was asked while it was busy
        # "degraded": a unit of the host's distribution fails in containers.
        return state in {"running", "degraded", until or "running"}

    # --- commands ---------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        user: str | None = None,
        stdin: str = "",
        timeout: float = RUN_SECONDS,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine as `user` (default root), or `user:group`; raise if it
        fails."""
        done = subprocess.run(
            self._enter(argv, user),
            input=stdin,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"{shlex.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(
        self, argv: Sequence[str], *, user: str | None = None, stdin: IO[str] | int | None = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start a background command in the machine, which the caller ends. Its streams are
        pipes."""
        return subprocess.Popen(
            self._enter(argv, user),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/"},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _enter(self, argv: Sequence[str], user: str | None) -> list[str]:
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        if user is not None:
            user, _, group = user.partition(":")
            uid, gid = self.ids(user)
            gid = self.gid(group) if group else gid
            enter += ["setpriv", f"--reuid={uid}", f"--regid={gid}", f"--groups={self._groups(user, gid)}"]
        return [*enter, *argv]

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run(["systemctl", *arguments], check=check).stdout.strip()

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit as `systemctl show` prints them."""
        lines = self.systemctl("show", unit, *(f"-p{name}" for name in properties)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_state(self, unit: str, state: str) -> None:
        """Wait until `unit` is `active`, `inactive`, `failed` and so on."""
        poll(f"{unit} to be {state}", lambda: self.systemctl("is-active", unit, check=False) == state)

    def reset(self, enabled: str = "") -> None:
        """Reset to the state after the installation: nothing enabled, configured, registered,
        running or in the journal. Then enable and start the unit `enabled`, with its others.
        """
        self.run(["sh", "-c", _RESET, "sh", enabled])

    # --- files, users -----------------------------------------------------------------------------

    def path(self, path: str) -> pathlib.Path:
        """The host's path of a file in the machine. Absolute symlinks in it resolve on the host."""
        return pathlib.Path(f"/proc/{self.leader}/root{path}")

    @property
    def written(self) -> pathlib.Path:
        """The host's path of what was written to the machine's disk."""
        assert self._supervisor is not None
        return pathlib.Path(f"/proc/{self._supervisor.pid}/root{self._top}/upper")

    def files_with(self, text: str) -> list[str]:
        """The host's paths of the files that were written in the machine and have the text in them:
        on its disk, and where the broker or anybody may write to memory. systemd has credentials in
        /run."""
        places = [self.written, *map(self.path, ("/run/remo-broker", "/tmp", "/dev/shm"))]
        found = subprocess.run(
            ["grep", "-rlaF", "--file=-", *map(str, places)], input=text, stdout=subprocess.PIPE, text=True, check=False
        )
        return str(found.stdout).splitlines()

    def write(self, path: str, text: str) -> None:
        """Write a file and its parent directories, readable by all users."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)

    def ids(self, user: str) -> tuple[int, int]:
        """The uid and gid of a user in the machine."""
        for line in self.path("/etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == user:
                return int(uid), int(gid)
        raise LookupError(user)

    def gid(self, group: str) -> int:
        for line in self.path("/etc/group").read_text().splitlines():
            name, _, gid, _ = line.split(":")
            if name == group:
                return int(gid)
        raise LookupError(group)

    def _groups(self, user: str, gid: int) -> str:
        entries = (line.split(":") for line in self.path("/etc/group").read_text().splitlines())
        return ",".join([str(gid), *(entry[2] for entry in entries if user in entry[3].split(","))])

    # --- sockets, journal -------------------------------------------------------------------------

    def connect(self, path: str) -> socket.socket:
        """Connect to a socket in the machine from outside, as root.

        The machine sees no process id for it.
        """
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(WAIT_SECONDS)
        try:
            client.connect(str(self.path(path)))
        except BaseException:
            client.close()
            raise
        return client

    def ask(self, path: str, request: object, *, user: str | None = None) -> dict[str, Any]:
        """One request, its reply.

        With `user`, a process in the machine sends it; otherwise as with `connect`.
        """
        line = json.dumps(request) + "\n"
        if user is None:
            with self.connect(path) as client, client.makefile("rb") as answers:
                client.sendall(line.encode())
                answer = answers.readline().decode()
        else:
            answer = self.run(["/usr/bin/python3", "-ISc", _CLIENT, path], user=user, stdin=line).stdout
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """This boot's entries that match, such as `REMO_EVENT=fetch`: oldest first, all fields."""
        self.run(["journalctl", "--sync"])
        printed = self.run(["journalctl", "--boot", "--no-pager", "--quiet", "--all", "--output=json", *matches])
        return [json.loads(line) for line in printed.stdout.splitlines()]


def systemd_version() -> int:
    """The machine's systemd version, 0 if unknown."""
    libraries = (
        one.name for place in ("systemd", "*/systemd") for one in ROOT.glob(f"usr/lib/{place}/libsystemd-shared-*")
    )
    versions = [re.match(r"libsystemd-shared-(\d+)", name) for name in libraries]
    return max((int(version[1]) for version in versions if version), default=0)
