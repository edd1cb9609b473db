"""Install the project on a test machine, which has no network: `./run install` with pre-fetched
packages.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY, ROOT, SOURCE, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.machine import Bus

WHEELS = REPOSITORY / ".cache/wheels"
# Unpacked by ./run; .venv has none.
PIP = REPOSITORY / ".cache/pip/pip"

_OF_NPM = ("NODE_EXTRA_CA_CERTS", "npm_config_registry")

# Generous: an installation takes ten seconds on an idle machine with two cores.
INSTALL_SECONDS = 600

# Names a directory of this run of tests, which its workers share. The first machine of the run is
# installed, and the others get what that installation changed.
SHARED = "REMO_TESTS_SHARED"
_MARK, _PACKED = "/run/before-installation", "/run/installation.tar"
# argv: what was written to the machine's disk, a file that is older than the installation, and where
# to pack it. A device stands for a file that was removed.
_PACK = """
cd "$1"
find usr etc var/lib/systemd/catalog -cnewer "$2" ! -type d ! -type c -print0 | tar -c --null --no-recursion -T - -f "$3"
"""
# Users are made again, because tests have added some to these files.
_RESTORE = f"""
tar -x -C / --exclude=etc/passwd* --exclude=etc/group* --exclude=etc/shadow* --exclude=etc/gshadow* -f {_PACKED}
rm {_PACKED}
systemd-sysusers && systemd-tmpfiles --create remo-broker.conf && systemctl daemon-reload && systemctl reload dbus.service
"""


def pip_environment() -> dict[str, str]:
    """The environment in which pip in the machine finds its pre-fetched packages."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{SOURCE}/{_wheels().relative_to(REPOSITORY)}"}


def install(machine: Machine) -> None:
    """`./run install` in the machine."""
    machine.run([f"{SOURCE}/run", "install"], env=pip_environment(), timeout=INSTALL_SECONDS)


@contextlib.contextmanager
def installed(bus: Bus = "dbus-daemon") -> Iterator[Machine]:
    """A machine with this project installed and nothing enabled yet; stopped at the end."""
    Machine.require()
    with contextlib.ExitStack() as stack:
        packed = _packed()
        if packed is None:
            machine = stack.enter_context(_booted(Machine(bus)))
            install(machine)
        else:
            with open(f"{packed}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                first = not packed.exists()
                if first:
                    machine = stack.enter_context(_booted(Machine(bus)))
                    _install_and_pack(machine, packed)
            if not first:
                machine = stack.enter_context(_booted(Machine(bus, packed)))
        yield machine


def restore(machine: Machine) -> None:
    """Put back what `installed` had installed, after a test that removed it."""
    packed = _packed()
    if packed is None or not packed.exists():
        install(machine)
        return
    shutil.copyfile(packed, machine.path(_PACKED))
    machine.run(["sh", "-ec", _RESTORE])


def _packed() -> pathlib.Path | None:
    """Where the run's installation is, or will be once the first machine has it."""
    shared = os.environ.get(SHARED)
    return None if shared is None else pathlib.Path(shared, "installation.tar")


def _install_and_pack(machine: Machine, packed: pathlib.Path) -> None:
    machine.run(["touch", _MARK])
    install(machine)
    pack = ["sh", "-ec", _PACK, "sh", str(machine.written), str(machine.path(_MARK)), f"{packed}.new"]
    subprocess.run(pack, check=True)
    os.rename(f"{packed}.new", packed)


@contextlib.contextmanager
def _booted(machine: Machine) -> Iterator[Machine]:
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()


def _wheels() -> pathlib.Path:
    """The packages that pip in the machine needs, fetched once per pyproject.toml and Python
    version.
    """
    text = (REPOSITORY / "pyproject.toml").read_text()
    python = os.readlink(ROOT / "usr/bin/python3").rpartition("/")[2]
    directory = WHEELS / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{python}"
    if not directory.exists():
        project = tomllib.loads(text)
        wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
        WHEELS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WHEELS) as scratch:
            new = pathlib.Path(scratch, "new")
            new.mkdir()
            on_host = ROOT.samefile("/")
            command = [sys.executable, str(PIP), "wheel"] if on_host else _pip_wheel_in(ROOT, new)
            subprocess.run([*command, "-q", "--use-pep517", "-w", new, *wanted], check=True)
            try:
                new.rename(directory)
            except OSError:  # another test process was first
                if not directory.exists():
                    raise
    return directory


def _pip_wheel_in(root: pathlib.Path, directory: pathlib.Path) -> list[str]:
    """`pip wheel` with another system's Python and the host's network."""
    return [
        *("systemd-nspawn", "--quiet", f"--directory={root}", "--volatile=overlay", "--as-pid2", "--pipe"),
        *("--register=no", "--keep-unit", f"--bind={directory}", *pip_options()),
        *("sh", "-c", 'python3 -m venv /tmp/venv && exec /tmp/venv/bin/python -m pip wheel "$@"', "sh"),
    ]


def pip_options() -> list[str]:
    """Options of systemd-nspawn that let pip and npm in the container find packages as on the host:
    see `./run`.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name in _OF_NPM}
    places: set[str] = set()
    for part in {part for value in settings.values() for part in value.split()} - {os.devnull}:
        # The links of an index may lead to a directory beside it.
        place = os.path.dirname(part.removeprefix("file://").rstrip("/")) if part.startswith("file://") else part
        if place.startswith("/") and place != "/" and pathlib.Path(place).exists():
            places.add(place)
    return [
        *(f"--bind-ro={one}" for one in sorted(places)),
        *(f"--setenv={name}={one}" for name, one in settings.items()),
    ]


if __name__ == "__main__":
    _wheels()
