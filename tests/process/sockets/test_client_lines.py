"""Lines as answered by version 0.1.0 of the broker, which its clients may rely on.

Version 0.1.0 was given the same lines, each with a newline and with the end of the stream instead.
Intended differences (duplicate keys, deep nesting, numbers beyond a double) are among the refused
lines of `support.lines`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Link

if TYPE_CHECKING:
    from tests.support.broker import Broker

_NAME = b'"name":"GITHUB_TOKEN"'

# A line, and the code of its reply; None if it succeeds.
LINES: dict[str, tuple[bytes, str | None]] = {
    "get": (b'{"op":"get",' + _NAME + b"}", None),
    "the other order": (b"{" + _NAME + b',"op":"get"}', None),
    "spaces": (b' { "op" : "get" , ' + _NAME + b" } ", None),
    "tabs": (b'\t{"op":"get",\t' + _NAME + b"}\t", None),
    "a carriage return before the newline": (b'{"op":"get",' + _NAME + b"}\r", None),
    "escapes": (b'{"\\u006fp":"g\\u0065t","name":"\\u0047ITHUB_TOKEN"}', None),
    "an unknown field": (b'{"op":"get",' + _NAME + b',"x":1}', None),
    "an unknown field with more in it": (b'{"op":"get",' + _NAME + b',"x":{"y":[1,2,{"z":null}]}}', None),
    "an unknown field of an op without any": (b'{"op":"ping",' + _NAME + b"}", None),
    "a long number": (b'{"op":"ping","x":' + b"9" * 30 + b"}", None),
    "minus zero": (b'{"op":"ping","x":-0}', None),
    "an exponent": (b'{"op":"ping","x":1E+2}', None),
    "a character beyond the first plane": ('{"op":"ping","x":"😀"}'.encode(), None),
    "the same as a pair of escapes": (b'{"op":"ping","x":"\\ud83d\\ude00"}', None),
    "DEL": (b'{"op":"ping","x":"\x7f"}', None),
    "sixty thousand bytes": (b'{"op":"ping","x":"' + b"a" * 60_000 + b'"}', None),
    "info": (b'{"op":"info"}', None),
    "a name that is not in the manifest": (b'{"op":"get","name":"NOPE"}', "denied"),
    "the name in other letters": (b'{"op":"get","name":"github_token"}', "denied"),
    "an empty name": (b'{"op":"get","name":""}', "denied"),
    "a space behind the name": (b'{"op":"get","name":"GITHUB_TOKEN "}', "denied"),
    "a newline behind the name": (b'{"op":"get","name":"GITHUB_TOKEN\\n"}', "denied"),
    "a NUL behind the name": (b'{"op":"get","name":"GITHUB_TOKEN\\u0000"}', "denied"),
    "a path": (b'{"op":"get","name":"../GITHUB_TOKEN"}', "denied"),
    "a letter that is no ASCII": ('{"op":"get","name":"é"}'.encode(), "denied"),
    "a long name": (b'{"op":"get","name":"' + b"A" * 200 + b'"}', "denied"),
    "no name": (b'{"op":"get"}', "protocol_error"),
    "a name that is a number": (b'{"op":"get","name":1}', "protocol_error"),
    "a name that is null": (b'{"op":"get","name":null}', "protocol_error"),
    "a name that is a list": (b'{"op":"get","name":["GITHUB_TOKEN"]}', "protocol_error"),
    "the name twice": (b'{"op":"get",' + _NAME + b"," + _NAME + b"}", "protocol_error"),
    "an op of operators": (b'{"op":"status"}', "protocol_error"),
    "a push": (b'{"op":"push-creds","secrets":{}}', "protocol_error"),
    "a form feed": (b'\x0c{"op":"ping"}', "protocol_error"),
    "a space that is no ASCII": (b'\xc2\xa0{"op":"ping"}', "protocol_error"),
}


@pytest.mark.parametrize("name", LINES)
def test_replies_are_those_of_version_0_1_0(shared: Broker, name: str) -> None:
    line, code = LINES[name]
    for whole in (True, False):
        with Link(shared.project()) as link:
            link.send(line + b"\n" if whole else line)
            if not whole:
                link.say_no_more()
            reply = link.reply()
        assert reply.get("code") == code
        assert reply["ok"] is (code is None)
