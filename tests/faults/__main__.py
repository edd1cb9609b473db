"""`python -m tests.faults [--long] [ARGUMENT...]`: these tests alone, with their figures. As root; arguments go to pytest.

The long form sends 200 kills instead of a few and repeats the other faults accordingly; it takes some ten minutes.
"""

from __future__ import annotations

import os
import pathlib
import sys


def main() -> None:
    arguments = sys.argv[1:]
    environment = dict(os.environ)
    if "--long" in arguments:
        arguments.remove("--long")
        environment["REMO_FAULTS_LONG"] = "1"
    here = str(pathlib.Path(__file__).parent)
    os.execve(sys.executable, [sys.executable, "-m", "pytest", "--durations=0", here, *arguments], environment)


if __name__ == "__main__":
    main()
