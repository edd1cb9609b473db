"""A broker's standard error, whose reader may stop reading."""

from __future__ import annotations

import fcntl
import json
import os
import select
import threading


class Pipe:
    """Standard error as a pipe that a test may forget to read."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, 4096)
        self.data = b""
        self._reads = threading.Event()
        self._ends = threading.Event()
        self._reading = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            if self._reads.wait(0.02) and select.select([self.read_end], [], [], 0.02)[0]:
                with self._reading:
                    if not self._reads.is_set():
                        continue
                    data = os.read(self.read_end, 65536)
                if not data:
                    return
                self.data += data

    def flow(self) -> None:
        self._reads.set()

    def stop(self) -> None:
        """Read no more, and fill it up."""
        with self._reading:
            self._reads.clear()
        while select.select([], [self.write_end], [], 0)[1]:
            os.write(self.write_end, b"\n" * 512)

    def records(self, event: str | None = None) -> list[dict[str, str]]:
        found = [json.loads(line) for line in self.data.splitlines(keepends=True) if line.startswith(b"{")]
        return [one for one in found if event is None or one.get("REMO_EVENT") == event]

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        os.close(self.read_end)
        os.close(self.write_end)
