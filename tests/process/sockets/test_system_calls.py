"""What a get costs, in system calls of the broker, counted by strace.

One more call fails the test.
"""

from __future__ import annotations

import pathlib
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import system_calls
from tests.support.broker import WAIT_SECONDS, Broker, Link, registration
from tests.support.machine import poll, unavailable
from tests.support.privileges import require_tracing
from tests.support.system_calls import CONNECTION, EXECUTABLE, GET, TIMES, TO_STANDARD_ERROR, excess

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartBroker

REQUEST = b'{"op":"get","name":"A"}\n'


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    require_tracing()
    if shutil.which("strace") is None:
        unavailable("strace is not installed here: ./run test installs it")
    broker = start_broker(projects=[registration("myrepo", "A")], rate_limit_per_second=0)
    broker.push({"A": "a"})
    return broker


def calls(broker: Broker, directory: pathlib.Path, act: Callable[[], None]) -> dict[str, int]:
    """For each system call, how often the broker made it while `act` ran."""
    trace = directory / "trace"
    strace = subprocess.Popen(
        ["strace", "-f", "-q", "-o", str(trace), "-p", str(broker.pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        status = pathlib.Path(f"/proc/{broker.pid}/status")
        poll("strace to attach", lambda: f"TracerPid:\t{strace.pid}\n" in status.read_text())
        act()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(WAIT_SECONDS)
        assert strace.stderr is not None
        strace.stderr.close()
    return system_calls.read_trace_of_broker(trace.read_text())


def once(broker: Broker) -> None:
    with Link(broker.project()) as link:
        link.send(REQUEST)
        assert link.reply()["ok"]


def test_system_calls_of_a_get_on_an_open_connection(broker: Broker, tmp_path: pathlib.Path) -> None:
    with Link(broker.project()) as link:

        def act() -> None:
            for _ in range(TIMES):
                link.send(REQUEST)
                assert link.reply()["ok"]

        act()
        made = calls(broker, tmp_path, act)
    assert excess(made, GET, TO_STANDARD_ERROR) == {}


def test_system_calls_of_connect_get_and_close(broker: Broker, tmp_path: pathlib.Path) -> None:
    def act() -> None:
        for _ in range(TIMES):
            once(broker)

    act()
    made = calls(broker, tmp_path, act)
    assert excess(made, CONNECTION, TO_STANDARD_ERROR, system_calls.of_peer(), EXECUTABLE) == {}
