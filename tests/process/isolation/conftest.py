"""Attackers as processes of their own, and a client that behaves."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Attack = Callable[..., subprocess.Popen[bytes]]

ATTACKER = pathlib.Path(__file__).with_name("attacker.py")
# What is measured is the broker, not who gets the processor: attackers and whatever else runs leave
# it to the broker and to the measurement.
NICE_ATTACKER, NICE_MEASURED = 10, -10


@pytest.fixture(scope="module", autouse=True)
def _first() -> Iterator[None]:
    """Puts this process, and the broker that it starts, before others."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):  # as root only
        os.setpriority(os.PRIO_PROCESS, 0, NICE_MEASURED)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture
def attack() -> Iterator[Attack]:
    """`attack(kind, socket)` starts one that goes on until the test ends; `user`: as whom."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, path: str | os.PathLike[str], user: int | None = None) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [
                    "nice",
                    f"-n{NICE_ATTACKER - os.getpriority(os.PRIO_PROCESS, 0)}",
                    "prlimit",
                    "--nofile=4096:4096",
                    sys.executable,
                    "-IS",
                    ATTACKER,
                    kind,
                    path,
                ],
                stdout=subprocess.PIPE,
                user=user,
                extra_groups=None if user is None else [],
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            return process

        yield start


class Polite:
    """A client of another project: a get every few milliseconds, now and then on a new
    connection."""

    EVERY_SECONDS = 0.008
    CONNECT_EVERY = 5

    def __init__(self, path: pathlib.Path, name: str, value: str) -> None:
        self._path = path
        self._request = {"op": "get", "name": name}
        self._value = value

    def latencies(self, seconds: float) -> list[float]:
        """How long each get took, in seconds, its connect included; every one must be answered."""
        taken: list[float] = []
        end = time.monotonic() + seconds
        with Link(self._path) as link:
            while (now := time.monotonic()) < end:
                if len(taken) % self.CONNECT_EVERY == 0:
                    with Link(self._path) as fresh:
                        assert fresh.ask(self._request)["value"] == self._value
                else:
                    assert link.ask(self._request)["value"] == self._value
                taken.append(time.monotonic() - now)
                time.sleep(self.EVERY_SECONDS)
        return taken


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
