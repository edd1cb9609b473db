"""`remo-secret wait` bridges the time from a restart to the next push for a project's tools,
whatever happens meanwhile."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.machine.faults.figures import Figures
from tests.machine.faults.scene import NAMES, SECRETS, SERVICE, FaultMachine, socket_path
from tests.support.machine import poll

if TYPE_CHECKING:
    from tests.support.machine import Machine


def test_wait_bridges_a_restart_and_crashes(machine: Machine, figures: Figures) -> None:
    scene = FaultMachine(machine)
    path = socket_path("stored")
    machine.systemctl("restart", SERVICE)
    answer = machine.ask(path, {"op": "get", "name": NAMES[0]})
    assert (answer["code"], answer["reason"], answer["retry_after_seconds"]) == ("not_found", "no_snapshot", 1)
    waiting = machine.popen(["remo-secret", "--socket", path, "wait"])
    try:
        for _ in range(2):
            before = scene.signal(signal.SIGKILL)
            poll("another broker", lambda before=before: scene.pid() not in {0, before})  # type: ignore[misc]
            scene.answered_after(time.monotonic(), "stored")
        assert waiting.poll() is None
        began = time.monotonic()
        scene.push()
        out, err = waiting.communicate(timeout=60)
        took = time.monotonic() - began
    finally:
        waiting.kill()
    assert (waiting.returncode, out, err) == (0, "", "")
    assert machine.run(["remo-secret", "--socket", path, "get", NAMES[0]]).stdout == SECRETS[NAMES[0]]
    figures.tell(f"remo-secret wait, over a restart and two kills: done {took:.2f} s after the push")
