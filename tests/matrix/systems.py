"""Minimal systems of Debian releases, made once by debootstrap and kept in `.cache/roots`."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY, SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITES = ("bookworm", "trixie", "forky")
ROOTS = REPOSITORY / ".cache/roots"
# debootstrap has a script for each release that was there when it was made; they have been the same for years.
SCRIPTS = pathlib.Path("/usr/share/debootstrap/scripts")
NEWEST = SCRIPTS / "sid"


def say(text: str) -> None:
    print(f"matrix: {text}", file=sys.stderr, flush=True)


def root(suite: str) -> pathlib.Path:
    """A minimal system of a release, with what machines need to be tested on it."""
    root = ROOTS / suite
    if not root.exists():
        say(f"making {root} by debootstrap")
        ROOTS.mkdir(parents=True, exist_ok=True)
        new = ROOTS / f"{suite}.new"
        shutil.rmtree(new, ignore_errors=True)
        script = [] if (SCRIPTS / suite).exists() else ["", str(NEWEST)]
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", suite, str(new), *script]
        with (ROOTS / f"{suite}.log").open("wb") as log:
            subprocess.run(command, stdout=log, stderr=log, check=True)
        # The list of a release that is not out may be older than its own promise, where a mirror lags behind.
        (new / "etc/apt/apt.conf.d/90matrix").write_text('Acquire::Check-Valid-Until "no";\n')
        new.rename(root)
    return root


def machine_root(suite: str, base: pathlib.Path) -> pathlib.Path:
    """A second system, on which all is installed that takes a network.

    It is not changed once it is there: machines that others have booted may be using it.
    """
    root = ROOTS / f"{suite}.machine"
    if not root.exists():
        say(f"making {root}")
        new = ROOTS / f"{suite}.machine.new"
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(["cp", "-a", base, new], check=True)
        # Both buses: a test machine forgets that the package of the second makes it the system's.
        packages = "dbus dbus-broker"
        install = f"apt-get -qq update && apt-get -qq install -y --no-install-recommends {packages} >/dev/null"
        subprocess.run([*nspawn(new), "sh", "-c", f"{install} && exec {SOURCE}/run setup machine"], check=True)
        new.rename(root)
    return root


@contextlib.contextmanager
def copy(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A copy of a system that may be changed, and a directory for what is found out there."""
    with tempfile.TemporaryDirectory(dir=ROOTS, prefix=f"{root.name}.") as scratch:
        system, results = pathlib.Path(scratch, "root"), pathlib.Path(scratch, "results")
        subprocess.run(["cp", "-a", root, system], check=True)
        results.mkdir()
        results.chmod(0o777)
        yield system, results


def tree() -> bytes:
    """This tree as a tar archive, without what `./run` has made in it."""
    excluded = [f"--exclude=./{one}" for one in (".git", ".cache", ".venv", "out")]
    return subprocess.run(["tar", "-c", *excluded, "."], cwd=REPOSITORY, capture_output=True, check=True).stdout


def nspawn(root: pathlib.Path, *options: str) -> list[str]:
    """A command that runs another in a system that is not booted, with the host's network and
    this tree."""
    repository = str(REPOSITORY).replace("\\", "\\\\").replace(":", "\\:")
    return [
        *("systemd-nspawn", "--quiet", f"--directory={root}", "--as-pid2", "--pipe", "--register=no", "--keep-unit"),
        *(f"--bind-ro={repository}:{SOURCE}", "--setenv=DEBIAN_FRONTEND=noninteractive", *options),
    ]


def versions(root: pathlib.Path) -> tuple[str, str]:
    """Of systemd and Python, as the packages have them."""
    query = [
        "dpkg-query",
        f"--admindir={root}/var/lib/dpkg",
        "-W",
        "-f",
        "${Package} ${Version}\\n",
        "python3",
        "systemd",
    ]
    shown = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    versions = dict(line.split() for line in shown.splitlines())
    systemd, python = (versions[name].partition("-")[0].partition("~")[0] for name in ("systemd", "python3"))
    return systemd, python
