"""The static front of `remo-secret` and the Python program behave the same, byte for byte.

Each case is run with both; Python is the reference. The static program runs without Python beside
it, so that anything it cannot do by itself shows. Its requests to the peer are compared too.
"""

from __future__ import annotations

import pathlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.process.static_client import cases
from tests.process.static_client.aws_cases import AWS
from tests.process.static_client.command_cases import COMMANDS_OF_ALL_KINDS
from tests.support import programs
from tests.support.preloaded import Preloaded, preloaded
from tests.support.scripted_peer import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 60


class RunResult:
    """The result of one run: compared as a whole, shown as text."""

    def __init__(self, done: subprocess.CompletedProcess[bytes], requests: list[bytes]) -> None:
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr
        # The number of `wait`'s requests depends on time.
        self.requests = [one for place, one in enumerate(requests) if place == 0 or one != requests[place - 1]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunResult) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"status {self.status}, {self.stdout!r}, {self.stderr!r}, asked {self.requests}"


@pytest.fixture(scope="module")
def reference() -> Iterator[Preloaded]:
    """The Python program."""
    imports = ["client.project", "client.errors", "client.unreachable", "client.trust", "protocol.names"]
    imports += ["secret.get", "secret.wait", "secret.git", "secret.aws", "cli.text"]
    with preloaded("remo_broker.secret.main", "main", [f"remo_broker.{one}" for one in imports]) as program:
        yield program


@pytest.mark.parametrize(
    "case", [*cases.REPLIES_OF_ALL_KINDS, *COMMANDS_OF_ALL_KINDS, *AWS], ids=lambda case: case.name
)
def test_one_behaviour(case: cases.Case, alone: pathlib.Path, reference: Preloaded, directory: pathlib.Path) -> None:
    path = directory / "p.sock"
    environment = programs.environment({"REMO_BROKER_SOCKET": str(path)})
    with ScriptedPeer(path, *case.scripts) as peer:
        done = reference.run(case.arguments, stdin=case.stdin, env=environment, cwd=directory)
    expected = RunResult(done, peer.requests)
    assert expected.status == case.status, expected
    if case.stdout is not None:
        assert expected.stdout == case.stdout
    with ScriptedPeer(path, *case.scripts) as peer:
        done = subprocess.run(
            [alone, *case.arguments],
            input=case.stdin,
            capture_output=True,
            env=environment,
            cwd=directory,
            timeout=WAIT_SECONDS,
            check=False,
        )
    assert RunResult(done, peer.requests) == expected
