"""What people wait for when a tool asks a helper, and when a program's secret is rotated."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING

from tests.bench.broker import push_request
from tests.bench.figures import Figure, milliseconds
from tests.bench.generator import FetchCommand
from tests.bench.interpreter import against_interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.broker import Unit
    from tests.bench.setting import Setting

PROJECT = "tools"
DIRECTORY = pathlib.Path("/srv/remo-bench/tools")
MANIFEST = f"""schema_version = 1
project = "{PROJECT}"
[secrets.TOKEN]
[secrets.aws]
[hosts]
"registry.example.org" = "TOKEN"
"""
AWS = '{"aws_access_key_id":"A","aws_secret_access_key":"B"}'
# Each helper: its arguments, and what the tool writes to it.
HELPERS = {
    "git-credential": (("git-credential", "get"), b"protocol=https\nhost=registry.example.org\n\n"),
    "docker-credential": (("docker-credential", "get"), b"registry.example.org"),
    "keyring": (("keyring", "get", "https://registry.example.org/simple/", "me"), b""),
    "aws-credentials": (("aws-credentials", "aws"), b""),
    "kubernetes": (("kubernetes", "TOKEN"), b""),
}
STARTS = 50
START_LIMIT = 2.2
CHANGES = 50
CHANGE_LIMIT_SECONDS = 1.0
# Longer than any change may take.
SECONDS = 30.0
# A program that says which secret it was started with.
PROGRAM = 'echo "$TOKEN" >seen.new && mv seen.new seen; exec sleep 1000'


@contextlib.contextmanager
def project(unit: Unit) -> Iterator[str]:
    """A project with a secret for each helper; its socket."""
    unit.settle()
    (DIRECTORY / ".remo").mkdir(parents=True, exist_ok=True)
    (DIRECTORY / ".remo/manifest.toml").write_text(MANIFEST)
    subprocess.run(["remo-brokerctl", "register", str(DIRECTORY)], check=True, stdout=subprocess.DEVNULL)
    push(unit, "bench-token")
    try:
        yield unit.project_socket(PROJECT)
    finally:
        subprocess.run(["remo-brokerctl", "unregister", PROJECT], check=True, stdout=subprocess.DEVNULL)


def push(unit: Unit, token: str) -> None:
    unit.ask(push_request({"TOKEN": token, "aws": AWS}))


def starts(setting: Setting, unit: Unit) -> dict[str, tuple[Figure, str]]:
    """Each helper as installed, against a bare interpreter."""
    with project(unit) as socket:
        commands = {
            name: FetchCommand(("/usr/bin/remo-secret", "--socket", socket, *words), stdin)
            for name, (words, stdin) in HELPERS.items()
        }
        return {name: against_interpreter(setting, command, STARTS) for name, command in commands.items()}


def rotation(setting: Setting, unit: Unit) -> tuple[Figure, str]:
    """Nanoseconds from a push to the program that was started with the new secret."""
    times = []
    seen = DIRECTORY / "seen"
    with project(unit) as socket:
        argv = [
            "/usr/bin/remo-secret",
            "--socket",
            socket,
            "exec",
            "--watch",
            "--only=TOKEN",
            "--",
            "sh",
            "-c",
            PROGRAM,
        ]
        with subprocess.Popen(argv, cwd=DIRECTORY) as process:
            try:
                _until(seen, "bench-token")
                for number in range(setting.many(CHANGES)):
                    began = time.monotonic_ns()
                    push(unit, f"token-{number}")
                    _until(seen, f"token-{number}")
                    times.append(float(time.monotonic_ns() - began))
            finally:
                process.terminate()
    return Figure.of(times), f"{len(times)} changes, the longest {milliseconds(max(times))}"


def _until(file: pathlib.Path, text: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not file.exists() or file.read_text() != f"{text}\n":
        if time.monotonic() > deadline:
            raise TimeoutError("the program was not started again")
        time.sleep(0.002)
