"""journald hangs, is stopped, is restarted, or has no space: no client waits for it, and records
that it does not accept are kept or counted. With `audit_failure = "deny"` a secret is not handed
out unless its record was accepted. Acceptance is not storage: when its disks are full, journald
accepts records and drops them. The broker notices within twice `STORAGE_CHECK_SECONDS`, and counts
as lost what was accepted since the last successful check."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker.audit.trail import SEND_SECONDS
from remo_broker.broker.audit.trail_timers import STORAGE_CHECK_SECONDS
from remo_broker.broker.audit.waiting import WAITING_RECORDS
from tests.machine.faults import journald
from tests.machine.faults.figures import LONG, SEED, Figures, within
from tests.machine.faults.scene import NAMES, UNLIMITED, FaultMachine, longest_wait, socket_path, summed
from tests.support.machine import poll
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.machine import Machine

    Trouble = Callable[[Machine], contextlib.AbstractContextManager[None]]

CLIENTS = 20
# Some 4,000 gets a second: within a second, more than may wait.
PAUSE_SECONDS = 0.005
# Some 400: what comes while journald restarts may wait, unless that takes long on a busy machine.
SLOW_PAUSE_SECONDS, LONG_RESTART_SECONDS = 0.05, 1.0
# No client waits longer for its reply than the broker waits for journald, plus time for a busy
# machine.
ANSWER_SECONDS = SEND_SECONDS + 0.4
# Promised.
DENIED_SECONDS = RECOVERED_SECONDS = 2.0
STATUS_SECONDS = 0.2
JOURNALD_RESTARTS = 30 if LONG else 4
JOURNALD_KILLS = 30 if LONG else 3
DENIALS, GRANTS = 20_000, 100


class LongestWaits:
    """Requests the status and a secret during a fault, and records the longest waits."""

    def __init__(self, scene: FaultMachine) -> None:
        self._scene = scene
        self.longest_status = 0.0

    def audit(self) -> dict[str, Any]:
        began = time.monotonic()
        audit: dict[str, Any] = self._scene.status()["audit"]
        self.longest_status = max(self.longest_status, time.monotonic() - began)
        return audit

    def until(self, what: str, probe: Callable[[], object]) -> float:
        """Wait until `probe` is true; return the seconds."""
        began = time.monotonic()
        poll(what, probe)
        return time.monotonic() - began

    def word(self) -> str:
        """The result of a get, in one word."""
        answer = self._scene.machine.ask(socket_path("owned"), {"op": "get", "name": NAMES[-1]})
        return "ok" if answer["ok"] else str(answer["reason"])


@contextlib.contextmanager
def _place(machine: Machine, trouble: Trouble) -> Any:
    with journald.small_disks(machine) if trouble is journald.full else contextlib.nullcontext():
        yield


@pytest.mark.parametrize("trouble", [journald.stopped, journald.gone, journald.full])
def test_no_client_waits_and_unaccepted_records_are_kept_or_counted(
    machine: Machine, figures: Figures, trouble: Trouble
) -> None:
    with _place(machine, trouble):
        scene = FaultMachine(machine)
        watch = LongestWaits(scene)
        with scene.load(CLIENTS, SEED, pause_seconds=PAUSE_SECONDS) as load:
            time.sleep(0.3)
            with trouble(machine):
                noticed = watch.until("the trouble to be noticed", lambda: not watch.audit()["healthy"])
                poll("the queue to fill", lambda: watch.audit()["queued"] == WAITING_RECORDS)
                before = watch.audit()["dropped"]
                poll("some to be dropped", lambda: watch.audit()["dropped"] > before + 100)
            recovered = watch.until("the trouble to be over", lambda: watch.audit()["healthy"])
            clients = load.finish()
        dropped = watch.audit()["dropped"]
        poll("the bus to tell the drops", lambda: scene.bus_says("AuditDropped") == f"t {dropped}")
        account = scene.account(clients)
        recorded = scene.records("REMO_EVENT=fetch")
        # A waiting record may also be a probe or a log line.
        told_by_broker = scene.records(f"_SYSTEMD_UNIT={SERVICE}")
        replayed = [record for record in recorded if "REMO_EVENT_USEC" in record]
        told = [int(record["REMO_DROPPED"]) for record in scene.records("REMO_EVENT=audit.recovered")]
        degraded = scene.records("REMO_EVENT=audit.degraded")
        counted = sum(int(record["REMO_COUNT"]) for record in scene.records("REMO_EVENT=fetch.denials_counted"))
    slowest = longest_wait(clients)
    missing = account.answered - account.recorded
    figures.tell(
        f"journald {trouble.__name__}, serve: noticed after {noticed:.2f} s, over after {recovered:.2f} s, slowest answer "
        f"{slowest:.3f} s, slowest status {watch.longest_status:.3f} s; {account.answered} answers, {missing} not in the journal, "
        f"{dropped} counted as dropped, {len(replayed)} replayed"
    )
    assert set(summed(clients, "words")) == {"ok", "not_in_manifest"}
    assert [error for client in clients for error in client["errors"]] == []
    assert within(slowest, ANSWER_SECONDS)
    assert within(watch.longest_status, STATUS_SECONDS)
    assert within(recovered, RECOVERED_SECONDS)
    assert account.unasked == []
    if trouble is journald.stopped:
        assert missing == dropped
    else:  # records accepted just before the fault was noticed may or may not be lost; both count as lost
        assert 0 < missing <= dropped
    assert sum(told) == dropped
    assert len(degraded) == len(told)
    # Kept records are in their original order, each with its own time; denials were dropped first,
    # and are counted.
    kept = [record for record in told_by_broker if "REMO_EVENT_USEC" in record]
    assert len(kept) > WAITING_RECORDS, "the queue, and that it was degraded"
    times = [int(record["REMO_EVENT_USEC"]) for record in replayed]
    assert times == sorted(times)
    assert 0 < counted <= dropped


@pytest.mark.parametrize("trouble", [journald.stopped, journald.gone, journald.full])
def test_deny_hands_out_no_secret_without_a_record(machine: Machine, figures: Figures, trouble: Trouble) -> None:
    with _place(machine, trouble):
        scene = FaultMachine(machine, UNLIMITED + 'audit_failure = "deny"\n')
        watch = LongestWaits(scene)
        with scene.load(CLIENTS, SEED, pause_seconds=PAUSE_SECONDS) as load:
            time.sleep(0.3)
            with trouble(machine):
                denied = watch.until("a denial", lambda: watch.word() == "audit_unavailable")
                for _ in range(10):
                    assert watch.word() == "audit_unavailable"
                    watch.audit()
            recovered = watch.until("a secret", lambda: watch.word() == "ok")
            clients = load.finish()
        dropped = watch.audit()["dropped"]
        granted = Counter(
            int(record["REMO_PEER_PID"])
            for record in scene.records("REMO_EVENT=fetch", "REMO_DECISION=allow", "REMO_OUTCOME=ok")
        )
    bare = sum(max(0, client["words"]["ok"] - granted[client["pid"]]) for client in clients)
    figures.tell(
        f"journald {trouble.__name__}, deny: denied after {denied:.2f} s, secrets again after {recovered:.2f} s, slowest status "
        f"{watch.longest_status:.3f} s; {summed(clients, 'words')['ok']} secrets given out, {bare} without a record in the journal"
    )
    assert set(summed(clients, "words")) == {"ok", "not_in_manifest", "audit_unavailable"}
    assert within(denied, DENIED_SECONDS)
    assert within(recovered, RECOVERED_SECONDS)
    assert within(watch.longest_status, STATUS_SECONDS)
    if trouble is journald.stopped:
        assert bare == 0
    elif trouble is journald.gone:
        # When a socket unit is stopped after its service, process 1 reads and discards its queue,
        # and senders cannot tell it from journald. That is at most one turn's records, one of each
        # client.
        assert bare <= CLIENTS
    else:
        assert bare <= dropped


def test_a_secret_waits_for_its_record_to_be_received(machine: Machine) -> None:
    """The queue of a hanging journald still accepts some records, and would be lost with its
    socket."""
    scene = FaultMachine(machine, UNLIMITED + 'audit_failure = "deny"\n')
    watch = LongestWaits(scene)
    poll("a secret, once records are known to be stored", lambda: watch.word() == "ok")
    with journald.stopped(machine):
        assert watch.word() == "audit_unavailable"
    poll("a secret", lambda: watch.word() == "ok")


def test_a_restart_of_journald_loses_nothing(machine: Machine, figures: Figures) -> None:
    scene = FaultMachine(machine)
    longest = 0.0
    with scene.load(CLIENTS, SEED, pause_seconds=SLOW_PAUSE_SECONDS) as load:
        for _ in range(JOURNALD_RESTARTS):
            began = time.monotonic()
            journald.restart(machine)
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.1)
        clients = load.finish()
    dropped = scene.dropped()
    account = scene.account(clients)
    slowest = longest_wait(clients)
    figures.tell(
        f"journald restarted {JOURNALD_RESTARTS} times: {account.answered} answers, {len(account.unrecorded)} without a record, "
        f"slowest answer {slowest:.3f} s"
    )
    assert account.unasked == []
    assert account.answered - account.recorded == dropped
    assert dropped == 0 or longest > LONG_RESTART_SECONDS
    assert within(slowest, ANSWER_SECONDS)


def test_a_killed_journald_loses_what_it_was_reading(machine: Machine, figures: Figures) -> None:
    """At most one datagram, which is a turn of the loop: a record of each client. The queue belongs
    to process 1, and stays. What comes until the next one is there may be more than may wait, and
    is counted."""
    scene = FaultMachine(machine)
    with scene.load(CLIENTS, SEED, pause_seconds=PAUSE_SECONDS) as load:
        for _ in range(JOURNALD_KILLS):
            journald.kill(machine)
            time.sleep(0.2)
        clients = load.finish()
    dropped = scene.dropped()
    account = scene.account(clients)
    lost = account.answered - account.recorded - dropped
    figures.tell(
        f"journald killed {JOURNALD_KILLS} times: {account.answered} answers, {lost} without a record, {dropped} counted as dropped"
    )
    assert account.unasked == []
    assert lost <= JOURNALD_KILLS * CLIENTS


def test_a_stop_waits_briefly_for_journald(machine: Machine) -> None:
    scene = FaultMachine(machine)
    with scene.load(CLIENTS, SEED, pause_seconds=SLOW_PAUSE_SECONDS) as load:
        with journald.stopped(machine):
            poll("records to wait", lambda: scene.status()["audit"]["queued"] > 100)
            # Sent while it cannot log either; from then on it has a second.
            scene.signal(signal.SIGTERM)
            time.sleep(0.3)
        clients = load.finish()
    account = scene.account(clients)
    assert [account.unrecorded, account.unasked] == [[], []]
    assert [int(record["REMO_DROPPED"]) for record in scene.records("REMO_EVENT=broker.stopped")] == [0]


def test_the_last_records_of_a_broker_that_was_killed_are_in_the_review(machine: Machine) -> None:
    """journald reads them after the process has exited, and cannot determine its unit."""
    scene = FaultMachine(machine)
    with journald.stopped(machine):
        for name in NAMES:
            machine.ask(socket_path("stored"), {"op": "get", "name": name})
        scene.signal(signal.SIGKILL)
        journald.kill(machine)
    recorded = scene.records("REMO_EVENT=fetch")
    assert len(recorded) == len(NAMES)
    assert "_SYSTEMD_UNIT" not in recorded[-1]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(scene.since))
    reviewed = machine.run(["remo-brokerctl", "audit", "--since", since, "--json=short"]).stdout
    assert [name for name in NAMES if f'"{name}"' not in reviewed] == []


def test_on_a_full_disk_journald_continues_in_memory(machine: Machine, figures: Figures) -> None:
    with journald.small_disks(machine):
        scene = FaultMachine(machine)
        with scene.load(CLIENTS, SEED, pause_seconds=PAUSE_SECONDS) as load:
            with journald.full_disk(machine):
                poll("journald to go on", lambda: [*machine.path("/run/log/journal").glob("*/system.journal")])
                time.sleep(2.5 * STORAGE_CHECK_SECONDS)
                status = scene.status()["audit"]
            clients = load.finish()
        account = scene.account(clients)
    figures.tell(
        f"journald without room below /var: {account.answered} answers, {len(account.unrecorded)} without a record; it goes on in /run"
    )
    assert status["healthy"]
    assert status["dropped"] == 0
    assert [account.unrecorded, account.unasked] == [[], []]


_DENIALS = """
import socket, sys
path, denials, grants, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
client = socket.socket(socket.AF_UNIX)
client.connect(path)
answers = client.makefile("rb")
for batch in range(denials // 100):
    client.sendall(b"".join(b'{"op":"get","name":"NO_%d"}\\n' % (100 * batch + one) for one in range(100)))
    for _ in range(100):
        assert b"not_in_manifest" in answers.readline()
for _ in range(grants):
    client.sendall(b'{"op":"get","name":"%s"}\\n' % name.encode())
    assert b'"value"' in answers.readline()
"""


def test_a_flood_of_denials_displaces_no_grant_from_the_journal(machine: Machine, figures: Figures) -> None:
    """Under journald's default rate limit for other services."""
    with journald.strict(machine):
        scene = FaultMachine(machine)
        arguments = [socket_path("stored"), str(DENIALS), str(GRANTS), NAMES[0]]
        began = time.monotonic()
        machine.run(["/usr/bin/python3", "-ISc", _DENIALS, *arguments])
        took = time.monotonic() - began
        records = Counter(record["REMO_DECISION"] for record in scene.records("REMO_EVENT=fetch"))
    suppressed = machine.run(
        ["journalctl", "--quiet", f"--since=@{scene.since:.6f}", "_COMM=systemd-journal", "--grep=Suppressed"],
        check=False,
    )
    figures.tell(
        f"{DENIALS} denials, then {GRANTS} grants, in {took:.1f} s: {dict(records)} in the journal, none suppressed"
    )
    assert records == {"deny": DENIALS, "allow": GRANTS}
    assert suppressed.stdout == ""
