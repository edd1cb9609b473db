"""Connections with passed descriptors in their receive queues."""

from __future__ import annotations

import _socket
import array
import os
import socket
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.passed_descriptors import take_out
from tests.support.slow_descriptor import require_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

# The largest buffer that the kernel's default settings allow.
BUFFER = 212_992


def send_descriptor(one: _socket.socket, flags: int = 0) -> int:
    """Send the read end of a pipe and keep none. Returns the write end."""
    read_end, write_end = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read_end]))]
    one.sendmsg([b"x"], rights, flags)  # send_fds ignores flags
    os.close(read_end)
    return write_end


def alone(one: _socket.socket) -> int:
    return send_descriptor(one)


def behind_a_long_queue(one: _socket.socket) -> int:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    one.send(b"x" * 300_000)
    return send_descriptor(one)


def with_out_of_band_data(one: _socket.socket) -> int:
    return send_descriptor(one, socket.MSG_OOB)


def behind_out_of_band_data(one: _socket.socket) -> int:
    one.send(b"x")
    one.send(b"x", socket.MSG_OOB)
    return send_descriptor(one)


@pytest.mark.parametrize("send", [alone, behind_a_long_queue, with_out_of_band_data, behind_out_of_band_data])
def test_a_connection_with_a_descriptor_is_ended_and_closes_none(send: Callable[[_socket.socket], int]) -> None:
    require_refusal()
    client, connection = _socket.socketpair()
    kept = connection.fileno()
    write_end = send(client)
    try:
        assert take_out(connection)
        assert os.write(write_end, b"x") == 1
        assert client.recv(1) == b""
    finally:
        client.close()
        os.close(write_end)
        os.close(kept)


@pytest.mark.parametrize("data", [b"", b"x" * 150_000])
def test_a_connection_without_a_descriptor_is_left_unchanged(data: bytes) -> None:
    require_refusal()
    client, connection = socket.socketpair()
    with client, connection:
        client.send(data)
        client.send(b"!", socket.MSG_OOB)
        assert not take_out(connection)
        client.shutdown(socket.SHUT_WR)
        received = bytearray()
        while some := connection.recv(1 << 20):
            received += some
        assert received == data
