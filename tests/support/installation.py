"""The project installed on a test machine, by `./run install` and from packages that were fetched before: it has no network."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import tomllib
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY, SOURCE, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Bus

WHEELS = REPOSITORY / ".cache/wheels"

# Generous: an installation takes ten seconds on an idle machine of two cores.
INSTALL_SECONDS = 180


def pip_environment() -> dict[str, str]:
    """What makes pip in the machine, which has no network, take packages that lie ready."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{SOURCE}/{_wheels().relative_to(REPOSITORY)}"}


def install(machine: Machine) -> None:
    """`./run install` in the machine."""
    machine.run([f"{SOURCE}/run", "install"], env=pip_environment(), timeout=INSTALL_SECONDS)


@contextlib.contextmanager
def installed(bus: Bus = "dbus-daemon") -> Iterator[Machine]:
    """A machine with this project on it and nothing enabled yet; stopped at the end."""
    Machine.require()
    machine = Machine(bus)
    try:
        machine.start()
        install(machine)
        yield machine
    finally:
        machine.stop()


def _wheels() -> pathlib.Path:
    """What pip needs to install this project, built once for each pyproject.toml."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    directory = WHEELS / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not directory.exists():
        project = tomllib.loads(text)
        wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
        WHEELS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WHEELS) as scratch:
            new = pathlib.Path(scratch, "new")
            subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--use-pep517", "-w", new, *wanted], check=True)
            try:
                new.rename(directory)
            except OSError:  # another test process was first
                if not directory.exists():
                    raise
    return directory


if __name__ == "__main__":
    _wheels()
