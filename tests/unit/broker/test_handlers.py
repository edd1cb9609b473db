"""The tables of handlers: an op without a handler is an error when the table is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.broker import operations
from remo_broker.broker.handlers import Unhandled, table
from remo_broker.broker.sockets import project, status
from remo_broker.protocol import codes, ops
from remo_broker.protocol.codes import ADMIN, PROJECT, STATUS
from remo_broker.protocol.ops import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLES: Mapping[str, Mapping[type[Request], object]] = {
    PROJECT: project.HANDLERS,
    ADMIN: operations.HANDLERS,
    STATUS: status.HANDLERS,
}
REQUESTS = {PROJECT: ops.PROJECT_REQUESTS, ADMIN: ops.ADMIN_REQUESTS, STATUS: ops.STATUS_REQUESTS}
CODES = {PROJECT: codes.PROJECT_CODES, ADMIN: codes.ADMIN_CODES, STATUS: codes.ANY_OP_CODES[STATUS]}


@pytest.mark.parametrize("socket", TABLES)
def test_every_op_of_a_socket_has_a_handler_of_its_own(socket: str) -> None:
    assert TABLES[socket].keys() == set(REQUESTS[socket].values())
    handlers = list(TABLES[socket].values())
    assert len(set(handlers)) == len(handlers)


@pytest.mark.parametrize("forgotten", ops.PROJECT_REQUESTS.values(), ids=lambda cls: str(cls.OP))
def test_a_forgotten_handler_is_an_error_that_names_the_op(forgotten: type[Request]) -> None:
    handlers = {cls: object() for cls in ops.PROJECT_REQUESTS.values() if cls is not forgotten}
    with pytest.raises(Unhandled, match=forgotten.OP):
        table(PROJECT, handlers)


def test_a_handler_of_another_sockets_op_is_an_error() -> None:
    handlers: dict[type[Request], object] = dict.fromkeys(ops.PROJECT_REQUESTS.values()) | {ops.Register: None}
    with pytest.raises(Unhandled, match="register"):
        table(PROJECT, handlers)


@pytest.mark.parametrize("socket", TABLES)
def test_an_op_declares_codes_of_its_socket(socket: str) -> None:
    for request in REQUESTS[socket].values():
        assert set(request.CODES) | set(codes.ANY_OP_CODES[socket]) <= set(CODES[socket])


def test_each_op_has_one_class_a_socket() -> None:
    for socket, requests in REQUESTS.items():
        assert [cls.OP for cls in Request.__subclasses__() if socket in cls.SOCKETS] == list(requests)
        assert all(cls.OP and cls.SOCKETS for cls in requests.values())
