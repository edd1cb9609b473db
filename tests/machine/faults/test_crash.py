"""A broker that is killed or stopped while it serves many clients: every get is audited, no client
is refused, nothing is lost. A client that got a reply has its record in the journal; one whose
connection was closed may have one, because the broker may die between the record and the reply. No
get has more than one of each."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.machine.faults.figures import LONG, SEED, Figures, seconds, within
from tests.machine.faults.scene import BACK_SECONDS, NAMES, PROJECTS, SERVICE, UNLIMITED, FaultMachine, summed
from tests.support.installation import install
from tests.support.machine import poll
from tests.support.silent import silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.machine import Machine

KILLS = 200 if LONG else 6
TERMINATIONS = 50 if LONG else 2
RESTARTS = 100 if LONG else 3
REEXECUTIONS = 20 if LONG else 2
UPGRADES = 5  # in the long form only: see test_older_version
HANGS = 10 if LONG else 1
CLIENTS = 20
# Between a client's gets. What the clients and the account of their gets cost is another test's time.
PAUSE_SECONDS = 0.0 if LONG else 0.01
WATCHDOG_SECONDS = 1


class Registrar:
    """An operator who repeatedly registers a third project and unregisters it, until `stop` is
    called. Acknowledged changes must persist: an acknowledged registration exists after any fault,
    and an acknowledged removal too."""

    def __init__(self, scene: FaultMachine) -> None:
        self._scene = scene
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged = 0
        self.lost: list[str] = []
        scene.write_manifest("flip", NAMES[:3])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self) -> None:
        """Return when one more change has been acknowledged."""
        before = self.acknowledged
        poll("a registration to be acknowledged", lambda: self.acknowledged > before)

    def _run(self) -> None:
        wanted: bool | None = False
        while not self._stop.wait(0.01):
            try:
                listed = any(project["name"] == "flip" for project in self._scene.status()["projects"])
                # None: the last reply did not arrive, so either state is right.
                if wanted is not None and listed != wanted:
                    self.lost.append(f"flip is {'' if listed else 'not '}registered after {self.acknowledged} changes")
                wanted = None
                if listed:
                    answer = self._scene.admin(op="unregister", name="flip")
                else:
                    answer = self._scene.admin(op="register", name="flip", project_path="/projects/flip")
            except (OSError, ValueError):
                continue  # the connection was closed: the broker has gone
            if answer["ok"]:
                self.acknowledged += 1
                wanted = not listed


def kill(scene: FaultMachine, choose: random.Random) -> float:
    # At any moment: while it starts, adopts its sockets, handles the waiting clients, or serves.
    time.sleep(choose.choice((0.0, 0.02, 0.1, 0.6)) * choose.random())
    scene.signal(signal.SIGKILL)
    return time.monotonic()


def terminate(scene: FaultMachine, choose: random.Random) -> float:
    time.sleep(0.1 * choose.random())
    scene.signal(signal.SIGTERM)
    return time.monotonic()


def restart(scene: FaultMachine, choose: random.Random) -> float:
    time.sleep(0.1 * choose.random())
    began = time.monotonic()
    scene.machine.systemctl("restart", SERVICE)
    return began


def reexecute(scene: FaultMachine, choose: random.Random) -> float:
    """systemd re-executes itself, as when its package is upgraded, and has to remember the
    listeners' owners."""
    scene.machine.systemctl("daemon-reexec")
    return restart(scene, choose)


def upgrade(scene: FaultMachine, choose: random.Random) -> float:
    before = scene.pid()
    install(scene.machine)
    assert scene.pid() != before
    return time.monotonic()


def hang(scene: FaultMachine, choose: random.Random) -> float:
    pid = scene.signal(signal.SIGSTOP)
    poll("the watchdog to bite", lambda: scene.pid() != pid)
    return time.monotonic()


@pytest.mark.parametrize(
    ("fault", "times", "pause_seconds"),
    [
        (kill, KILLS, PAUSE_SECONDS),
        (terminate, TERMINATIONS, PAUSE_SECONDS),
        (restart, RESTARTS, PAUSE_SECONDS),
        (reexecute, REEXECUTIONS, PAUSE_SECONDS),
        (hang, HANGS, PAUSE_SECONDS),
        # It takes seconds on a busy machine.
        *([(upgrade, UPGRADES, 0.02)] if LONG else []),
    ],
)
def test_every_answer_has_its_record(
    machine: Machine,
    figures: Figures,
    fault: Callable[[FaultMachine, random.Random], float],
    times: int,
    pause_seconds: float,
) -> None:
    """`fault` returns when the outage began."""
    scene = FaultMachine(machine, UNLIMITED, f"WatchdogSec={WATCHDOG_SECONDS}s\n" if fault is hang else "")
    choose = random.Random(SEED)
    back = []
    with scene.load(CLIENTS, SEED, pause_seconds=pause_seconds) as load:
        with Registrar(scene) as registrar:
            time.sleep(0.1)
            for turn in range(times):
                if turn % 5 == 4:  # and cause the fault just after a change was acknowledged
                    registrar.wait()
                before = scene.pid()
                began = fault(scene, choose)
                poll("another broker", lambda before=before: scene.pid() not in {0, before})  # type: ignore[misc]
                back.append(scene.answered_after(began, PROJECTS[turn % 2]))
                if turn % 3:  # else the next fault would come while there are no secrets
                    scene.push()
            registrar.wait()
        clients = load.finish()
    account = scene.account(clients)
    figures.tell(
        f"{fault.__name__} {times} times under {CLIENTS} clients: {account.answered} answers, {len(account.unrecorded)} without "
        f"a record, {account.unanswered} gets without an answer, {sum(client['connects'] for client in clients)} connects, "
        f"{sum(summed(clients, 'refused').values())} refused, {registrar.acknowledged} registrations; back after: {seconds(back)}"
    )
    assert [account.unrecorded, account.unasked] == [[], []]
    assert summed(clients, "refused") == {}
    assert [error for client in clients for error in client["errors"]] == []
    assert {"ok", "not_in_manifest", "no_snapshot"} == summed(clients, "words").keys()
    assert registrar.lost == []
    assert scene.read_inodes() == scene.inodes
    assert {project["name"] for project in scene.status()["projects"]} >= set(PROJECTS)
    assert machine.systemctl("list-units", "--failed", "--plain", "--no-legend", "remo-broker*") == ""
    assert within(max(back), BACK_SECONDS)


def test_a_reader_that_cannot_be_killed_does_not_delay_a_start(machine: Machine, figures: Figures) -> None:
    scene = FaultMachine(machine)
    machine.run(["mkdir", "-p", "/projects/silent"])
    took = []
    with silent("/projects/silent", machine.leader):
        for begin in (kill, terminate, restart):
            refusal = scene.admin(op="register", name="silent", project_path="/projects/silent")
            assert refusal["code"] == "manifest_unreadable"
            before = scene.pid()
            began = begin(scene, random.Random(SEED))
            poll("another broker", lambda before=before: scene.pid() not in {0, before})  # type: ignore[misc]
            took.append(scene.answered_after(began, "stored"))
    figures.tell(f"with a manifest reader that hangs in the kernel, back after: {seconds(took)}")
    assert scene.read_inodes() == scene.inodes
    assert within(max(took), BACK_SECONDS)
