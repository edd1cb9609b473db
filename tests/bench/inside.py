"""Run the measurements in a booted systemd with this project installed: see
tests.support.machine."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

from tests.bench import clients, contest, original
from tests.bench.setting import say
from tests.support import machine
from tests.support.installation import installed

if TYPE_CHECKING:
    from collections.abc import Iterable

# The C sender is a unit's process as the broker is, and journald shall thin its records no more than the broker's.
_UNIT = ("LogRateLimitIntervalSec=1s", "LogRateLimitBurst=1000000", f"WorkingDirectory={machine.SOURCE}")
# Variables with the path of a program, or of its files.
_PATHS = (contest.EXECUTABLE, original.RUST_BROKER, clients.FNOX, clients.FNOX_DIRECTORY)


def module(booted: machine.Machine, name: str, arguments: Iterable[str]) -> dict[str, Any]:
    """Run a module of this repository in the machine, its progress shown; the JSON object that
    it prints."""
    argv = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *(f"--property={line}" for line in _UNIT)]
    argv += [f"--setenv={name}={_brought_in(booted, os.environ[name])}" for name in _PATHS if os.environ.get(name)]
    process = booted.popen([*argv, "/usr/bin/python3", "-m", name, *arguments])
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.close()
    progress = threading.Thread(target=_relay, args=(process.stderr,))
    progress.start()
    output = process.stdout.read()
    progress.join()
    if process.wait() != 0:
        raise RuntimeError(f"{name} ended with status {process.returncode}; what it said is above")
    found: dict[str, Any] = json.loads(output)
    return found


def _brought_in(booted: machine.Machine, path: str) -> str:
    """Where the machine finds a file or a directory of the host: it has a /tmp and a /run of
    its own."""
    if booted.path(path).exists():
        return path
    brought = f"/opt/remo-bench/{pathlib.Path(path).name}"
    booted.path("/opt/remo-bench").mkdir(parents=True, exist_ok=True)
    copy = shutil.copytree if pathlib.Path(path).is_dir() else shutil.copy
    copy(path, booted.path(brought))
    return brought


def measure(arguments: Iterable[str]) -> dict[str, Any]:
    say("booting a systemd and installing")
    with installed() as booted:
        return module(booted, "tests.bench.measure", arguments)


def _relay(stream: IO[str]) -> None:
    """Character by character, as a progress bar ends no line."""
    while character := stream.read(1):
        sys.stderr.write(character)
        sys.stderr.flush()
