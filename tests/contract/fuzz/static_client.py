"""`python -m tests.contract.fuzz.static_client [SECONDS]`: fuzz the static client with clang's
sanitizers.

It starts from the replies of the table of cases, and from what earlier runs have found:
corpus/static_client. An input that breaks the client is left in the working directory."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.process.static_client.aws_cases import AWS
from tests.process.static_client.cases import REPLIES_OF_ALL_KINDS, Case
from tests.process.static_client.command_cases import COMMANDS_OF_ALL_KINDS
from tests.support.scripted_peer import Slowly

HERE = pathlib.Path(__file__).parent
SOURCE = HERE / "static_client.c"
DICTIONARY = HERE / "static_client.dict"
CORPUS = HERE / "corpus/static_client"

DEFAULT_SECONDS = 300
SANITIZERS = "-fsanitize=fuzzer,address,undefined"
FLAGS = ("-g", "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", SANITIZERS, "-fno-sanitize-recover=all")
# A reply of the greatest length and one behind it.
LONGEST_INPUT = 140_000
# The larger ones are variations in length alone.
LONGEST_SEED = 4000
# The rows of command lines in static_client.c, by the command of a case; each has eight ways of
# cutting the replies.
ROWS = {"get": 0, "field": 1, "list": 2, "wait": 3, "git-credential": 4, "aws-credentials": 7}
WAYS = 8


def build(target: pathlib.Path) -> None:
    """Compile the fuzzer. Raises FileNotFoundError without clang, CalledProcessError where
    compiling fails."""
    subprocess.run(["clang", *FLAGS, "-o", target, SOURCE], check=True)


def seeds(directory: pathlib.Path) -> None:
    """Write what the table of cases has as inputs."""
    for case in [*REPLIES_OF_ALL_KINDS, *COMMANDS_OF_ALL_KINDS, *AWS]:
        data = _input(case)
        if len(data) <= LONGEST_SEED:
            (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _input(case: Case) -> bytes:
    command = next((word for word in case.arguments if word in ROWS), "get")
    if "--field" in case.arguments:
        command = "field"
    said = b""
    for step in (step for script in case.scripts for step in script):
        said += step if isinstance(step, bytes) else step.data if isinstance(step, Slowly) else b""
    return bytes([ROWS[command] * WAYS]) + (case.stdin if command == "git-credential" else b"") + said


def fuzz(seconds: int, work: pathlib.Path) -> int:
    """The fuzzer's status: 0 where nothing was found. Without time, every known input is run
    once."""
    fuzzer, pool = work / "fuzzer", work / "pool"
    build(fuzzer)
    pool.mkdir()
    seeds(pool)
    for file in CORPUS.iterdir():
        shutil.copy(file, pool)
    limits = [f"-max_total_time={seconds}"] if seconds else ["-runs=0"]
    options = [f"-max_len={LONGEST_INPUT}", f"-dict={DICTIONARY}", f"-artifact_prefix={os.getcwd()}/static-client-"]
    return subprocess.run([fuzzer, *limits, *options, "-print_final_stats=1", pool], check=False).returncode


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="remo-fuzz-") as directory:
        return fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS, pathlib.Path(directory))


if __name__ == "__main__":
    sys.exit(main())
