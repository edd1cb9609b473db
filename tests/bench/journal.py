"""journald: what it takes in from a C sender, and how many entries it really kept."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench.generator import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contestant import Place

UNIT = "systemd-journald.service"
SOCKET = "/run/systemd/journal/socket"
FILES = pathlib.Path("/var/log/journal")
# This event tells the C sender's records from the broker's; it is as long as `fetch`.
BLAST_EVENT = "blast"

_runs = itertools.count(int(time.time()) % 1_000_000)


@dataclasses.dataclass(frozen=True)
class Blast:
    """What one run of the C sender found."""

    records: int
    kept: int
    per_second: float


@contextlib.contextmanager
def held(place: Place, cpu: int | None) -> Iterator[None]:
    """Keep journald on a processor meanwhile (None: where it was), with the priority of all
    that is measured."""
    shown = subprocess.run(["systemctl", "show", UNIT, "-pMainPID", "--value"], capture_output=True, check=True)
    with place.holding(int(shown.stdout), cpu):
        yield


def count(*matches: str) -> int:
    """How many entries of this boot match, once everything that journald has received is in its
    files."""
    subprocess.run(["journalctl", "--sync"], check=True)
    command = ["journalctl", "--boot", "--quiet", "--no-pager", "--output=cat", "--output-fields=PRIORITY", *matches]
    lines = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(65536):
            lines += chunk.count(b"\n")
    return lines


def rotations(files: pathlib.Path = FILES) -> int:
    """How often journald has taken a new file. Each time it may have written the entry that did not fit to both files: it links
    what it can of it in the old one before it gives up, and `count` counts both."""
    return len(list(files.glob("*/system@*.journal")))


def newest_fetch() -> dict[str, str]:
    """The fields that the broker gave the record of its last fetch."""
    subprocess.run(["journalctl", "--sync"], check=True)
    command = ["journalctl", "--boot", "--quiet", "--no-pager", "--lines=1", "--output=json", "REMO_EVENT=fetch"]
    entry = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {name: value for name, value in entry.items() if not name.startswith("_")}


def record(place: Place, like: dict[str, str]) -> pathlib.Path:
    """A file with a record in journald's native format that has the fields of `like`, told from
    it by its event."""
    path = place.work / "record"
    path.write_text("".join(f"{name}={value}\n" for name, value in {**like, "REMO_EVENT": BLAST_EVENT}.items()))
    return path


def blast(place: Place, like: dict[str, str], records: int, batch: int = 1) -> Blast:
    """Send `records` with the fields of `like`, `batch` in a datagram, and count what was kept."""
    run = str(next(_runs))
    fields = {**like, "REMO_GENERATION": run}
    for name in ("REMO_LATENCY_USEC", "REMO_SERIAL"):  # the sender adds them, with numbers that change
        fields.pop(name, None)
    argv = place.preferred([str(place.programs.blast), SOCKET, str(record(place, fields)), str(records), str(batch)])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"blast: {done.stderr.strip()}")
    kept = count(f"REMO_EVENT={BLAST_EVENT}", f"REMO_GENERATION={run}")
    return Blast(records, kept, json.loads(done.stdout)["per_second"])
