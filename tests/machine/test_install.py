"""`./run install` and `./run uninstall`, on the machine and into a directory."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import pip_environment, restore
from tests.support.machine import REPOSITORY, SOURCE, poll
from tests.support.operator import ADMIN, SERVICE, Operator

if TYPE_CHECKING:
    from tests.support.machine import Machine

# Everything on the machine with the project's name, except its journal and other tests' containers.
NAMED = (
    "find /usr /etc /opt /run /var/lib /var/cache /var/spool ( -path /usr/src -o -path /var/lib/containers ) -prune"
    " -o ( -name *remo-broker* -o -name *remo_broker* -o -name *RemoBroker* -o -name *remo-secret* ) -print"
)
PROGRAMS = ("remo-broker", "remo-broker-bus", "remo-brokerctl", "remo-secret")


def named(machine: Machine) -> set[str]:
    return set(machine.run(NAMED.split()).stdout.split())


def kept_out(machine: Machine) -> None:
    """Assert that only root may change installed files, and every user may read them."""
    where = "/usr/lib/remo-broker /usr/bin/remo-* /usr/share/remo-broker /usr/lib/systemd/system/remo-broker*"
    for test in ("-perm /022", "! -perm -004", "! -user root", "-type d ! -perm -005"):
        found = machine.run(["sh", "-c", f"find {where} ! -type l {test}"]).stdout
        assert found == "", test


def test_installed_files_and_units(machine: Machine) -> None:
    kept_out(machine)
    for program in PROGRAMS:
        shown = machine.run(["/bin/sh", "-c", f"cd / && {program} --version"], user="nobody")
        assert shown.stdout.split()[:2] == [program, "2.0.0"], shown.stdout
    packages = "/usr/lib/remo-broker/lib/python3.*/site-packages"
    uncompiled = machine.run(
        [
            "sh",
            "-c",
            f"for f in {packages}/remo_broker/*.py; do ls ${{f%/*}}/__pycache__/$(basename $f .py).*.pyc >/dev/null; done",
        ]
    )
    assert uncompiled.stderr == ""
    assert not machine.run(["sh", "-c", f"ls -d {packages}/pip {packages}/setuptools"], check=False).stdout
    assert machine.run(["/usr/lib/remo-broker/bin/python3", "-c", "import sys; print(sys.prefix)"]).stdout == (
        "/usr/lib/remo-broker\n"
    )
    for page in ("remo-broker.8", "remo-broker.toml.5"):
        assert machine.path(f"/usr/share/man/man{page[-1]}/{page}").exists()
    for schema in (REPOSITORY / "schema").glob("*.*"):
        assert machine.path(f"/usr/share/remo-broker/{schema.name}").read_bytes() == schema.read_bytes()


def test_the_static_client_is_installed_for_each_architecture(machine: Machine) -> None:
    own, feature = platform.machine(), "/usr/share/remo-broker/feature"
    client = machine.path("/usr/bin/remo-secret").read_bytes()
    assert client.startswith(b"\x7fELF")
    assert machine.path(f"{feature}/remo-secret.{own}").read_bytes() == client
    assert machine.path("/usr/lib/remo-broker/remo-secret").read_bytes().startswith(b"#!/usr/bin/python3")
    for other in ("x86_64", "aarch64"):
        compiler = machine.run(["sh", "-c", f"command -v {other}-linux-gnu-gcc"], check=False).returncode == 0
        assert machine.path(f"{feature}/remo-secret.{other}").exists() == (compiler or other == own), other


def test_the_installer_reports_a_missing_compiler(machine: Machine) -> None:
    """Its compile step, with only those programs that it calls by name."""
    script = f"""
        mkdir -p /tmp/few && ln -sf $(command -v uname) $(command -v mkdir) $(command -v rm) $(command -v cat) /tmp/few
        cd {SOURCE} && work=$(mktemp -d) python=/usr/bin/python3 PATH=/tmp/few
        say() {{ echo "$*"; }}
        . remo_broker/build/install.sh
        build_static_client
        echo $work/static/*
    """
    printed = machine.run(["sh", "-ec", script]).stdout
    assert "remo-secret is installed in Python only" in printed
    assert printed.endswith("/static/*\n"), "there is no file"


def test_programs_import_nothing_from_the_caller(machine: Machine) -> None:
    """An operator runs them in a project's directory, with variables set by the project's tools."""
    place = "/tmp/hostile"
    for name in ("encodings", "json", "socket", "subprocess", "usercustomize", "remo_broker"):
        machine.write(f"{place}/{name}.py", "import os\nos.write(2, b'imported')\n")
    env = {"PYTHONPATH": place, "PYTHONINSPECT": "1", "PYTHONHOME": place, "PYTHONUSERBASE": place, "HOME": place}
    for program in PROGRAMS:
        shown = machine.run(["sh", "-c", f"cd {place} && exec {program} --version"], env=env)
        assert (shown.stdout.split()[0], shown.stderr) == (program, "")
    machine.run(["rm", "-r", place])


def test_uninstall_leaves_the_configuration(machine: Machine) -> None:
    before = named(machine)
    assert "/usr/bin/remo-broker" in before
    operator = Operator(machine)
    operator.configure("idle_exit_seconds = 0\n")
    operator.register("app", ["TOKEN"])
    machine.systemctl("enable", "remo-broker-client@app.socket")
    machine.run(["remo-brokerctl", "setup-journal", "--now"])

    said = machine.run([f"{SOURCE}/run", "uninstall"]).stderr

    assert "/etc/remo-broker" in said
    try:
        assert named(machine) == {"/etc/remo-broker"}
        # systemd forgets a unit with some delay.
        poll("systemd to forget", lambda: not machine.systemctl("list-units", "--all", "--no-legend", "remo-broker*"))
        assert machine.systemctl("list-unit-files", "--no-legend", "remo-broker*", check=False) == ""
        ownerless = machine.run(["find", "/run", "/etc", "/var/lib", "-xdev", "(", "-nouser", "-o", "-nogroup", ")"])
        assert ownerless.stdout == ""
        for database in ("passwd", "group"):
            assert "remo-broker" not in machine.run(["getent", database]).stdout
        catalog = machine.run(["journalctl", "--list-catalog", "--no-pager"]).stdout
        assert "remo-broker" not in catalog
        # Running it twice does no harm.
        machine.run([f"{SOURCE}/run", "uninstall"])
    finally:
        restore(machine)
    # With the remaining configuration, it can be installed again.
    machine.systemctl("enable", "--now", "remo-broker-admin.socket")
    assert machine.ask(ADMIN, {"op": "status"})["ok"] is True


def test_into_a_directory(machine: Machine) -> None:
    """As a package is built: nothing outside it is touched, no running service is notified.

    From a directory whose name has to be quoted, by a user whose pip installs elsewhere."""
    machine.ask(ADMIN, {"op": "status"})
    pid = machine.show(SERVICE, "MainPID")
    source = "/tmp/build/der Code für remo-broker"
    machine.run(["sh", "-c", f"rm -rf /tmp/build && mkdir -p '{source}' && touch /tmp/build/before"])
    left_out = " ".join(f"--exclude=./{one}" for one in (".git", ".cache", ".venv"))
    machine.run(["sh", "-c", f"tar -c -C {SOURCE} {left_out} . | tar -x -C '{source}'"])
    machine.write("/tmp/build/.config/pip/pip.conf", "[install]\nuser = true\n")
    elsewhere = {"PIP_USER": "1", "PIP_TARGET": "/tmp/build/target", "PIP_PREFIX": "/tmp/build/prefix"}
    # Relative to the caller's directory.
    env = {**pip_environment(), **elsewhere, "HOME": "/tmp/build", "DESTDIR": "destination"}
    machine.run(["sh", "-c", f"cd /tmp/build && exec '{source}/run' install"], env=env, timeout=180)
    assert machine.run(["find", "/tmp/build/target", "/tmp/build/prefix"], check=False).stdout == ""

    assert machine.show(SERVICE, "MainPID") == pid
    touched = machine.run(["find", "/usr", "/etc", "/var/lib", "-xdev", "-newer", "/tmp/build/before", "-type", "f"])
    assert touched.stdout == ""
    tree = machine.run(["find", "/tmp/build/destination", "-type", "f"]).stdout.split()
    installed = {path.removeprefix("/tmp/build/destination") for path in tree}
    listed = machine.path("/usr/lib/remo-broker/installed-files").read_text().split()
    assert set(listed) <= installed
    outside = {path for path in installed if not path.startswith("/usr/lib/remo-broker/")}
    assert outside == set(listed)
    assert machine.run(["grep", "-rlF", "/tmp/build", "/tmp/build/destination"], check=False).stdout == ""

    machine.run(["sh", "-c", f"cd /tmp/build && exec {SOURCE}/run uninstall"], env=env)
    assert machine.run(["find", "/tmp/build/destination", "!", "-type", "d"]).stdout == ""
    assert machine.show(SERVICE, "MainPID") == pid


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_without_root_the_hint_names_the_next_step(machine: Machine, verb: str) -> None:
    tried = machine.run([f"{SOURCE}/run", verb], user="nobody", check=False)
    assert tried.returncode != 0
    assert f"sudo ./run {verb}" in tried.stderr


def test_without_packages_root_and_sudo_it_says_what_to_install(machine: Machine) -> None:
    """A host on which dpkg knows no package, and with nothing else that ./run would need up to
    there."""
    machine.run(["sh", "-c", "mkdir -p /tmp/bare && cd /tmp/bare && ln -sf /usr/bin/dirname /usr/bin/id ."])
    machine.run(["sh", "-c", "cd /tmp/bare && ln -sf /usr/bin/false dpkg-query && ln -sf /usr/bin/false apt-get"])
    bare = ["/usr/bin/env", "PATH=/tmp/bare", "/bin/sh", f"{SOURCE}/run", "lint"]
    tried = machine.run(bare, user="nobody", check=False)
    assert tried.returncode == 1
    (line,) = tried.stderr.splitlines()
    assert line.startswith("run: missing, to build the Python environment: python3 python3-venv ")
    assert "have root run `apt-get install python3 python3-venv " in line


def test_help_and_an_unknown_verb(machine: Machine) -> None:
    shown = machine.run([f"{SOURCE}/run", "help"]).stdout
    verbs = (
        "demo",
        "test",
        "lint",
        "bench",
        "fuzz",
        "soak",
        "faults",
        "mutants",
        "matrix",
        "setup",
        "deb",
        "install",
        "uninstall",
        "help",
    )
    for verb in verbs:
        assert f"\n  {verb} " in shown
    wrong = machine.run([f"{SOURCE}/run", "instal"], check=False)
    assert wrong.returncode != 0
    assert "instal" in wrong.stderr


def test_a_changed_python_is_named_as_the_reason(machine: Machine) -> None:
    """For example after an upgrade of the distribution."""
    text = machine.path("/usr/bin/remo-brokerctl").read_text()
    machine.write("/usr/bin/remo-brokerctl.next", text.replace("!= (3, ", "!= (3, 9"))
    tried = machine.run(["/usr/bin/python3", "-SI", "/usr/bin/remo-brokerctl.next"], check=False)
    machine.path("/usr/bin/remo-brokerctl.next").unlink()
    assert tried.returncode == 1
    assert "./run install" in tried.stderr
