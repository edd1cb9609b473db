"""`./run matrix [SUITE …]`: the tests on other Debian releases, and under other Pythons, with a table at the end.

A SUITE is a release, such as `trixie`. debootstrap makes a minimal system of it, once, in
`.cache/roots`. In a copy of that, a newcomer runs `./run demo` and `./run test`, once for each of
the `SURROUNDINGS`. Then tests/machine run on the host and boot the release. A SUITE may also be an
interpreter, such as `python3.12`: the tests that boot no machine run under it, on this host, or in
a release that has a package of it. `another` is a release that is not the host's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from tests.support.installation import pip_options
from tests.support.machine import REPOSITORY, SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUITES = ("bookworm", "trixie", "forky")
# Stands for the first of these that is not the host's own.
ANOTHER = "another"
OTHERS = ("trixie", "bookworm")
ROOTS = REPOSITORY / ".cache/roots"
# debootstrap has a script for each release that was there when it was made; they have been the same for years.
SCRIPTS = pathlib.Path("/usr/share/debootstrap/scripts")
NEWEST = SCRIPTS / "sid"

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


HEAD = ["SUITE", "SYSTEMD", "PYTHON", "TESTS", "PASSED", "SKIPPED", "FAILED", "TIME"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run matrix", description="Run the tests on other systems and Pythons.")
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"a Debian release, `{ANOTHER}` for one that is not this host's, or pythonX.Y; default: {SUITES}",
    )
    parser.add_argument(
        "--only",
        choices=("newcomer", *(f"newcomer/{one.key}" for one in SURROUNDINGS), "machine", "brief"),
        help="one of the two runs on a release, or a part of it",
    )
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("making and booting systems takes root: sudo ./run matrix")
    rows: list[Row] = []
    for suite in [_another() if one == ANOTHER else one for one in arguments.suites] or SUITES:
        if suite.startswith("python"):
            rows.append(_interpreter(suite))
            continue
        root = _root(suite)
        machine_root = _machine_root(suite, root)
        rows += (
            _newcomer(suite, root, machine_root, around)
            for around in SURROUNDINGS
            if arguments.only in (None, "newcomer", f"newcomer/{around.key}")
        )
        if arguments.only in (None, "machine"):
            rows.append(_machine(suite, machine_root))
        if arguments.only == "brief":
            rows.append(_brief(suite, machine_root))
    _show([HEAD, *(row.cells() for row in rows)])
    return int(any(row.failed or not row.passed for row in rows))


def _another() -> str:
    own = platform.freedesktop_os_release().get("VERSION_CODENAME")
    return next(one for one in OTHERS if one != own)


def _show(table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def _say(text: str) -> None:
    print(f"matrix: {text}", file=sys.stderr, flush=True)


# --- the systems


def _root(suite: str) -> pathlib.Path:
    """A minimal system of a release, with what machines need to be tested on it."""
    root = ROOTS / suite
    if not root.exists():
        _say(f"making {root} by debootstrap")
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


def _machine_root(suite: str, base: pathlib.Path) -> pathlib.Path:
    """A second system, on which all is installed that takes a network.

    It is not changed once it is there: machines that others have booted may be using it.
    """
    root = ROOTS / f"{suite}.machine"
    if not root.exists():
        _say(f"making {root}")
        new = ROOTS / f"{suite}.machine.new"
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(["cp", "-a", base, new], check=True)
        # Both buses: a test machine forgets that the package of the second makes it the system's.
        packages = "dbus dbus-broker"
        install = f"apt-get -qq update && apt-get -qq install -y --no-install-recommends {packages} >/dev/null"
        subprocess.run([*_nspawn(new), "sh", "-c", f"{install} && exec {SOURCE}/run setup machine"], check=True)
        new.rename(root)
    return root


@contextlib.contextmanager
def _copy(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """A copy of a system that may be changed, and a directory for what is found out there."""
    with tempfile.TemporaryDirectory(dir=ROOTS, prefix=f"{root.name}.") as scratch:
        system, results = pathlib.Path(scratch, "root"), pathlib.Path(scratch, "results")
        subprocess.run(["cp", "-a", root, system], check=True)
        results.mkdir()
        results.chmod(0o777)
        yield system, results


def _tree() -> bytes:
    """This tree as a tar archive, without what `./run` has made in it."""
    excluded = [f"--exclude=./{one}" for one in (".git", ".cache", ".venv", "out")]
    return subprocess.run(["tar", "-c", *excluded, "."], cwd=REPOSITORY, capture_output=True, check=True).stdout


def _nspawn(root: pathlib.Path, *options: str) -> list[str]:
    """A command that runs another in a system that is not booted, with the host's network and
    this tree."""
    repository = str(REPOSITORY).replace("\\", "\\\\").replace(":", "\\:")
    return [
        *("systemd-nspawn", "--quiet", f"--directory={root}", "--as-pid2", "--pipe", "--register=no", "--keep-unit"),
        *(f"--bind-ro={repository}:{SOURCE}", "--setenv=DEBIAN_FRONTEND=noninteractive", *options),
    ]


def _versions(root: pathlib.Path) -> tuple[str, str]:
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


# --- the runs


def _newcomer(suite: str, root: pathlib.Path, machine_root: pathlib.Path, around: Surroundings) -> Row:
    """`./run demo` and the tests in a minimal system, in surroundings that do not help."""
    with _copy(root) as (system, results):
        settle = ["sh", "-c", _SETTLE, "sh", DIRECTORY, around.user]
        subprocess.run([*_nspawn(system), *settle], input=_tree(), check=True)
        options = (
            f"--bind={results}:/results",
            "--setenv=PYTEST_ADDOPTS=--junitxml=/results/tests.xml",
            f"--user={around.user}",
            *pip_options(),
            *_HOSTILE_PIP,
            *around.nspawn,
        )
        attempt = ["sh", "-c", _TRY, "sh", DIRECTORY, *((*WORKERS, *around.tests) if around.tests else ())]
        row = Row(suite, *_versions(machine_root), tests=around.name)
        return _run(row, [*_nspawn(system, *options), *attempt], [results / "tests.xml"])


def _machine(suite: str, machine_root: pathlib.Path) -> Row:
    """tests/machine, which boot the system; those that measure how long others wait run alone."""
    with tempfile.TemporaryDirectory() as results:
        reports = [pathlib.Path(results, "tests.xml"), pathlib.Path(results, "faults.xml")]
        pytest = f"{shlex.quote(sys.executable)} -m pytest"
        faults = "tests/machine/faults"
        script = (
            f"{pytest} {' '.join(WORKERS)} --junitxml={reports[0]} --ignore={faults} tests/machine; status=$?; "
            f"{pytest} --junitxml={reports[1]} {faults} || status=$?; exit $status"
        )
        row = Row(suite, *_versions(machine_root), tests="tests/machine")
        return _run(row, ["sh", "-c", script], reports, REMO_MACHINE_ROOT=str(machine_root))


def _brief(suite: str, machine_root: pathlib.Path) -> Row:
    """A few of tests/machine, for continuous integration."""
    with tempfile.TemporaryDirectory() as results:
        report = pathlib.Path(results, "tests.xml")
        row = Row(suite, *_versions(machine_root), tests="activation, audit, units")
        command = [sys.executable, "-m", "pytest", *WORKERS, f"--junitxml={report}", *BRIEF]
        return _run(row, command, [report], REMO_MACHINE_ROOT=str(machine_root))


def _interpreter(name: str) -> Row:
    """What boots no machine, under the host's interpreter of that name, or that of the first
    release that has one."""
    if shutil.which(name) is None:
        return _packaged_interpreter(name)
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
        return _run(row, [inside, "-m", "pytest", *arguments], [report])


def _packaged_interpreter(name: str) -> Row:
    for suite in SUITES:
        root = _root(suite)
        # `apt-cache show` would take it for a pattern.
        named = ["chroot", str(root), "apt-cache", "pkgnames", name]
        if name in subprocess.run(named, capture_output=True, text=True, check=True).stdout.split():
            break
    else:
        raise SystemExit(f"matrix: there is no {name} on PATH, nor in {', '.join(SUITES)}")
    with _copy(_machine_root(suite, root)) as (system, results):
        settle = [*_nspawn(system, *pip_options()), "sh", "-c", _SETTLE_UNDER, "sh", name]
        subprocess.run(settle, input=_tree(), check=True)
        version = subprocess.run(
            ["chroot", system, name, "-V"], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        arguments = (*WORKERS, "--junitxml=/results/tests.xml", *WITHOUT_MACHINE)
        command = ["sh", "-c", _UNDER, "sh", *arguments]
        row = Row(suite, "", version, "unit, contract, process")
        return _run(row, [*_nspawn(system, f"--bind={results}:/results"), *command], [results / "tests.xml"])


def _run(row: Row, command: Sequence[str], reports: Sequence[pathlib.Path], **environment: str) -> Row:
    """Run tests, and count what their reports say."""
    _say(f"{row.suite}, systemd {row.systemd or 'none'}, Python {row.python}: {row.tests}")
    began = time.monotonic()
    done = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **environment}, check=False)
    row.seconds = time.monotonic() - began
    for suite in (one for report in reports if report.exists() for one in ET.parse(report).iter("testsuite")):
        skipped, failed = int(suite.attrib["skipped"]), int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        row.skipped += skipped
        row.failed += failed
        row.passed += int(suite.attrib["tests"]) - skipped - failed
    if done.returncode != 0 and not row.failed:
        row.failed = 1  # it did not get as far as the tests
    return row


if __name__ == "__main__":
    sys.exit(main())
