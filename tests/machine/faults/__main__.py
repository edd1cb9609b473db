"""`./run faults [ARGUMENT...]`: these tests alone, in their long form, with their figures. As root;
arguments go to pytest.

It sends 200 kills where `./run test` sends a few, and repeats the other faults accordingly; it
takes some ten minutes."""

from __future__ import annotations

import os
import pathlib
import sys


def main() -> None:
    here = str(pathlib.Path(__file__).parent)
    # A test that takes minutes is not hanging.
    options = ["--durations=0", "--override-ini=faulthandler_timeout=0"]
    arguments = ["-m", "pytest", *options, here, *sys.argv[1:]]
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, "REMO_FAULTS_LONG": "1"})


if __name__ == "__main__":
    main()
