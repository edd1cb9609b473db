"""A sidecar process and the broker that it supplies."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.broker import WAIT_SECONDS, Broker, registration
from tests.support.machine import poll
from tests.support.notify import NotifySocket

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping, Sequence

    from tests.conftest import StartBroker

SIDECAR = "remo_broker.sidecar"


class Supplied:
    """A broker, and how to run the sidecar for it."""

    def __init__(self, broker: Broker, directory: pathlib.Path) -> None:
        self.broker = broker
        self.directory = directory
        self.notified = NotifySocket(directory / "notify")
        self.log = directory / "sidecar.log"
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, *arguments: object, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command to its end."""
        words = (str(one) for one in arguments)
        return programs.run(SIDECAR, f"--socket={self.broker.admin}", *words, stdin=stdin, env=env, cwd=self.directory)

    def start(self, *arguments: object, program: Sequence[str] = ("-m", SIDECAR)) -> Supplied:
        """`run` in the background, until it is ready. `program` is what Python is to run."""
        told = len(self.notified.read())
        environment = programs.environment({"NOTIFY_SOCKET": str(self.notified.path)})
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *program, f"--socket={self.broker.admin}", "run", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                cwd=self.directory,
            )
        poll(
            "the sidecar to be ready",
            lambda: self.alive() and any("READY" in one for one in self.notified.read()[told:]),
        )
        return self

    def configure(self, text: str) -> pathlib.Path:
        file = self.directory / "sidecar.toml"
        file.write_text(text)
        return file

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def alive(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return True

    def logged(self) -> str:
        return self.log.read_text()

    def status(self) -> str:
        """The last `STATUS=`."""
        return next(one["STATUS"] for one in reversed(self.notified.read()) if "STATUS" in one)

    def serves(self, value: str, name: str = "A") -> None:
        poll(f"{name} to be {value}", lambda: self.broker.get(name).get("value") == value)

    def hangup(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(WAIT_SECONDS) == 0
        self._process = None

    def close(self) -> None:
        try:
            self.stop()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self.notified.close()


@pytest.fixture
def supplied(start_broker: StartBroker, directory: pathlib.Path) -> Iterator[Supplied]:
    broker = start_broker(projects=[registration("myrepo", "A", "B", "KEY", "b")], rate_limit_per_second=0)
    one = Supplied(broker, directory)
    yield one
    one.close()
