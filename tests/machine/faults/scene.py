"""The scene of the faults: two registered projects on the booted machine, and clients that keep the
broker busy. A socket unit holds the socket of `owned`; `stored` was registered while the broker
ran, so its listener is in systemd's descriptor store. Faults are sent from outside the machine,
without a service manager in between."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench.journal import FILES, rotations
from tests.support.machine import SOURCE, poll
from tests.support.operator import Operator
from tests.support.processes import children

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from tests.support.machine import Machine

SERVICE = "remo-broker.service"
ADMIN = "/run/remo-broker/admin.sock"
PROJECTS = ("owned", "stored")
# A separate name for each client.
NAMES = [f"S{number:02d}" for number in range(40)]
SECRETS = {name: f"value of {name}" for name in NAMES}
# The load exceeds the default rate limit, and requests over the limit have no records of their own.
UNLIMITED = "rate_limit_per_second = 0\n"
# Promised: the longest time from a crash to the next reply.
BACK_SECONDS = 2.0

# Fields that each record needs for the account.
_FIELDS = "REMO_EVENT,REMO_SECRET,REMO_DECISION,REMO_OUTCOME,REMO_REASON,REMO_PEER_PID,REMO_EVENT_USEC,REMO_COUNT,REMO_DROPPED,_SYSTEMD_UNIT,_PID"

_MANAGER = ["io.get2know.RemoBroker1", "/io/get2know/RemoBroker1", "io.get2know.RemoBroker1.Manager"]


def socket_path(project: str) -> str:
    return f"/run/remo-broker/{project}.sock"


class Account(NamedTuple):
    """The clients' counts compared with the journal's, in gets."""

    answered: int
    unanswered: int
    """Gets whose connection was closed without a reply."""
    recorded: int
    unrecorded: list[str]
    """Replies without a record: client, name and number."""
    unasked: list[str]
    """Records in excess of the requests."""
    without_unit: int
    """Records that journald could not attribute to the service."""


class LoadInMachine:
    """Clients running in the machine. `finish` ends them and returns their counts."""

    def __init__(
        self, machine: Machine, clients: int, seed: int, projects: Sequence[str], pause_seconds: float
    ) -> None:
        job = {
            "clients": clients,
            "seed": seed,
            "paths": [socket_path(name) for name in projects],
            "pause_seconds": pause_seconds,
        }
        self._process: subprocess.Popen[str] = machine.popen(
            ["/usr/bin/python3", "-IS", f"{SOURCE}/tests/machine/faults/load.py", json.dumps(job)]
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "running\n"

    def finish(self) -> list[dict[str, Any]]:
        out, err = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, err
        summaries: list[dict[str, Any]] = json.loads(out)
        return summaries

    def end(self) -> None:
        if self._process.poll() is None:  # something failed; its counts do not matter
            self._process.communicate()


class FaultMachine:
    """One machine with both kinds of projects, secrets pushed, and a mark in the journal from which
    records are counted."""

    def __init__(self, machine: Machine, config: str = UNLIMITED, unit: str = "") -> None:
        """`config` goes to config.toml, `unit` into a drop-in of the service."""
        self.machine = machine
        machine.write("/etc/remo-broker/config.toml", config)
        if unit:
            machine.write(f"/run/systemd/system/{SERVICE}.d/fault.conf", f"[Service]\n{unit}")
            machine.systemctl("daemon-reload")
        for project in PROJECTS:
            self.write_manifest(project, NAMES)
        self.register("owned")
        # A socket unit can be started only while the service does not run.
        machine.systemctl("stop", SERVICE)
        machine.systemctl("start", f"remo-broker-client@{PROJECTS[0]}.socket")
        self.register("stored")
        self.push()
        self.inodes = self.read_inodes()
        # Not a cursor: with matches, journalctl leaves out the first entry after it.
        self.since = time.time()

    # --- what an operator does

    def write_manifest(self, project: str, names: Sequence[str]) -> None:
        quoted = ", ".join(f'"{name}"' for name in names)
        self.machine.write(
            f"/projects/{project}/.devcontainer/remo-broker.toml",
            f'schema_version = 1\n[project]\nname = "{project}"\n[allowlist]\nsecrets = [{quoted}]\n',
        )

    def admin(self, **request: Any) -> dict[str, Any]:
        return self.machine.ask(ADMIN, request)

    def register(self, project: str) -> None:
        Operator(self.machine).do("register", name=project, project_path=f"/projects/{project}")

    def push(self) -> None:
        answer = self.admin(op="push-creds", secrets=SECRETS)
        assert answer["ok"], answer

    def status(self) -> dict[str, Any]:
        return self.admin(op="status")

    def dropped(self) -> int:
        """How many records the broker counts as lost, once none waits for journald."""
        poll("no record to wait", lambda: self.status()["audit"]["queued"] == 0)
        return int(self.status()["audit"]["dropped"])

    def bus_says(self, name: str) -> str:
        """A property on the bus; empty without a reply."""
        return self.machine.run(["busctl", "get-property", *_MANAGER, name], check=False).stdout.strip()

    # --- the process

    def pid(self) -> int:
        """The broker's process as the host sees it; 0 for none."""
        for child in children(self.machine.leader):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # The process is named after its interpreter. A zombie has no arguments.
                if b"/usr/bin/remo-broker" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                    return child
        return 0

    def signal(self, number: signal.Signals) -> int:
        """Send it to the broker as soon as there is one; return its pid."""
        while True:
            pid = poll("a broker to send a signal to", self.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                return pid

    def answered_after(self, began: float, project: str = "owned") -> float:
        """Wait until the project is served; return the seconds since `began`."""
        poll(f"{project} to answer", lambda: self._ping(project))
        return time.monotonic() - began

    def _ping(self, project: str) -> bool:
        try:
            return bool(self.machine.ask(socket_path(project), {"op": "ping"})["ok"])
        except (OSError, ValueError):
            return False  # a closed connection: its broker was just killed

    def read_inodes(self) -> dict[str, int]:
        paths = [ADMIN, "/run/remo-broker/status.sock", *(socket_path(project) for project in PROJECTS)]
        return {path: self.machine.path(path).stat().st_ino for path in ["/run/remo-broker", *paths]}

    # --- the load, and its account

    @contextlib.contextmanager
    def load(
        self, clients: int, seed: int, projects: Sequence[str] = PROJECTS, pause_seconds: float = 0.0
    ) -> Iterator[LoadInMachine]:
        one = LoadInMachine(self.machine, clients, seed, projects, pause_seconds)
        try:
            yield one
        finally:
            one.end()

    def account(self, clients: list[dict[str, Any]]) -> Account:
        """Compare each client's replies with the records that have its pid."""
        records = Counter[tuple[int, str]]()
        without_unit = 0
        for record in self.records("REMO_EVENT=fetch"):
            records[int(record["REMO_PEER_PID"]), record["REMO_SECRET"]] += 1
            without_unit += record.get("_SYSTEMD_UNIT") != SERVICE
        unrecorded: list[str] = []
        unasked: list[str] = []
        twice: list[str] = []
        recorded = 0
        for client in clients:
            answered, unanswered = Counter(client["answered"]), Counter(client["unanswered"])
            for name in answered | unanswered:
                count = records.pop((client["pid"], name), 0)
                recorded += count
                if count < answered[name]:
                    unrecorded.append(f"{client['pid']} {name}: {answered[name]} answers, {count} records")
                asked = answered[name] + unanswered[name]
                if count > asked:
                    (twice if count == asked + 1 else unasked).append(f"{client['pid']} {name}: {count} records")
        # journald itself sometimes writes an entry twice, when it starts a new file: see
        # `rotations`.
        if len(twice) > rotations(self.machine.path(str(FILES))):
            unasked += twice
        unasked += [f"{pid} {name}: {count} records, never asked" for (pid, name), count in records.items()]
        return Account(
            sum(sum(client["answered"].values()) for client in clients),
            sum(sum(client["unanswered"].values()) for client in clients),
            recorded,
            unrecorded,
            unasked,
            without_unit,
        )

    def records(self, *matches: str) -> list[dict[str, Any]]:
        """The broker's records since the mark, oldest first."""
        self.machine.run(["journalctl", "--sync"])
        command = ["journalctl", "--quiet", "--all", "--output=json", f"--output-fields={_FIELDS}"]
        printed = self.machine.run([*command, f"--since=@{self.since:.6f}", *matches]).stdout
        return [json.loads(line) for line in printed.splitlines()]


def longest_wait(clients: list[dict[str, Any]]) -> float:
    """The slowest reply in seconds, minus the clients' wait for the processor."""
    slowest: float = max(client["slowest"] for client in clients)
    late: float = max(client["late"] for client in clients)
    return max(0.0, slowest - late)


def summed(clients: list[dict[str, Any]], key: str) -> dict[str, int]:
    """One table of each client, summed over all."""
    total = Counter[str]()
    for client in clients:
        total.update(client[key])
    return dict(total)
