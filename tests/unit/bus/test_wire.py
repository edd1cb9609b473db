"""Messages to bytes and back, and what of dbus-next is kept from harming."""

from __future__ import annotations

import contextlib
import struct

import pytest
from dbus_next.signature import SignatureTree
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.bus import wire
from remo_broker.bus.paths import ROOT
from tests.support.bus import MANAGER


def call(signature: str = "s", body: bytes | None = None, member: str = "GetProject") -> bytes:
    """A method call as it goes out."""
    encoded = wire.encode_body(signature, ["myrepo"] * len(signature)) if body is None else body
    return wire.encode(
        wire.METHOD_CALL, 7, signature, encoded, path=ROOT, interface=MANAGER, member=member, destination=":1.2"
    )


def decode(frame: bytes) -> wire.Incoming:
    return wire.decode(frame)


def test_a_message_comes_back_as_it_went() -> None:
    frame = call()
    assert wire.frame_length(frame[: wire.FIXED_HEADER]) == len(frame)
    message = decode(frame)
    assert (message.kind, message.serial, message.path, message.interface, message.member, message.signature) == (
        wire.METHOD_CALL,
        7,
        ROOT,
        MANAGER,
        "GetProject",
        "s",
    )
    assert message.body() == ["myrepo"]
    assert (message.sender, message.error_name, message.reply_serial) == ("", "", 0)


def test_only_a_call_of_ours_wants_an_answer_and_none_starts_anybody() -> None:
    assert call()[2] == 2
    signal = wire.encode(wire.SIGNAL, 8, path=ROOT, interface=MANAGER, member="ProjectAdded")
    assert signal[2] == wire.NO_REPLY_EXPECTED


def test_the_other_order_of_bytes_is_read_too() -> None:
    # Serial 1, no body; one header field: the path "/".
    frame = struct.pack(">cBBBIII", b"B", wire.METHOD_RETURN, 0, 1, 0, 1, 8) + b"\x05\x01u\x00" + struct.pack(">I", 9)
    assert wire.frame_length(frame[:16]) == len(frame)
    assert decode(frame).reply_serial == 9


def test_a_header_field_that_is_not_known_is_left_out() -> None:
    """dbus-broker hands such on. The bus's own specification may have more of them some day."""
    frame = call()
    at = wire.header_length(frame)
    padded = frame[wire.FIXED_HEADER : at] + b"\xc8\1s\0" + b"\1\0\0\0x\0" + b"\0" * 6
    message = decode(frame[:12] + (len(padded) - 6).to_bytes(4, "little") + padded + frame[at:])
    assert (message.member, message.body()) == ("GetProject", ["myrepo"])


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r", b"\0" * 16, b"l\x01\x00\x02" + b"\0" * 12, b"l\x01\x00\x01" + b"\xff" * 12]
)
def test_what_is_not_dbus_is_seen_by_its_first_bytes(head: bytes) -> None:
    with pytest.raises(wire.BadMessage):
        wire.frame_length(head)


@pytest.mark.parametrize(
    "frame",
    [
        call()[:-1],
        call()[:20],
        call(signature="s", body=b"\xff\xff\xff\xff"),
        call(signature="s", body=b"\x01\0\0\0\xff\0"),
        # A body that is another than its signature says: an array longer than the message, variants
        # in variants for ever.
        call(signature="ai", body=b"\xff\xff\xff\0"),
        call(signature="v", body=b"\x01v\0" * 2000),
        b"l\x09" + call()[2:],
        b"l\x00" + call()[2:],
    ],
)
def test_a_bad_message_is_that_and_nothing_else(frame: bytes) -> None:
    with pytest.raises(wire.BadMessage):
        decode(frame).body()


@given(st.data())
def test_no_bytes_do_any_harm(data: st.DataObject) -> None:
    frame = bytearray(call(signature=data.draw(st.sampled_from(["s", "ss"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(wire.BadMessage):
        decode(bytes(frame)).body()


def test_signatures_of_strangers_do_not_stay() -> None:
    for number in range(5 * wire.MAX_SIGNATURES):
        signature = "".join("iu"[number >> bit & 1] for bit in range(16))
        decode(call(signature=signature, body=b"\0" * 64))
        assert len(SignatureTree._cache) <= wire.MAX_SIGNATURES + 8
