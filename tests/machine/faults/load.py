"""Clients under load, run inside the machine: `python3 -IS load.py` with a job as JSON in argv, a
summary on stdout.

Each client is a process of its own, so that the journal tells them apart by `REMO_PEER_PID`. A
client asks for a name that only it asks for, and sometimes for one that was never requested
(denied), so that each record has one origin. What it was answered and what it was not (the
connection closed on it) is counted; the test compares that to the journal. The load ends when
standard input does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Gets on one connection before a new one: each fault must meet both connects and open connections.
GETS_PER_CONNECTION = 20
# No client waits longer for a reply; a longer wait is reported as an error.
ANSWER_SECONDS = 20.0


class LoadClient:
    """One client process. `answered` and `unanswered` count gets by the secret's name."""

    def __init__(self, job: dict[str, Any], number: int, stop: int) -> None:
        self.random = random.Random(f"{job['seed']}-{number}")
        self.path = job["paths"][number % len(job["paths"])]
        self.pause = job["pause_seconds"]
        self.name = f"S{number:02d}"
        self.number = number
        self.stop = stop
        self.asked = 0
        self.answered: dict[str, int] = {}
        self.unanswered: dict[str, int] = {}
        self.words: dict[str, int] = {}
        """Number of replies of each kind: `ok`, or the reason, or the code."""
        self.connects = 0
        self.refused: dict[str, int] = {}
        """Connects that failed, by the name of the error."""
        self.errors: list[str] = []
        """Anything that is neither a reply nor a closed connection."""
        self.slowest = 0.0
        """The longest wait for a reply, in seconds."""
        self.late = 0.0
        """The longest wait for the processor: how much longer a sleep took than requested."""

    def stopped(self) -> bool:
        return bool(select.select([self.stop], [], [], 0)[0])

    def run(self) -> dict[str, Any]:
        while not self.stopped():
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(ANSWER_SECONDS)
                self.connects += 1
                try:
                    connection.connect(self.path)
                except OSError as error:
                    name = type(error).__name__
                    self.refused[name] = self.refused.get(name, 0) + 1
                    time.sleep(0.002)
                    continue
                self.converse(connection)
        return {
            "pid": os.getpid(),
            "path": self.path,
            **{
                key: getattr(self, key)
                for key in ("answered", "unanswered", "words", "connects", "refused", "errors", "slowest", "late")
            },
        }

    def converse(self, connection: socket.socket) -> None:
        for _ in range(GETS_PER_CONNECTION):
            self.asked += 1
            # A name that was never requested and is in no manifest.
            name = f"D{self.number}_{os.getpid()}_{self.asked}" if self.random.random() < 0.2 else self.name
            began = time.monotonic()
            try:
                connection.sendall(b'{"op":"get","name":"%s"}\n' % name.encode())
                reply = connection.recv(65536)
            except TimeoutError:
                self.errors.append(f"no answer to {name}")
                return
            except OSError:
                reply = b""
            self.slowest = max(self.slowest, time.monotonic() - began)
            if not reply:
                self.unanswered[name] = self.unanswered.get(name, 0) + 1
                return
            self.answered[name] = self.answered.get(name, 0) + 1
            self.note(name, reply)
            if self.pause:
                pause = self.random.random() * 2 * self.pause
                began = time.monotonic()
                time.sleep(pause)
                self.late = max(self.late, time.monotonic() - began - pause)
            if self.stopped():
                return

    def note(self, name: str, reply: bytes) -> None:
        try:
            answer = json.loads(reply)
        except ValueError:
            self.errors.append(f"half an answer to {name}: {len(reply)} bytes")
            return
        word = "ok" if answer["ok"] else answer.get("reason", answer["code"])
        self.words[word] = self.words.get(word, 0) + 1
        if word == "ok" and answer["value"] != f"value of {name}":
            self.errors.append(f"{name} was answered with another's value")
        if word == "no_snapshot" and answer.get("retry_after_seconds") != 1:
            self.errors.append("no_snapshot without a hint when to retry")


def main() -> None:
    job = json.loads(sys.argv[1])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    stop, stopper = os.pipe()
    children: list[tuple[int, int]] = []
    for number in range(job["clients"]):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(stopper)
            client = LoadClient(job, number, stop)
            with contextlib.suppress(KeyboardInterrupt), open(write_end, "w") as out:
                json.dump(client.run(), out)
            os._exit(0)
        os.close(write_end)
        children.append((pid, read_end))
    print("running", flush=True)
    sys.stdin.read()
    os.close(stopper)
    summaries = []
    for pid, read_end in children:
        with open(read_end) as told:
            summaries.append(json.load(told))
        os.waitpid(pid, 0)
    print(json.dumps(summaries), flush=True)


if __name__ == "__main__":
    main()
