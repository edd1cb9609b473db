"""The Debian packages that `./run deb` builds: installed, upgraded, removed and purged by dpkg on
the machine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol import paths
from tests.machine.test_install import PROGRAMS, kept_out, named
from tests.support.installation import INSTALL_SECONDS, pip_environment, restore
from tests.support.load import ConnectionLoad
from tests.support.machine import SOURCE, poll
from tests.support.operator import ADMIN, SERVICE, STATUS, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.machine.conftest import Machines
    from tests.support.machine import Machine

PLACE = "/var/tmp/packages"
BROKER = f"{PLACE}/remo-broker.deb"
SECRET = f"{PLACE}/remo-secret.deb"
# The same package with an older version number, and a unit that this one lacks.
OLDER = f"{PLACE}/older.deb"
MOVED = "remo-broker-moved.socket"
MOVED_SOCKET = "/run/remo-moved.sock"
LINTIAN_SECONDS = 300

_BUILD = f"""
set -e
rm -rf {PLACE}
rm -f /var/lib/man-db/auto-update # else each dpkg reads every manual page
export DPKG_DEB_COMPRESSOR_TYPE=gzip DPKG_DEB_COMPRESSOR_LEVEL=1 # which takes seconds less than xz
OUT={PLACE} {SOURCE}/run deb
cd {PLACE}
mv remo-broker_*.deb remo-broker.deb
mv remo-secret_*.deb remo-secret.deb
dpkg-deb -R remo-broker.deb older
sed -i 's/^Version: .*/Version: 1.9/' older/DEBIAN/control
sed -i "s/^units='/&{MOVED} /" older/DEBIAN/postinst
printf '[Socket]\\nListenStream={MOVED_SOCKET}\\nService={SERVICE}\\n[Install]\\nWantedBy=sockets.target\\n' \
    >older/usr/lib/systemd/system/{MOVED}
