"""The broker that is soaked, and how its audit records are counted: as a unit from the journal, as
a process from its standard error."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from tests.bench import journal
from tests.bench.broker import BenchBroker, Unit
from tests.bench.contestant import wait_for
from tests.bench.generator import Failed

if TYPE_CHECKING:
    import pathlib


class Subject:
    """A running broker."""

    def __init__(self, broker: BenchBroker, pid: int) -> None:
        self.broker = broker
        self.pid = pid

    def finish(self) -> tuple[int, int]:
        """End the broker; how many fetches it has audited, and how many of them may be counted
        twice."""
        raise NotImplementedError


class UnitSubject(Subject):
    """The installed service. Its machine keeps a million records: see tests.support.machine."""

    def __init__(self) -> None:
        self._unit = Unit()
        self._unit.prepare()
        self._unit.populate(0)
        self._unit.start()
        super().__init__(self._unit, self._unit.pid)

    def finish(self) -> tuple[int, int]:
        self._unit.stop()
        return journal.count("REMO_EVENT=fetch", f"_PID={self.pid}"), journal.rotations()


class ProcessSubject(Subject):
    """A broker without systemd, its files below a directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        (directory / "state").mkdir()
        broker = BenchBroker(directory / "sockets", directory / "projects")
        options = ["--socket-dir", str(broker.socket_dir), "--state-dir", str(directory / "state")]
        options += ["--rate-limit-per-second", "0", "--idle-exit-seconds", "0", "--audit", "stderr"]
        self._process = subprocess.Popen([sys.executable, "-m", "remo_broker", *options], stderr=subprocess.PIPE)
        self._audited = 0
        self._said: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not wait_for(broker.socket_dir / "admin.sock", self._process):
            self.finish()
            raise Failed(f"the broker did not start: {b''.join(self._said).decode(errors='replace')}")
        super().__init__(broker, self._process.pid)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b'"REMO_EVENT": "fetch"' in line:
                self._audited += 1
            else:
                self._said = [*self._said[-20:], line]

    def finish(self) -> tuple[int, int]:
        self._process.terminate()
        self._reader.join()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        return self._audited, 0
