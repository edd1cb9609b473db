"""Lines that a strict parser must reject, with the broker's reason.

No reply may contain `MARKER`.
"""

from __future__ import annotations

MARKER = "zqMarkerqz"

_M = MARKER.encode()


def nested(levels: int) -> bytes:
    """Well-formed JSON with this many levels of nesting."""
    return b'{"op":"ping","x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \t\r",
    "words": _M,
    "cut short": b'{"op":"ping","' + _M,
    "cut in a string": b'{"op":"' + _M,
    "cut after a colon": b'{"op":',
    "two values": b'{"op":"ping"} {"op":"' + _M + b'"}',
    "garbage behind": b'{"op":"ping"}' + _M,
    "trailing comma": b'{"op":"ping",}',
    "trailing comma in an array": b'{"op":"ping","x":["' + _M + b'",]}',
    "no comma": b'{"op":"ping" "x":"' + _M + b'"}',
    "no colon": b'{"op" "ping"}',
    "no value": b'{"op":"ping","x":}',
    "wrong bracket": b'{"op":"ping","x":[1}',
    "other wrong bracket": b'{"op":"ping"]',
    "single quotes": b"{'op':'" + _M + b"'}",
    "key without quotes": b'{op:"' + _M + b'"}',
    "comment": b'{"op":"ping"} // ' + _M,
    "NaN": b'{"op":"ping","x":NaN}',
    "Infinity": b'{"op":"ping","x":Infinity}',
    "-Infinity": b'{"op":"ping","x":-Infinity}',
    "leading zero": b'{"op":"ping","x":01}',
    "plus": b'{"op":"ping","x":+1}',
    "no fraction": b'{"op":"ping","x":1.}',
    "no exponent": b'{"op":"ping","x":1e}',
    "hexadecimal": b'{"op":"ping","x":0x10}',
    "True": b'{"op":"ping","x":True}',
    "byte-order mark": b'\xef\xbb\xbf{"op":"ping"}',
    "UTF-16": '{"op":"ping"}'.encode("utf-16-le"),
    "NUL": b'{"op":"ping"}\0',
    "tab in a string": b'{"op":"ping","x":"\t' + _M + b'"}',
    "NUL in a string": b'{"op":"ping","x":"\0' + _M + b'"}',
    "bad escape": b'{"op":"ping","x":"\\x41' + _M + b'"}',
    "short escape": b'{"op":"ping","x":"\\u12"}',
    "byte 0xff": b'{"op":"ping","x":"\xff' + _M + b'"}',
    "lone continuation byte": b'{"op":"ping","x":"\x80"}',
    "overlong slash": b'{"op":"ping","x":"\xc0\xaf"}',
    "overlong of three": b'{"op":"ping","x":"\xe0\x80\xaf"}',
    "cut sequence": b'{"op":"ping","x":"\xe2\x82"}',
    # Python before 3.11.5 accepts these if a pattern repeats a group possessively (gh-106052).
    "cut sequence of two": b'{"op":"ping","x":"\xc3"}',
    "cut sequence of four": b'{"op":"ping","x":"\xf1"}',
    "cut sequence of four in a key": b'{"op":"ping","\xf1":1}',
    "cut pair of surrogates": b'{"op":"ping","x":"\\ud83d\\ude0"}',
    "beyond Unicode": b'{"op":"ping","x":"\xf4\x90\x80\x80"}',
    "surrogate in UTF-8": b'{"op":"ping","x":"\xed\xa0\x80"}',
    "invalid UTF-8 in a key": b'{"op":"ping","\xff":1}',
    "lone high surrogate": b'{"op":"ping","x":"\\ud800"}',
    "lone low surrogate": b'{"op":"ping","x":"\\udc00' + _M + b'"}',
    "surrogates reversed": b'{"op":"ping","x":"\\udc00\\ud800"}',
    "high surrogate twice": b'{"op":"ping","x":"\\ud800\\ud800"}',
    "lone surrogate in a key": b'{"op":"ping","\\ud83d":1}',
}
"""The broker replies `protocol_error` with the reason `invalid_json`."""

REFUSED: dict[str, tuple[bytes, str]] = {
    **{name: (line, "invalid_json") for name, line in NOT_JSON.items()},
    "array": (b'["' + _M + b'"]', "not_an_object"),
    "string": (b'"' + _M + b'"', "not_an_object"),
    "number": (b"8273648", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "17 levels": (nested(17), "too_deep"),
    "1000 levels, never closed": (b"[" * 1000, "too_deep"),
    "key twice": (b'{"op":"ping","' + _M + b'":1,"' + _M + b'":2}', "duplicate_key"),
    "key twice, once escaped": (b'{"op":"ping","x":1,"\\u0078":2}', "duplicate_key"),
    "key twice, further in": (b'{"op":"ping","x":[{"y":{"z":1,"z":1}}]}', "duplicate_key"),
    "op twice": (b'{"op":"ping","op":"ping"}', "duplicate_key"),
    "no op": (b'{"name":"' + _M + b'"}', "missing_field"),
    "empty object": (b"{}", "missing_field"),
    "op a number": (b'{"op":1}', "wrong_type"),
    "op null": (b'{"op":null}', "wrong_type"),
    "op a list": (b'{"op":["ping"]}', "wrong_type"),
    "unknown op": (b'{"op":"' + _M + b'"}', "unknown_op"),
    "op in capitals": (b'{"op":"PING"}', "unknown_op"),
    "version 1 op": (b'{"op":"rotate-bootstrap","token":"' + _M + b'"}', "unknown_op"),
}
"""Every socket replies `protocol_error` with the given reason; the connection stays usable."""
