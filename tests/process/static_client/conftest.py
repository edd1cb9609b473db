"""The static program alone, with Python's beside it, and both forms run side by side: Python is the
reference."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.build.static_client import NoCompiler, build
from tests.support import programs
from tests.support.broker import short_directory
from tests.support.machine import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WAIT_SECONDS = 60


@pytest.fixture(scope="session")
def alone() -> Iterator[pathlib.Path]:
    """The static program, with no Python program beside it; any user may run it."""
    with short_directory() as directory:
        try:
            build(directory / "remo-secret")
        except NoCompiler as error:
            unavailable(f"{error}: ./run test installs one")
        yield directory / "remo-secret"


@pytest.fixture(scope="session")
def installed(alone: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The static program as `./run install` leaves it, with Python's beside it."""
    root = tmp_path_factory.mktemp("usr")
    (root / "bin").mkdir()
    (root / "lib/remo-broker").mkdir(parents=True)
    (root / "bin/remo-secret").write_bytes(alone.read_bytes())
    (root / "bin/remo-secret").chmod(0o755)
    python = root / "lib/remo-broker/remo-secret"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m remo_broker.secret "$@"\n')
    python.chmod(0o755)
    return root / "bin/remo-secret"


class Both:
    """Runs both forms, and asserts that they behave the same."""

    def __init__(self, static: pathlib.Path, directory: pathlib.Path) -> None:
        self.static = static
        self.directory = directory

    def argvs(self, *arguments: str | os.PathLike[str]) -> list[list[str]]:
        words = [os.fspath(one) for one in arguments]
        return [programs.command(programs.SECRET, *words), [str(self.static), *words]]

    def run(
        self,
        *arguments: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        uid: int | None = None,
        stdout: Callable[[], int] | None = None,
        through: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """The result, which must be the same for both. `stdout` is another standard output,
        `through` a wrapper."""
        found = []
        for argv in self.argvs(*arguments):
            out = subprocess.PIPE if stdout is None else stdout()
            found.append(
                subprocess.run(
                    [*through, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.PIPE,
                    env=programs.environment(env),
                    cwd=self.directory,
                    user=uid,
                    group=uid,
                    extra_groups=None if uid is None else [],
                    timeout=WAIT_SECONDS,
                    check=False,
                )
            )
            if stdout is not None:
                os.close(out)
        python, static = found
        outcomes = [(one.returncode, one.stdout, one.stderr) for one in (python, static)]
        assert outcomes[1] == outcomes[0]
        return python


@pytest.fixture
def both(alone: pathlib.Path, directory: pathlib.Path) -> Both:
    directory.chmod(0o755)
    return Both(alone, directory)
