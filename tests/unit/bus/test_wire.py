"""Messages to bytes and back, and the guards around dbus-next."""

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
    """A method call as bytes."""
    encoded = wire.encode_body(signature, ["myrepo"] * len(signature)) if body is None else body
    return wire.encode(
        wire.METHOD_CALL, 7, signature, encoded, path=ROOT, interface=MANAGER, member=member, destination=":1.2"
    )


def decode(frame: bytes) -> wire.Incoming:
    return wire.decode(frame)


def test_a_message_survives_a_round_trip() -> None:
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


def test_only_our_calls_expect_a_reply_and_none_activates_a_service() -> None:
    assert call()[2] == 2
    signal = wire.encode(wire.SIGNAL, 8, path=ROOT, interface=MANAGER, member="ProjectAdded")
    assert signal[2] == wire.NO_REPLY_EXPECTED


def test_both_byte_orders_are_read() -> None:
    # Serial 1, no body; one header field: the path "/".
    frame = struct.pack(">cBBBIII", b"B", wire.METHOD_RETURN, 0, 1, 0, 1, 8) + b"\x05\x01u\x00" + struct.pack(">I", 9)
    assert wire.frame_length(frame[:16]) == len(frame)
    assert decode(frame).reply_serial == 9


def test_an_unknown_header_field_is_skipped() -> None:
    """dbus-broker forwards such fields, and a later specification may define more."""
    frame = call()
    at = wire.header_length(frame)
    padded = frame[wire.FIXED_HEADER : at] + b"\xc8\1s\0" + b"\1\0\0\0x\0" + b"\0" * 6
    message = decode(frame[:12] + (len(padded) - 6).to_bytes(4, "little") + padded + frame[at:])
    assert (message.member, message.body()) == ("GetProject", ["myrepo"])


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r", b"\0" * 16, b"l\x01\x00\x02" + b"\0" * 12, b"l\x01\x00\x01" + b"\xff" * 12]
)
def test_non_dbus_data_is_detected_by_its_first_bytes(head: bytes) -> None:
    with pytest.raises(wire.BadMessage):
        wire.frame_length(head)


@pytest.mark.parametrize(
    "frame",
    [
        call()[:-1],
        call()[:20],
        call(signature="s", body=b"\xff\xff\xff\xff"),
        call(signature="s", body=b"\x01\0\0\0\xff\0"),
        # A body that does not match its signature: an array longer than the message, endlessly
        # nested variants.
        call(signature="ai", body=b"\xff\xff\xff\0"),
        call(signature="v", body=b"\x01v\0" * 2000),
        b"l\x09" + call()[2:],
        b"l\x00" + call()[2:],
    ],
)
def test_an_invalid_message_raises_only_bad_message(frame: bytes) -> None:
    with pytest.raises(wire.BadMessage):
        decode(frame).body()


@pytest.mark.parametrize(
    "field", [b"\7\1u\0\5\0\0\0", b"\3\1u\0\5\0\0\0", b"\5\1b\0\1\0\0\0"], ids=["sender", "member", "reply"]
)
def test_a_header_field_of_another_type_raises_only_bad_message(field: bytes) -> None:
    frame = call()
    at = wire.header_length(frame)
    fields = frame[wire.FIXED_HEADER : at] + field
    with pytest.raises(wire.BadMessage):
        decode(frame[:12] + len(fields).to_bytes(4, "little") + fields + frame[at:])


@given(st.data())
def test_arbitrary_bytes_raise_only_bad_message(data: st.DataObject) -> None:
    frame = bytearray(call(signature=data.draw(st.sampled_from(["s", "ss"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(wire.BadMessage):
        decode(bytes(frame)).body()


def test_the_cache_of_signatures_is_bounded() -> None:
    for number in range(5 * wire.MAX_SIGNATURES):
        signature = "".join("iu"[number >> bit & 1] for bit in range(16))
        decode(call(signature=signature, body=b"\0" * 64))
        assert len(SignatureTree._cache) <= wire.MAX_SIGNATURES + 8
