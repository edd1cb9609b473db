"""The streams to begin with: short ones are files of the corpus, long ones are made here."""

from __future__ import annotations

import json
import pathlib

from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH

CORPUS = pathlib.Path(__file__).with_name("corpus")
KINDS = ("project", "admin", "status")

_PING, _STATUS = b'{"op":"ping"}\n', b'{"op":"status"}\n'


def _line(**fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _padded(size: int, **fields: object) -> bytes:
    """A line of `size` bytes, newline included."""
    return _line(**fields, x="x" * (size - len(_line(**fields, x=""))))


LONG = {
    "project": {
        "longest": _padded(MAX_MESSAGE, op="ping") + _PING,
        "too long": _padded(MAX_MESSAGE + 1, op="ping") + _PING,
        "too long without a newline": b"x" * (MAX_MESSAGE + 1),
        "longest without a newline": _padded(MAX_MESSAGE, op="ping")[:-1],
        "pipelined": (_PING + _line(op="get", name="TOKEN")) * 1000,
        "pipelined garbage": b"{\n" * 2000,
        "numbers": b'{"op":"ping","x":[' + b"1," * 20_000 + b"1]}\n" + _PING,
        "numbers at the end": _PING * 20 + b'{"op":"ping","x":[' + b"1," * 20_000 + b"1]}",
        "keys": _line(op="ping", **{f"k{number}": number for number in range(4000)}),
        "digits": b'{"op":"ping","x":' + b"9" * 5000 + b"}\n",
        "escapes": b'{"op":"ping","x":"' + b"\\u00e9\\ud83d\\ude00\\n" * 2000 + b'"}\n',
        "blanks": b" " * 60_000 + _PING,
        "brackets": b"[" * 60_000 + b"\n" + _PING,
    },
    "admin": {
        "longest push": _line(op="push-creds", secrets={f"S{number}": "v" * 50_000 for number in range(20)}),
        "too long push": _line(op="push-creds", secrets={f"S{number}": "v" * 50_000 for number in range(21)}) + _STATUS,
        "many secrets": _line(op="push-creds", secrets={f"S{number}": "v" * 10 for number in range(20_000)}),
        "longest value": _line(op="push-creds", secrets={"A": "x" * 65_460}),
        "too long value": _line(op="push-creds", secrets={"A": "x" * 65_536}) + _STATUS,
        "quotes in bundles": _line(op="push-creds", secrets={"A": {"b": '"\\' * 5000}, "B": {"b": '"x' * 5000}}),
        "no newline": b" " * MAX_PUSH,
        "too long without a newline": b" " * (MAX_PUSH + 1),
        "escapes": b'{"op":"push-creds","secrets":{"A":"' + b"\\n" * 500_000 + b'"}}\n',
        "too long for what it is": _padded(70_000, op="status") + _STATUS,
        "push behind push": _line(op="push-creds", secrets={f"S{number}": "v" * 9000 for number in range(30)}) * 3
        + _STATUS,
    },
    "status": {"pages": _STATUS * 300, "too long": b"x" * 70_000},
}


def streams(kind: str) -> dict[str, bytes]:
    files = {file.name: file.read_bytes() for file in sorted((CORPUS / kind).iterdir())}
    return files | LONG[kind]