dpkg-deb -Znone -b older older.deb >/dev/null
"""


@pytest.fixture(scope="module")
def packages(machines: Machines) -> Iterator[Machine]:
    """The machine with the packages built and none of them installed."""
    machine = machines("dbus-daemon")
    machine.reset()
    machine.run([f"{SOURCE}/run", "uninstall"])
    try:
        machine.run(["sh", "-c", _BUILD], env=pip_environment(), timeout=INSTALL_SECONDS + LINTIAN_SECONDS)
        yield machine
    finally:
        purge(machine)
        restore(machine)


@pytest.fixture
def fresh(packages: Machine) -> Iterator[Machine]:
    """The machine before the package is installed for the first time."""
    yield packages
    purge(packages)


def dpkg(machine: Machine, *arguments: str) -> str:
    done = machine.run(["dpkg", *arguments], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=INSTALL_SECONDS)
    return done.stdout + done.stderr


def purge(machine: Machine) -> None:
    dpkg(machine, "--purge", "remo-broker", "remo-secret")


def test_a_fresh_installation_listens_and_runs_nothing(fresh: Machine) -> None:
    dpkg(fresh, "--install", BROKER)

    for socket in ("remo-broker-admin.socket", "remo-broker-status.socket", "remo-broker-credentials.socket"):
        assert fresh.systemctl("is-enabled", socket) == "enabled"
        assert fresh.systemctl("is-active", socket) == "active"
    running = fresh.systemctl("list-units", "--plain", "--no-legend", "--type=service", "--state=active", "remo-*")
    assert running == ""
    kept_out(fresh)
    for program in PROGRAMS:
        assert fresh.run([program, "--version"], user="nobody").stdout.split()[:2] == [program, "2.0.0"]
    assert fresh.ask(ADMIN, {"op": "status"})["ok"] is True
    busctl = ["busctl", "get-property", "io.get2know.RemoBroker1", "/io/get2know/RemoBroker1"]
    assert fresh.run([*busctl, "io.get2know.RemoBroker1.Manager", "SecretCount"], user="nobody").stdout == "u 0\n"
    assert "remo-broker" in fresh.run(["journalctl", "--list-catalog", "--no-pager"]).stdout


def test_it_depends_on_the_python_that_it_was_built_for(packages: Machine) -> None:
    depends = packages.run(["dpkg-deb", "--field", BROKER, "Depends"]).stdout
    version = packages.run(["python3", "-c", "import sys; print(sys.version_info.minor)"]).stdout
    minor = int(version)
    assert f"python3 (>= 3.{minor}~)" in depends
    assert f"python3 (<< 3.{minor + 1}~)" in depends


def test_what_is_in_etc_is_a_conffile(packages: Machine) -> None:
    names = packages.run(["sh", "-c", f"dpkg-deb -c {BROKER} | sed -n 's|.* [.]/etc/|/etc/|p' | grep -v '/$' || true"])
    marked = packages.run(["dpkg-deb", "--info", BROKER, "conffiles"], check=False).stdout
    assert set(marked.split()) == set(names.stdout.split())


def test_an_upgrade_under_load_refuses_no_client(fresh: Machine) -> None:
    """The sockets stay the same ones, including those of projects registered at run time, whose units are enabled
    and not started."""
    dpkg(fresh, "--install", OLDER)
    fresh.systemctl("enable", "--now", MOVED)
    operator = Operator(fresh)
    path = operator.register("app", ["TOKEN"])
    fresh.systemctl("enable", "remo-broker-client@app.socket")
    inodes = {one: operator.inode(one) for one in (ADMIN, STATUS, path, operator.mount("app"))}
    before = operator.main_pid()

    loads = [ConnectionLoad(fresh, one) for one in (ADMIN, path)]
    with contextlib.ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
        dpkg(fresh, "--install", BROKER)
        served = [load.answers for load in loads]
        poll(
            "answers of the new version", lambda: all(one.answers > old for one, old in zip(loads, served, strict=True))
        )

    assert [load.refused for load in loads] == [[], []]
    assert operator.main_pid() not in {0, before}
    assert {one: operator.inode(one) for one in inodes} == inodes
    assert operator.get("app", "TOKEN")["reason"] == "no_snapshot"
    # Units that the new version lacks are stopped and no longer enabled.
    assert fresh.systemctl("is-active", MOVED, check=False) != "active"
    assert fresh.run(["find", "/etc/systemd/system", "-name", MOVED]).stdout == ""


def test_an_upgrade_keeps_what_the_administrator_disabled(fresh: Machine) -> None:
    dpkg(fresh, "--install", OLDER)
    fresh.systemctl("disable", "--now", "remo-broker-admin.socket")
    dpkg(fresh, "--install", BROKER)
    assert fresh.systemctl("is-enabled", "remo-broker-admin.socket", check=False) == "disabled"
    assert fresh.systemctl("is-active", "remo-broker-admin.socket", check=False) == "inactive"


def test_remove_stops_everything_and_keeps_the_configuration(fresh: Machine) -> None:
    dpkg(fresh, "--install", BROKER)
    operator = Operator(fresh)
    operator.configure("idle_exit_seconds = 0\n")
    operator.register("app", ["TOKEN"])
    fresh.systemctl("enable", "remo-broker-client@app.socket")

    dpkg(fresh, "--remove", "remo-broker")

    active = fresh.systemctl("list-units", "--plain", "--no-legend", "--state=active", "remo-*")
    assert active == ""
    for path in (ADMIN, operator.socket("app")):
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            fresh.connect(path)
    for kept in (paths.CONFIG_FILE, "/var/lib/remo-broker/registrations.json"):
        assert fresh.path(kept).exists()


def test_purge_leaves_nothing(fresh: Machine) -> None:
    before = named(fresh)
    dpkg(fresh, "--install", BROKER)
    operator = Operator(fresh)
    operator.configure("idle_exit_seconds = 0\n")
    operator.register("app", ["TOKEN"])
    fresh.run(["remo-brokerctl", "setup-journal", "--now"])
    fresh.systemctl("enable", "remo-broker-client@app.socket")
    fresh.write("/etc/systemd/system/remo-broker.service.d/mine.conf", "[Service]\nTasksMax=32\n")
    foreign = "/etc/systemd/system/remo-web@x.service.d/hardening.conf"
    fresh.write(foreign, "[Service]\nPrivateTmp=yes\n")

    dpkg(fresh, "--purge", "remo-broker")

    assert fresh.path(foreign).exists()
    fresh.run(["rm", "-r", "/etc/systemd/system/remo-web@x.service.d"])
    assert named(fresh) <= before  # an earlier test may have left a configuration, which is removed as well
    for database in ("passwd", "group"):
        assert "remo-broker" not in fresh.run(["getent", database]).stdout
    ownerless = fresh.run(["find", "/run", "/etc", "/var/lib", "-xdev", "(", "-nouser", "-o", "-nogroup", ")"])
    assert ownerless.stdout == ""


def test_the_package_for_containers_has_only_the_command(fresh: Machine) -> None:
    dpkg(fresh, "--install", SECRET)
    files = dpkg(fresh, "--listfiles", "remo-secret").split()
    assert "/usr/bin/remo-secret" in files
    assert not [one for one in files if "systemd" in one or "site-packages" in one]
    shown = fresh.run(["sh", "-c", "cd / && remo-secret --version"], user="nobody")
    assert shown.stdout.split()[0] == "remo-secret"
    assert fresh.path("/usr/bin/remo-secret").read_bytes().startswith(b"\x7fELF")


def test_run_does_not_replace_files_of_the_package(fresh: Machine) -> None:
    dpkg(fresh, "--install", BROKER)
    for verb in ("install", "uninstall"):
        tried = fresh.run([f"{SOURCE}/run", verb], check=False)
        assert tried.returncode != 0
        assert "apt-get remove remo-broker" in tried.stderr
    assert fresh.ask(ADMIN, {"op": "status"})["ok"] is True
