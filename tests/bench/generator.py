"""The load generator (load.c): what to send to whom, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contestant import Place

# No run takes so long; a server that does not answer ends the benchmark instead of hanging it.
RUN_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one run of the generator measured. Durations are nanoseconds."""

    seconds: float
    per_second: float
    errors: int
    refused: int
    reply_bytes: int
    min_ns: int
    median_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    count: int


@dataclasses.dataclass(frozen=True)
class Target:
    """A server on a Unix stream socket and one request to it: see load.c for the rules of
    replies."""

    socket: str
    request: bytes
    reply: str = "line"
    expect: str = ""
    fresh: bool = False
    greeting: bool = False


@dataclasses.dataclass(frozen=True)
class FetchCommand:
    """A program that is run once per fetch, and what it reads on standard input."""

    argv: tuple[str, ...]
    stdin: bytes = b""


@dataclasses.dataclass(frozen=True)
class OwnClient:
    """A program that makes the fetches itself: given their number as last argument, prints what
    load.c prints."""

    argv: tuple[str, ...]


class Failed(Exception):
    """A run did not measure what it should have: wrong replies, or the generator gave up."""


class Generator:
    """Runs load.c, on processor `cpu` or wherever the scheduler wants (None)."""

    def __init__(self, place: Place) -> None:
        self._load = place.preferred([str(place.programs.load)])
        self._place = place

    def latency(self, target: Target, requests: int, *, cpu: int | None = None, warmup: int = 0) -> Sample:
        """One connection, one request after another."""
        return self._socket("latency", target, cpu, "--requests", requests, "--warmup", warmup)

    def throughput(
        self, target: Target, requests: int, connections: int, *, cpu: int | None = None, seconds: float = 0
    ) -> Sample:
        """`connections` connections, on each one request after another; `requests` in all, or
        as many as fit into `seconds`."""
        many = ("--requests", requests, "--seconds", seconds, "--connections", connections)
        return self._socket("throughput", target, cpu, *many)

    def open_loop(self, target: Target, rate: int, seconds: float, *, cpu: int | None = None) -> Sample:
        """`rate` new connections a second, one request on each, whatever is answered. What was not answered as expected
        counts as refused."""
        return self._socket("open", target, cpu, "--rate", rate, "--requests", int(rate * seconds))

    def spawn(self, command: FetchCommand, times: int, *, cpu: int | None = None) -> Sample:
        """Start to end of a program, its output thrown away. A status that is not 0 counts as
        an error."""
        with self._file(command.stdin) as stdin:
            pin = [] if cpu is None else ["--cpu", str(cpu)]
            return _run(
                [
                    str(self._place.programs.load),
                    "spawn",
                    "--request",
                    stdin,
                    "--requests",
                    str(times),
                    *pin,
                    "--",
                    *command.argv,
                ]
            )

    def own_client(self, client: OwnClient, requests: int) -> Sample:
        return _run([*client.argv, str(requests)])

    @contextlib.contextmanager
    def bystander(self, target: Target, pace_usec: int, seconds: float) -> Iterator[list[Sample]]:
        """A client that sends requests regularly while something else happens; its sample is in
        the list at the end."""
        samples: list[Sample] = []
        with self._options(target) as options:
            argv = [*self._load, "latency", *options, "--requests", "1000000"]
            argv += ["--pace", str(pace_usec), "--seconds", str(seconds)]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                yield samples
                output, errors = process.communicate(timeout=RUN_SECONDS)
            finally:
                process.kill()
                process.wait()
        samples.append(_sample(argv, process.returncode, output, errors))

    def _socket(self, mode: str, target: Target, cpu: int | None, *more: object) -> Sample:
        with self._options(target) as options:
            pin = [] if cpu is None else ["--cpu", str(cpu)]
            return _run([*self._load, mode, *options, *pin, *map(str, more)])

    @contextlib.contextmanager
    def _options(self, target: Target) -> Iterator[list[str]]:
        with self._file(target.request) as request:
            options = ["--socket", target.socket, "--request", request, "--reply", target.reply]
            options += ["--expect", target.expect] if target.expect else []
            options += ["--fresh"] if target.fresh else []
            options += ["--greeting"] if target.greeting else []
            yield options

    @contextlib.contextmanager
    def _file(self, data: bytes) -> Iterator[str]:
        with tempfile.NamedTemporaryFile(dir=self._place.work) as file:
            file.write(data)
            file.flush()
            yield file.name


def _run(argv: list[str]) -> Sample:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    return _sample(argv, done.returncode, done.stdout, done.stderr)


def _sample(argv: list[str], status: int, output: str, errors: str) -> Sample:
    if status != 0:
        raise Failed(f"{' '.join(argv[:4])}: {errors.strip() or f'status {status}'}")
    sample = Sample(**json.loads(output))
    if sample.errors:
        raise Failed(f"{sample.errors} of {sample.count} answers were not what was expected: {errors.strip()}")
    return sample
