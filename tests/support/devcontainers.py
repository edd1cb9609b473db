"""The reference tool of dev containers, from npm, kept in .cache."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    import pathlib

DEVCONTAINERS = REPOSITORY / ".cache/devcontainers"
PACKAGE = "@devcontainers/cli@0.89"


def install_devcontainer() -> pathlib.Path:
    """The program; installed by the first test process that needs it."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed here: ./run test installs it")
    program = DEVCONTAINERS / "node_modules/.bin/devcontainer"
    DEVCONTAINERS.mkdir(parents=True, exist_ok=True)
    with open(DEVCONTAINERS.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            argv = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(DEVCONTAINERS), PACKAGE]
            if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
                unavailable(f"npm cannot install {PACKAGE} here")
    return program
