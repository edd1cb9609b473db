"""One broker for tests that do not affect each other, and socket units for those with their own
broker."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, Link, registration, short_directory
from tests.support.credential_peer import RULES, Systemd
from tests.support.machine import unavailable
from tests.support.projects import make_project
from tests.support.stderr_pipe import Pipe
from tests.support.units import Units

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket

ALLOWED = ("GITHUB_TOKEN", "aws", "KEYSTORE", "MISSING")
SECRETS = {"GITHUB_TOKEN": "ghp_example", "aws": {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "wJalr"}}
BINARY = {"KEYSTORE": "3q2+7w=="}


@pytest.fixture(scope="module")
def shared() -> Iterator[Broker]:
    """A broker with the project `myrepo`, no rate limit, and the secrets of the manual's
    examples pushed once."""
    with short_directory() as directory:
        broker = Broker(directory, projects=[registration("myrepo", *ALLOWED)], rate_limit_per_second=0)
        with contextlib.closing(broker):
            broker.start()
            broker.push(SECRETS, **BINARY)
            yield broker


@pytest.fixture
def client(shared: Broker) -> Iterator[Link]:
    """A connection on the project's socket of the shared broker."""
    with Link(shared.project()) as link:
        yield link


@pytest.fixture
def operator(shared: Broker) -> Iterator[Link]:
    """A connection on the admin socket of the shared broker."""
    with Link(shared.admin) as link:
        yield link


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    """A broker of the test's own, without projects."""
    return start_broker()


@pytest.fixture
def project(directory: pathlib.Path) -> pathlib.Path:
    """The directory of a project `myrepo`, whose manifest allows A and B."""
    return make_project(directory / "myrepo", "A", "B")


@pytest.fixture
def units(directory: pathlib.Path) -> Iterator[Units]:
    with contextlib.closing(Units(directory)) as units:
        units.add("admin")
        units.add("status")
        yield units


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with contextlib.closing(Pipe()) as pipe:
        pipe.flow()
        yield pipe


@pytest.fixture
def credential_rules(directory: pathlib.Path) -> pathlib.Path:
    """A configuration file."""
    path = directory / "config.toml"
    path.write_text(RULES)
    return path


@pytest.fixture
def systemd(
    start_broker: StartBroker, units: Units, notify: NotifySocket, credential_rules: pathlib.Path
) -> Iterator[Systemd]:
    if os.geteuid() != 0:
        unavailable("systemd is root")
    units.add("credentials")
    notify.attend()
    broker = start_broker(listeners=units.sockets, notify=notify, flags=("--config", str(credential_rules)))
    with contextlib.closing(Systemd(units, broker)) as systemd:
        yield systemd
