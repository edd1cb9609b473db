"""Every call has its reply and no other effect, tested without a bus."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.bus import service as texts
from remo_broker.bus import wire
from remo_broker.bus.connection import FAULT, Answer, Error, Return
from remo_broker.bus.interfaces import (
    INTROSPECTABLE,
    OBJECT_MANAGER,
    PEER,
    Interface,
)
from remo_broker.bus.interfaces import MANAGER as MANAGER_TABLE
from remo_broker.bus.interfaces import PROJECT as PROJECT_TABLE
from remo_broker.bus.interfaces import PROPERTIES as PROPERTIES_TABLE
from remo_broker.bus.service import Service
from remo_broker.bus.wire import Variant
from tests.support.bus import MANAGER, PROJECT, PROPERTIES, ROOT
from tests.support.status import broker_event, project_event
from tests.unit.bus.test_snapshot import snapshot_of

MYREPO = f"{ROOT}/project/myrepo"
ERROR = "org.freedesktop.DBus.Error"


def known() -> Service:
    service = Service("0123456789abcdef0123456789abcdef")
    service.snapshot = snapshot_of(broker_event(), project_event(), project_event("7-zip"))
    return service


def incoming(path: str, interface: str, member: str, signature: str = "", *values: Any) -> wire.Incoming:
    body = wire.encode_body(signature, list(values))
    fields = {"path": path, "interface": interface, "member": member, "destination": ":1.2"}
    return wire.decode(wire.encode(wire.METHOD_CALL, 1, signature, body, **fields))


def ask(service: Service, *call: Any) -> Any:
    """The values of a reply, or the name of the error without its common prefix."""
    return read(service.answer(incoming(*call)))


def read(answer: Answer) -> Any:
    if isinstance(answer, Error):
        assert answer.text.isascii()
        assert answer.text.endswith(".")
        return answer.name.removeprefix(f"{ERROR}.")
    frame = wire.encode(wire.METHOD_RETURN, 1, answer.signature, answer.body, reply_serial=1)
    return plain(wire.decode(frame).body())


def plain(value: Any) -> Any:
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def test_every_method_of_the_tables_has_a_handler() -> None:
    tables = (MANAGER_TABLE, PROJECT_TABLE, PEER, INTROSPECTABLE, PROPERTIES_TABLE, OBJECT_MANAGER)
    declared = {(interface.name, method.name) for interface in tables for method in interface.methods}
    assert set(known()._methods) == declared


@pytest.mark.parametrize("interface", [MANAGER_TABLE, PROJECT_TABLE], ids=lambda interface: interface.name)
def test_every_property_has_a_value(interface: Interface) -> None:
    path = ROOT if interface is MANAGER_TABLE else MYREPO
    (everything,) = ask(known(), path, PROPERTIES, "GetAll", "s", interface.name)
    assert list(everything) == [one.name for one in interface.properties]
    for name, value in everything.items():
        assert ask(known(), path, PROPERTIES, "Get", "ss", interface.name, name) == [value]
        assert ask(known(), path, PROPERTIES, "Get", "ss", "", name) == [value]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (("/", PEER.name, "Ping"), []),
        (("/nothing/here", PEER.name, "Ping"), []),
        (("/", "", "Ping"), []),
        ((ROOT, PEER.name, "GetMachineId"), ["0123456789abcdef0123456789abcdef"]),
        ((ROOT, MANAGER, "ListProjects"), [[["7-zip", f"{ROOT}/project/_37_2dzip"], ["myrepo", MYREPO]]]),
        ((ROOT, "", "ListProjects"), [[["7-zip", f"{ROOT}/project/_37_2dzip"], ["myrepo", MYREPO]]]),
        ((ROOT, MANAGER, "GetProject", "s", "7-zip"), [f"{ROOT}/project/_37_2dzip"]),
        (("/io", PROPERTIES, "GetAll", "s", ""), [{}]),
        ((ROOT, PROPERTIES, "GetAll", "s", PEER.name), [{}]),
    ],
)
def test_answers(call: tuple[Any, ...], answer: Any) -> None:
    assert ask(known(), *call) == answer


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("/nothing", MANAGER, "ListProjects"), "UnknownObject"),
        ((f"{ROOT}/project/other", PROPERTIES, "GetAll", "s", PROJECT), "UnknownObject"),
        ((f"{ROOT}/project/7zip", PROPERTIES, "GetAll", "s", PROJECT), "UnknownObject"),
        ((f"{MYREPO}/below", INTROSPECTABLE.name, "Introspect"), "UnknownObject"),
        ((ROOT, PROJECT, "Anything"), "UnknownInterface"),
        ((MYREPO, MANAGER, "ListProjects"), "UnknownInterface"),
        ((MYREPO, OBJECT_MANAGER.name, "GetManagedObjects"), "UnknownInterface"),
        ((ROOT, "org.example.Other", "ListProjects"), "UnknownInterface"),
        ((ROOT, PROPERTIES, "Get", "ss", PROJECT, "Name"), "UnknownInterface"),
        ((ROOT, PROPERTIES, "GetAll", "s", "org.example.Other"), "UnknownInterface"),
        ((ROOT, MANAGER, "Push"), "UnknownMethod"),
        ((ROOT, "", "Push"), "UnknownMethod"),
        ((ROOT, PEER.name, "Pong"), "UnknownMethod"),
        ((ROOT, MANAGER, "ListProjects", "s", "x"), "InvalidArgs"),
        ((ROOT, MANAGER, "GetProject"), "InvalidArgs"),
        ((ROOT, MANAGER, "GetProject", "u", 7), "InvalidArgs"),
        ((ROOT, PROPERTIES, "Get", "s", MANAGER), "InvalidArgs"),
        ((ROOT, PROPERTIES, "Get", "ss", MANAGER, "Secrets"), "UnknownProperty"),
        ((ROOT, PROPERTIES, "Get", "ss", PEER.name, "Secrets"), "UnknownProperty"),
        ((ROOT, PROPERTIES, "Set", "ssv", MANAGER, "SecretCount", Variant("u", 0)), "PropertyReadOnly"),
        ((ROOT, PROPERTIES, "Set", "ssv", MANAGER, "Version", Variant("u", 0)), "PropertyReadOnly"),
        ((ROOT, PROPERTIES, "Set", "ssv", MANAGER, "Secrets", Variant("s", "")), "UnknownProperty"),
        ((ROOT, PROPERTIES, "Set", "ssv", PROJECT, "Name", Variant("s", "")), "UnknownInterface"),
        ((ROOT, MANAGER, "GetProject", "s", "other"), "io.get2know.RemoBroker1.Error.NoSuchProject"),
        ((ROOT, MANAGER, "GetProject", "s", ""), "io.get2know.RemoBroker1.Error.NoSuchProject"),
    ],
)
def test_errors(call: tuple[Any, ...], error: str) -> None:
    assert ask(known(), *call) == error


def test_a_body_that_does_not_match_its_signature() -> None:
    fields = {"path": ROOT, "interface": MANAGER, "member": "GetProject", "destination": ":1.2"}
    call = wire.decode(wire.encode(wire.METHOD_CALL, 1, "s", b"\xff\xff\xff\x7f", **fields))
    assert read(known().answer(call)) == "InvalidArgs"


@pytest.mark.parametrize(
    "call",
    [
        (ROOT, PROPERTIES, "Get", "ss", MANAGER, "SecretCount"),
        (ROOT, PROPERTIES, "GetAll", "s", MANAGER),
        (ROOT, MANAGER, "ListProjects"),
        (ROOT, MANAGER, "GetProject", "s", "myrepo"),
        (ROOT, OBJECT_MANAGER.name, "GetManagedObjects"),
        (f"{ROOT}/project", INTROSPECTABLE.name, "Introspect"),
        (MYREPO, PROPERTIES, "GetAll", "s", PROJECT),
    ],
)
def test_an_unknown_state_is_an_error(call: tuple[Any, ...]) -> None:
    service = Service("")
    assert ask(service, *call) == "io.get2know.RemoBroker1.Error.BrokerUnavailable"
    service.snapshot = known().snapshot
    assert isinstance(ask(service, *call), list)
    service.snapshot = None
    assert ask(service, *call) == "io.get2know.RemoBroker1.Error.BrokerUnavailable"


def test_calls_that_need_no_broker_are_answered_without_one() -> None:
    service = Service("")
    assert ask(service, ROOT, PEER.name, "Ping") == []
    assert ask(service, ROOT, PEER.name, "GetMachineId") == "Failed"
    assert ask(service, ROOT, PROPERTIES, "Set", "ssv", MANAGER, "Version", Variant("s", "3")) == "PropertyReadOnly"
    (xml,) = ask(service, ROOT, INTROSPECTABLE.name, "Introspect")
    assert MANAGER in xml


def test_prepared_replies_follow_the_snapshot() -> None:
    service = known()
    assert len(ask(service, ROOT, OBJECT_MANAGER.name, "GetManagedObjects")[0]) == 2
    service.snapshot = snapshot_of(broker_event())
    assert ask(service, ROOT, OBJECT_MANAGER.name, "GetManagedObjects") == [{}]
    assert ask(service, ROOT, MANAGER, "ListProjects") == [[]]
    assert "myrepo" not in ask(service, f"{ROOT}/project", INTROSPECTABLE.name, "Introspect")[0]


_PATHS = st.sampled_from(["/", "/io", ROOT, f"{ROOT}/project", MYREPO, "/other", f"{ROOT}/project/_", f"{MYREPO}/x"])
_INTERFACES = st.sampled_from(
    ["", MANAGER, PROJECT, PROPERTIES, PEER.name, INTROSPECTABLE.name, OBJECT_MANAGER.name, "a.b"]
)
_MEMBERS = st.sampled_from(
    [
        "Get",
        "GetAll",
        "Set",
        "Ping",
        "GetMachineId",
        "Introspect",
        "GetManagedObjects",
        "ListProjects",
        "GetProject",
        "X",
    ]
)
_SIGNATURES = st.sampled_from(["", "s", "ss", "ssv", "sss", "u", "v", "as", "a{sv}"])


@given(_PATHS, _INTERFACES, _MEMBERS, _SIGNATURES, st.binary(max_size=64), st.booleans())
def test_no_call_raises(path: str, interface: str, member: str, signature: str, body: bytes, informed: bool) -> None:
    service = known() if informed else Service("")
    fields = {"path": path, "interface": interface, "member": member, "destination": ":1.2"}
    answer = service.answer(wire.decode(wire.encode(wire.METHOD_CALL, 1, signature, body, **fields)))
    read(answer)


def test_no_error_repeats_part_of_a_call() -> None:
    errors = [one for one in vars(texts).values() if isinstance(one, Error)]
    assert len(errors) == 10
    answers = [
        known().answer(incoming(path, interface, member, "s", "SENTINEL"))
        for path in (ROOT, MYREPO, "/SENTINEL")
        for interface in (MANAGER, PROPERTIES, "a.SENTINEL")
        for member in ("GetProject", "GetAll", "SENTINEL")
    ]
    assert all(answer in errors or isinstance(answer, Return) for answer in answers)
    assert "SENTINEL" not in FAULT
