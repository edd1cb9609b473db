"""Machines for the tests of the real units: booted once a session, cleaned for each test."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.installation import installed, restore
from tests.support.loading import open_host
from tests.support.machine import Bus, Machine, unavailable
from tests.support.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


IFF_UP = 1


# A test begins with an empty journal, and most leave less.
JOURNAL_LINES = 200


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the machine's units, such as the broker's helpers, said meanwhile."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(machine, Machine):
        show = ["journalctl", "--no-pager", "--output=short-precise", f"--lines={JOURNAL_LINES}"]
        try:
            said = machine.run(show, check=False).stdout
        except (OSError, subprocess.SubprocessError) as error:  # it has ended, or hangs
            said = str(error)
        report.sections.append(("the machine's journal", said))
    return report


class Machines(Protocol):
    def __call__(self, bus: Bus) -> Machine: ...


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """`machines(bus)`: the installed machine with that system bus, booted when it is first
    asked for."""
    booted: dict[Bus, Machine] = {}
    with contextlib.ExitStack() as stack:

        def machine(bus: Bus) -> Machine:
            if bus not in booted:
                booted[bus] = stack.enter_context(installed(bus))
            return booted[bus]

        yield machine


@pytest.fixture
def machine(machines: Machines) -> Machine:
    """The machine after `./run install` and the one command that is left to type."""
    machine = machines("dbus-daemon")
    if not machine.path("/usr/lib/remo-broker").exists():  # a test of uninstalling failed
        restore(machine)
    machine.reset("remo-broker-admin.socket")
    return machine


@pytest.fixture
def loopback(machine: Machine) -> None:
    """Skip the test if its machine has no network: in a container without CAP_NET_ADMIN,
    nothing can bring it up."""
    if not int(machine.run(["cat", "/sys/class/net/lo/flags"]).stdout, 16) & IFF_UP:
        unavailable("a machine has no loopback network here, which takes CAP_NET_ADMIN")


@pytest.fixture
def operator(machine: Machine) -> Operator:
    return Operator(machine)


@pytest.fixture
def watched(operator: Operator) -> str:
    """The socket of the project `watched`, whose requesters a test identifies."""
    path = operator.register("watched", ["TOKEN"])
    operator.push({"TOKEN": "value"})
    return path


@pytest.fixture
def host(machine: Machine) -> Iterator[Operator]:
    """An operator on a machine whose units may load credentials from the broker."""
    with open_host(machine) as host:
        yield host
