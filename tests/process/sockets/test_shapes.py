"""A megabyte of unusual JSON takes no memory permanently and no time from other clients."""

from __future__ import annotations

import itertools
import pathlib
import string
from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH
from tests.support.broker import Link, inside, registration
from tests.support.machine import poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartBroker
    from tests.support.broker import Broker

# Memory that a useless line may take while it is read: its own megabyte, and some room.
PEAK_KIB = 12 * 1024
# A hundred thousand secrets take about 500 bytes each, in addition to those of the previous push.
PEAK_OF_SECRETS_KIB = 128 * 1024
# Memory that may remain after either.
KEPT_KIB = 8 * 1024
ROOM = MAX_PUSH - 60


def an_object(value: str, room: int) -> str:
    """As many members as fit, with the shortest possible keys."""
    members = []
    keys = ("".join(key) for length in range(1, 5) for key in itertools.product(string.ascii_letters, repeat=length))
    for key in keys:
        member = f'"{key}":{value}'
        room -= len(member) + 1
        if room < 2:
            break
        members.append(member)
    return "{" + ",".join(members) + "}"


def an_array(value: str, room: int) -> str:
    return "[" + ",".join([value] * ((room - 2) // (len(value) + 1))) + "]"


def push(secrets: str) -> str:
    return f'{{"op":"push-creds","secrets":{secrets}}}'


def push_of_one(value: str) -> str:
    return push(f'{{"A":{value}}}')


# Made when they are sent, as each worker would make them for its collection.
REFUSED = {
    "arrays": lambda: push(an_object(an_array("0", 514), ROOM)),
    "arrays in arrays in arrays": lambda: push_of_one(an_array(an_array(an_array("[]", 770), 770 * 200), ROOM - 10)),
    "objects in an array": lambda: push_of_one(an_array('{"a":{"b":0}}', ROOM - 10)),
    "numbers": lambda: push_of_one(an_array("0", ROOM - 10)),
}
SECRETS = {
    "objects in a bundle": lambda: push_of_one(an_object('{"a":{}}', ROOM - 10)),
    "strings": lambda: push(an_object('""', ROOM)),
    "empty bundles": lambda: push(an_object("{}", ROOM)),
    "small bundles": lambda: push(an_object('{"a":""}', ROOM)),
    "fields that nobody knows": lambda: push("{}")[:-1] + "," + an_object("{}", ROOM)[1:],
    "an end that is missing": lambda: push(an_object('{"a":""}', ROOM))[:-1],
}


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    broker = start_broker(projects=[registration("myrepo", "A")])
    for _ in range(2):  # memory that the first large push takes permanently
        broker.push({f"N{number}": "x" * 50_000 for number in range(20)})
        broker.ask({"op": "clear-creds"})
    return broker


def peak_kib(broker: Broker) -> int:
    for line in pathlib.Path(f"/proc/{broker.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")


def forget_peak(broker: Broker) -> None:
    inside(broker.pid, "clear_refs").write_text("5")


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        *(pytest.param(make, PEAK_KIB, id=name) for name, make in REFUSED.items()),
        *(pytest.param(make, PEAK_OF_SECRETS_KIB, id=name) for name, make in SECRETS.items()),
    ],
)
def test_memory_is_returned(broker: Broker, make: Callable[[], str], limit: int) -> None:
    line = make()
    assert MAX_MESSAGE < len(line) < MAX_PUSH
    before = broker.resident_kib()
    forget_peak(broker)
    with Link(broker.admin) as operator:
        for _ in range(2):
            operator.ask(line.encode() + b"\n")
        assert peak_kib(broker) - before <= limit
        assert operator.ask({"op": "clear-creds"})["ok"]
    # Memory is freed in steps.
    poll("the memory to come back", lambda: broker.resident_kib() - before <= KEPT_KIB)
