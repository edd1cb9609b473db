"""The runs that make up a matrix, each of which gives a row of its table."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from typing import IO, TYPE_CHECKING

from tests.matrix import systems
from tests.support.installation import pip_options
from tests.support.machine import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

WITHOUT_MACHINE = ("tests/unit", "tests/contract", "tests/process")
NOBODY = 65534
WORKERS = ("-n", "3", "--dist", "loadfile")
# Where releases of systemd have differed most: how it starts the broker, what it keeps for it, and what journald stores.
BRIEF = tuple(f"tests/machine/test_{one}.py" for one in ("activation", "audit", "units"))


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """How a newcomer's system differs from one that helps, and which tests show what comes of
    it."""

    key: str
    """As `--only newcomer/KEY` has it."""
    name: str
    nspawn: tuple[str, ...] = ()
    user: str = "root"
    tests: tuple[str, ...] = ()
    """If empty, all, as `./run test` runs them."""


# In all of them /tmp is a tmpfs, and the environment and pip.conf send packages elsewhere.
SURROUNDINGS = (
    # As in most containers, there is no memfd_secret(2); and no other user can reach what is below /root.
    Surroundings("root", "root in a home of mode 0700"),
    Surroundings(
        "memfd",
        "the same, memfd_secret(2) let through",
        ("--system-call-filter=@memlock memfd_secret", "--capability=CAP_IPC_LOCK"),
    ),
    Surroundings(
        "container",
        "root without capabilities, as in most containers",
        ("--drop-capability=CAP_SYS_ADMIN,CAP_SYS_PTRACE,CAP_MKNOD",),
        tests=(
            "tests/unit/broker",
            "tests/unit/manifest",
            *(f"tests/process/{one}" for one in ("bus", "client", "memory", "secret", "sidecar", "sockets")),
        ),
    ),
    Surroundings("user", "an ordinary user without sudo", user="newcomer"),
)
# Blanks, and letters that are not ASCII.
DIRECTORY = "der Code für remo-broker"
_HOSTILE_PIP = (
    "--setenv=PIP_USER=1",
    "--setenv=PIP_TARGET=/nonexistent/target",
    "--setenv=PIP_PREFIX=/nonexistent/prefix",
)

# argv: the tree's directory, the user, for whom root installs packages. Standard input is the tree.
_SETTLE = r"""
set -e
[ "$2" = root ] || id "$2" >/dev/null 2>&1 || useradd --create-home "$2"
home=$(getent passwd "$2" | cut -d : -f 6)
chmod 0700 "$home"
mkdir -p "$home/.config/pip" "$home/$1"
printf '[install]\nuser = true\n' >"$home/.config/pip/pip.conf"
tar -x -C "$home/$1"
[ "$2" = root ] || "$home/$1/run" setup
chown -R "$2:" "$home"
"""
# argv: the interpreter. Standard input is the tree. `./run` itself uses the system's own interpreter.
_SETTLE_UNDER = r"""
set -e
apt-get -qq update
apt-get -qq install -y --no-install-recommends "$1-venv" "$1-dev" >/dev/null
mkdir /var/tmp/remo-broker
cd /var/tmp/remo-broker
tar -x
"$1" -m venv /opt/venv
/opt/venv/bin/pip install -q --use-pep517 -e '.[dev]'
"""
# argv: arguments of pytest.
_UNDER = r"""
cd /var/tmp/remo-broker
exec /opt/venv/bin/python -m pytest "$@"
"""
# argv: the tree's directory, arguments of pytest, if not all tests are to run.
_TRY = r"""
set -e
cd "$HOME/$1"
shift
./run demo >/dev/null
exec ./run test "$@"
"""


@dataclasses.dataclass
class Row:
    """What came of one run of tests."""

    suite: str
    systemd: str
    python: str
    tests: str
    passed: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0

    def cells(self) -> list[str]:
        numbers = (self.passed, self.skipped, self.failed)
        return [self.suite, self.systemd, self.python, self.tests, *map(str, numbers), f"{self.seconds / 60:.1f} min"]


# Where a run's output goes; None is the terminal.
Output = IO[bytes] | None
# Runs in this tree share its .cache, so there is one at a time.
IN_THIS_TREE = threading.Lock()

HEAD = ["SUITE", "SYSTEMD", "PYTHON", "TESTS", "PASSED", "SKIPPED", "FAILED", "TIME"]


# --- the runs


def newcomer(suite: str, root: pathlib.Path, machine_root: pathlib.Path, around: Surroundings, output: Output) -> Row:
    """`./run demo` and the tests in a minimal system, in surroundings that do not help."""
    with systems.copy(root) as (system, results):
        settle = ["sh", "-c", _SETTLE, "sh", DIRECTORY, around.user]
        subprocess.run(
            [*systems.nspawn(system), *settle], input=systems.tree(), stdout=output, stderr=output, check=True
        )
        options = (
            f"--bind={results}:/results",
            "--setenv=PYTEST_ADDOPTS=--junitxml=/results/tests.xml",
            f"--user={around.user}",
            *pip_options(),
            *_HOSTILE_PIP,
            *around.nspawn,
        )
        attempt = ["sh", "-c", _TRY, "sh", DIRECTORY, *((*WORKERS, *around.tests) if around.tests else ())]
        row = Row(suite, *systems.versions(machine_root), tests=around.name)
        return _run(row, [*systems.nspawn(system, *options), *attempt], [results / "tests.xml"], output)


def machine(suite: str, machine_root: pathlib.Path, output: Output) -> Row:
    """tests/machine, which boot the system; those that measure how long others wait run alone."""
    with tempfile.TemporaryDirectory() as results:
        reports = [pathlib.Path(results, "tests.xml"), pathlib.Path(results, "faults.xml")]
        pytest = f"{shlex.quote(sys.executable)} -m pytest"
        faults = "tests/machine/faults"
        script = (
            f"{pytest} {' '.join(WORKERS)} --junitxml={reports[0]} --ignore={faults} tests/machine; status=$?; "
            f"{pytest} --junitxml={reports[1]} {faults} || status=$?; exit $status"
        )
        row = Row(suite, *systems.versions(machine_root), tests="tests/machine")
        with IN_THIS_TREE:
            return _run(row, ["sh", "-c", script], reports, output, REMO_MACHINE_ROOT=str(machine_root))


def brief(suite: str, machine_root: pathlib.Path, output: Output) -> Row:
    """A few of tests/machine, for continuous integration."""
    with tempfile.TemporaryDirectory() as results:
        report = pathlib.Path(results, "tests.xml")
        row = Row(suite, *systems.versions(machine_root), tests="activation, audit, units")
        command = [sys.executable, "-m", "pytest", *WORKERS, f"--junitxml={report}", *BRIEF]
        with IN_THIS_TREE:
            return _run(row, command, [report], output, REMO_MACHINE_ROOT=str(machine_root))


def interpreter(name: str, output: Output) -> Row:
    """What boots no machine, under the host's interpreter of that name, or that of the first
    release that has one."""
    if shutil.which(name) is None:
        return _packaged_interpreter(name, output)
    prefix = subprocess.run(
        [name, "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        subprocess.run([f"{prefix}/bin/{name}", "-c", ""], check=True, user=NOBODY, group=NOBODY, extra_groups=[])
    except PermissionError:
        raise SystemExit(
            f"matrix: tests run {name} as other users, who cannot reach {prefix}: install it below /opt"
        ) from None
    environment = REPOSITORY / ".cache/venv" / name
    if not environment.exists():
        subprocess.run([name, "-m", "venv", environment], check=True)
    inside = str(environment / "bin/python")
    subprocess.run([inside, "-m", "pip", "install", "-q", "--use-pep517", "-e", ".[dev]"], cwd=REPOSITORY, check=True)
    version = subprocess.run([name, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    with tempfile.TemporaryDirectory() as results:
        report = pathlib.Path(results, "tests.xml")
        arguments = (*WORKERS, f"--junitxml={report}", *WITHOUT_MACHINE)
        row = Row("the host", "", version, "unit, contract, process")
        with IN_THIS_TREE:
            return _run(row, [inside, "-m", "pytest", *arguments], [report], output)


def _packaged_interpreter(name: str, output: Output) -> Row:
    for suite in systems.SUITES:
        root = systems.root(suite)
        # `apt-cache show` would take it for a pattern.
        named = ["chroot", str(root), "apt-cache", "pkgnames", name]
        if name in subprocess.run(named, capture_output=True, text=True, check=True).stdout.split():
            break
    else:
        raise SystemExit(f"matrix: there is no {name} on PATH, nor in {', '.join(systems.SUITES)}")
    with systems.copy(systems.machine_root(suite, root)) as (system, results):
        settle = [*systems.nspawn(system, *pip_options()), "sh", "-c", _SETTLE_UNDER, "sh", name]
        subprocess.run(settle, input=systems.tree(), stdout=output, stderr=output, check=True)
        version = subprocess.run(
            ["chroot", system, name, "-V"], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        arguments = (*WORKERS, "--junitxml=/results/tests.xml", *WITHOUT_MACHINE)
        command = ["sh", "-c", _UNDER, "sh", *arguments]
        row = Row(suite, "", version, "unit, contract, process")
        return _run(
            row, [*systems.nspawn(system, f"--bind={results}:/results"), *command], [results / "tests.xml"], output
        )


def _run(row: Row, command: Sequence[str], reports: Sequence[pathlib.Path], output: Output, **environment: str) -> Row:
    """Run tests, and count what their reports say."""
    systems.say(f"{row.suite}, systemd {row.systemd or 'none'}, Python {row.python}: {row.tests}")
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environment}, stdout=output, stderr=output, check=False
    )
    row.seconds = time.monotonic() - began
    for suite in (one for report in reports if report.exists() for one in ET.parse(report).iter("testsuite")):
        skipped, failed = int(suite.attrib["skipped"]), int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        row.skipped += skipped
        row.failed += failed
        row.passed += int(suite.attrib["tests"]) - skipped - failed
    if done.returncode != 0 and not row.failed:
        row.failed = 1  # it did not get as far as the tests
    return row
