"""`./run fuzz [--seconds N] [--seed N] [FILE...]`: hostile input for the broker's sockets by
chance, until time is up.

Streams that are answered in a new way join the pool that the next ones are made of. One that the
broker gets wrong is written to a file, and `./run fuzz FILE` sends it again: FILE lies in a
directory that is named like the socket."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import random
import sys
import time

from tests.contract.fuzz.harness import Harness, Script, Wrong
from tests.contract.fuzz.mutation import make_script
from tests.contract.fuzz.streams import KINDS, streams
from tests.support.broker import short_directory

DEFAULT_SECONDS = 300
# So often the broker is looked at for growth.
STREAMS_BETWEEN_LOOKS = 500


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run fuzz", description="Hostile input for the broker's sockets.")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="how long (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="the same streams again")
    parser.add_argument(
        "files", nargs="*", type=pathlib.Path, help="send these instead, each in a directory " + "|".join(KINDS)
    )
    options = parser.parse_args()
    with short_directory() as directory, contextlib.closing(Harness(directory)) as harness:
        harness.broker.faults_expected = True  # told as what they are, below
        harness.start()
        if options.files:
            return replay(harness, options.files)
        seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000_000
        print(f"seed {seed}")
        return fuzz(harness, random.Random(seed), options.seconds)


def replay(harness: Harness, files: list[pathlib.Path]) -> int:
    for file in files:
        kind = file.absolute().parent.name
        if kind not in KINDS:
            print(f"{file}: its directory is to be one of {', '.join(KINDS)}", file=sys.stderr)
            return 2
        harness.run(Script(kind, file.read_bytes()))
        harness.check_growth()
    print(f"{len(files)} streams, nothing wrong")
    return 0


def fuzz(harness: Harness, random_: random.Random, seconds: float) -> int:
    pools = {kind: list(streams(kind).values()) for kind in KINDS}
    for kind, pool in pools.items():
        for data in pool:
            try:
                harness.run(Script(kind, data))
            except Wrong as error:
                return tell(Script(kind, data), error)
    harness.remember()
    started, told, sent = time.monotonic(), 0.0, 0
    while (gone := time.monotonic() - started) < seconds:
        script = make_script(random_, pools)
        try:
            new = harness.run(script)
            if sent % STREAMS_BETWEEN_LOOKS == 0:
                harness.check_growth()
        except (Wrong, OSError) as error:
            return tell(script, error)
        sent += 1
        if new and len(script.data) <= 4096:
            pools[script.kind].append(script.data)
        if gone - told > 1 or not told:
            told = gone
            show(f"{gone:.0f} s of {seconds:.0f}: {sent} streams, {len(harness.signatures)} kinds of answers")
    try:
        harness.check_growth()
    except Wrong as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    growth = harness.broker.resident_kib() - harness.resident_kib
    show(
        f"{sent} streams in {seconds:.0f} s, {len(harness.signatures)} kinds of answers, {growth} KiB of growth; nothing wrong\n"
    )
    return 0


def show(text: str) -> None:
    print(f"\r{text:<78}" if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True)


def tell(script: Script, error: Exception) -> int:
    file = pathlib.Path(".cache/fuzz", script.kind, f"{hash(script.data) & 0xFFFFFFFF:08x}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(script.data)
    print(f"\n{error}", file=sys.stderr)
    print(f"cuts {sorted(script.cuts)}, ending {script.ending}; once more: ./run fuzz {file}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
