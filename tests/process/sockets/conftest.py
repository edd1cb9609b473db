"""One broker for the tests that change nothing for each other, and socket units for those with a broker of their own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Broker, Link, registration, short_directory
from tests.support.stderr_pipe import Pipe
from tests.support.units import Units

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

ALLOWED = ("GITHUB_TOKEN", "aws", "KEYSTORE", "MISSING")
SECRETS = {"GITHUB_TOKEN": "ghp_example", "aws": {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "wJalr"}}
BINARY = {"KEYSTORE": "3q2+7w=="}


@pytest.fixture(scope="module")
def shared() -> Iterator[Broker]:
    """A broker with the project `myrepo`, no rate limit, and the secrets of the manual's examples pushed once."""
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
