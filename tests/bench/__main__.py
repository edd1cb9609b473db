"""`./run bench`: speed and size against the limits of the machine and what people would use
instead."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import pytest

from tests.bench import clients, contest, inside, measure, original, programs, report

DESCRIPTION = f"""\
Measures in a booted systemd of its own (root needed), prints tables, and ends with status 1 if one of the limits N1 to N18,
H1, H2, C1, W1 and A4 is missed (N14 is the time of `./run test`). Contestants that are not installed are left out, and named.
Without PART, measures all of them: {", ".join(measure.PARTS)}.

environment:
  {contest.EXECUTABLE}   one more executable that speaks this protocol, measured beside the others. It is started as
                          `EXECUTABLE --socket-dir D --state-dir S`, opens D/admin.sock within 15 s, accepts `register` of a
                          project named bench and `push-creds` there, then answers `get` on D/bench.sock. It limits no
                          rate; one that fails is left out, and named. A script that adapts is fine.
  {original.RUST_BROKER}             the binary of the Rust original, version 0.1.0, measured beside this broker. N15, most of N16 and
                          of N17 compare with it, and are left out without it.
  {clients.FNOX}                    fnox's executable, timed beside remo-secret where {clients.FNOX_DIRECTORY} names a directory whose
                          fnox.toml has the secret {clients.SECRET}.

A file of the host that the machine does not have at the same path is copied into it.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        "./run bench", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the requests, 3 rounds")
    parser.add_argument("--rounds", type=int, help="how often each measurement is repeated (5)")
    parser.add_argument(
        "--realtime", action="store_true", help="put what is measured before all else: for a machine that is not idle"
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="measure only this")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--svg", type=pathlib.Path, metavar="FILE", help="charts")
    parser.add_argument(
        "--from-json", type=pathlib.Path, metavar="FILE", help="show an earlier result; measure nothing"
    )
    parser.add_argument(
        "--here", action="store_true", help="boot nothing; only the contestants, the broker as a plain process"
    )
    options = parser.parse_args()
    unknown = set(options.parts) - set(measure.PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)}; the parts are {', '.join(measure.PARTS)}")

    if options.from_json:
        found = json.loads(options.from_json.read_text())
    else:
        rounds = options.rounds or (3 if options.quick else 5)
        wanted = options.parts or measure.PARTS
        programs.build()  # here, as the machine sees this directory read-only
        if options.here:
            parts = frozenset({measure.CONTESTANTS})
            found = measure.measure(None, rounds, quick=options.quick, realtime=options.realtime, parts=parts)
        else:
            try:
                length = "quick" if options.quick else "full"
                priority = "realtime" if options.realtime else "shared"
                found = inside.measure(["unit", str(rounds), length, priority, *wanted])
            except pytest.skip.Exception as why:
                print(f"bench: {why}; --here measures without", file=sys.stderr)
                return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(report.chart(found))
    print(report.tables(found))
    missed = report.missed(found)
    if missed:
        print(f"\nbench: missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
