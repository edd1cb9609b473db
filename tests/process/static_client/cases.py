"""Cases for both forms of `remo-secret`: values, fields, and replies that break the protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.scripted_peer import NEXT, PONG, Step, allowlist, binary, line, raw_value, ready, value

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 65536
HTTPS = b"protocol=https\nhost=github.com\n\n"


class Case:
    """`scripts` are the peer's, one per connection; with `stdout` None, only the two programs'
    outputs are compared."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *scripts: Sequence[Step],
        status: int = 0,
        stdout: bytes | None = None,
        stdin: bytes = b"",
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.scripts = scripts
        self.status = status
        self.stdout = stdout
        self.stdin = stdin


def answered(*answers: bytes) -> list[Step]:
    """The replies to the ping and to the request."""
    return [NEXT, PONG, *answers]


# --- values ----------------------------------------------------------------------------------------------------------

TEXTS = {
    "plain": "s3cret",
    "empty": "",
    "blank": " ",
    "newline-at-the-end": "a\n",
    "newlines": "a\n\n\nb",
    "control-characters": "".join(map(chr, range(32))) + "\x7f",
    "quotes-and-backslashes": '\\"\\\\/"',
    "latin-1": "naïve \xa0\xad",
    "two-byte-limits": "\x80\u07ff",
    "three-byte-limits": "\u0800\uffff\ufffe\ufffd",
    "around-the-surrogates": "\ud7ff\ue000",
    "four-byte-limits": "\U00010000\U0010ffff",
    "emoji": "\U0001f511",
    "byte-order-mark": "\ufeffx",
    "looks-like-json": '{"a":1}',
    "looks-like-a-bundle": '{"a":"1"}',
    "long": "x" * 60000,
    "long-and-wide": "\u20ac" * 9000,
}
RAW = {
    "every-escape": (rb"\"\\\/\b\f\n\r\t", b'"\\/\b\f\n\r\t'),
    "ascii-as-escape": (rb"\u0041\u007a\u0000", b"Az\0"),
    "capital-hex": (rb"\u00DF\u20AC", "\xdf\u20ac".encode()),
    "pair": (rb"\ud83d\udd11", "\U0001f511".encode()),
    "pair-in-capitals": (rb"\uD83D\uDD11", "\U0001f511".encode()),
    "first-pair": (rb"\ud800\udc00", "\U00010000".encode()),
    "last-pair": (rb"\udbff\udfff", "\U0010ffff".encode()),
    "delete-is-legal": (b"\x7f", b"\x7f"),
    "utf-8-as-it-is": ("\u20ac\U0001f511".encode(), "\u20ac\U0001f511".encode()),
}
HALVES = {
    "high-half": rb"\ud800",
    "low-half": rb"\udc00",
    "halves-reversed": rb"\udc00\ud800",
    "high-half-twice": rb"\ud800\ud800",
    "high-half-then-letter": rb"\ud83dx",
    "half-behind-a-pair": rb"\ud83d\udd11\udd11",
}
# Text that no JSON reader accepts as a string.
NO_STRINGS = {
    "unknown-escape": rb"\x41",
    "short-escape": rb"\u12",
    "escape-with-a-blank": rb"\u 123",
    "escape-with-a-sign": rb"\u+123",
    "escape-with-an-underscore": rb"\u1_23",
    "newline": b"a\tb",
    "nul": b"a\0b",
    "escaped-end": b"a\\",
    "lone-continuation": b"\x80",
    "cut-two": b"\xc3",
    "cut-three": b"\xe2\x82",
    "cut-four": b"\xf0\x9f\x94",
    "overlong-slash": b"\xc0\xaf",
    "overlong-three": b"\xe0\x80\xaf",
    "overlong-four": b"\xf0\x80\x80\xaf",
    "surrogate-in-utf-8": b"\xed\xa0\x80",
    "beyond-unicode": b"\xf4\x90\x80\x80",
    "byte-0xff": b"\xff",
    "latin-1": b"na\xefve",
}

VALUES = [
    *(
        Case(f"get-{name}", ["get", "T"], answered(value(text)), stdout=text.encode(errors="surrogatepass"))
        for name, text in TEXTS.items()
    ),
    *(Case(f"get-raw-{name}", ["get", "T"], answered(raw_value(raw)), stdout=out) for name, (raw, out) in RAW.items()),
    *(
        Case(f"get-{name}", ["get", "T"], answered(raw_value(raw)), status=1, stdout=b"")
        for name, raw in HALVES.items()
    ),
    *(
        Case(f"get-refuses-{name}", ["get", "T"], answered(raw_value(raw)), status=1, stdout=b"")
        for name, raw in NO_STRINGS.items()
    ),
]

BASE64 = {
    "empty": ("", b""),
    "one": ("AA==", b"\0"),
    "two": ("AAE=", b"\0\1"),
    "three": ("AAEC", b"\0\1\2"),
    "every-letter": (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        None,
    ),
    "high": ("////", b"\xff\xff\xff"),
    "spare-bits": ("//==", b"\xff"),
    "long": ("AAAA" * 16000, b"\0" * 48000),
}
NO_BASE64 = {
    "no-padding": "AA",
    "short-padding": "AA=",
    "long-padding": "AAE==",
    "only-padding": "====",
    "padding-first": "=AAA",
    "padding-inside": "AA==AA==",
    "three-paddings": "A===",
    "blank": "AA AA",
    "newline": "AAAA\n",
    "url-letters": "-_-_",
    "beyond-ascii": "AAA\xe4",
    "nul": "AA\0A",
}
BINARIES = [
    *(
        Case(f"get-base64-{name}", ["get", "T"], answered(binary(text)), stdout=content)
        for name, (text, content) in BASE64.items()
    ),
    *(
        Case(f"get-refuses-base64-{name}", ["get", "T"], answered(binary(text)), status=1, stdout=b"")
        for name, text in NO_BASE64.items()
    ),
    Case("get-a-field-of-binary", ["get", "-f", "a", "T"], answered(binary("AAAA")), status=1, stdout=b""),
    Case(
        "get-both-values",
        ["get", "T"],
        answered(line(ok=True, value="a", value_b64="AAEC", ttl_seconds=1, generation=1)),
        stdout=b"\0\1\2",
    ),
]


def field_case(name: str, content: str, status: int, stdout: bytes, field: str = "a") -> Case:
    return Case(f"field-{name}", ["get", "--field", field, "T"], answered(value(content)), status=status, stdout=stdout)


FIELDS = [
    field_case("first", '{"a":"1","b":"2"}', 0, b"1"),
    field_case("second", '{"b":"2","a":"1"}', 0, b"1"),
    field_case("empty", '{"a":""}', 0, b""),
    field_case("with-escapes", r'{"a":"\u20ac\n\"\\"}', 0, '\u20ac\n"\\'.encode()),
    field_case("name-escaped", r'{"\u0061":"1"}', 0, b"1"),
    field_case("twice-the-last-counts", '{"a":"1","b":"2","a":"3"}', 0, b"3"),
    field_case("twice-the-last-is-text", '{"a":1,"\\u0061":"2"}', 0, b"2"),
    field_case("twice-the-last-is-no-text", '{"a":"1","a":2}', 1, b""),
    field_case("twice-with-a-half", r'{"a":"\ud800","b":"1","a":"2"}', 0, b"2"),
    field_case("spaced", ' {"a":"1"}'.strip() + "  \n", 0, b"1"),
    field_case("blanks-inside", '{ "a" : "1" , "b" : "2" }', 0, b"1"),
    field_case("blank-in-front-is-no-bundle", ' {"a":"1"}', 1, b""),
    field_case("missing", '{"b":"1","c":"2"}', 4, b""),
    field_case("missing-of-none", "{}", 4, b""),
    field_case("missing-twice-named-once", '{"b":"1","c":"2","b":"3"}', 4, b""),
    field_case("missing-of-many", json.dumps({f"f{number}": "x" for number in range(30)}), 4, b""),
    field_case("missing-of-twenty", json.dumps({f"f{number}": "x" for number in range(20)}), 4, b""),
    field_case("missing-of-twenty-one", json.dumps({f"f{number}": "x" for number in range(21)}), 4, b""),
    field_case("no-name", '{"b":"1"}', 4, b"", field="no name"),
    field_case("not-ascii", '{"b":"1"}', 4, b"", field="n\u00e4me\u202e"),
    field_case("number-is-no-bundle", '{"a":1}', 1, b""),
    field_case("nested-is-no-bundle", '{"a":{"b":"1"}}', 1, b""),
    field_case("null-is-no-bundle", '{"a":"1","b":null}', 1, b""),
    field_case("odd-name-is-no-bundle", '{"a":"1","b c":"2"}', 1, b""),
    field_case("empty-name-is-no-bundle", '{"a":"1","":"2"}', 1, b""),
    field_case("longest-name", json.dumps({"a": "1", "b" * 128: "2"}), 0, b"1"),
    field_case("too-long-name-is-no-bundle", json.dumps({"a": "1", "b" * 129: "2"}), 1, b""),
    field_case("half-is-no-bundle", r'{"a":"\ud800"}', 1, b""),
    field_case("list-is-no-bundle", '["a"]', 1, b""),
    field_case("string-is-no-bundle", '"a"', 1, b""),
    field_case("cut-is-no-bundle", '{"a":"1"', 1, b""),
    field_case("more-behind-is-no-bundle", '{"a":"1"}x', 1, b""),
    field_case("trailing-comma-is-no-bundle", '{"a":"1",}', 1, b""),
    field_case("plain-is-no-bundle", "s3cret", 1, b""),
    field_case("brace-is-no-bundle", "{", 1, b""),
]

# --- nesting -----------------------------------------------------------------------------------------------------------


def nested(depth: int, sign: str = "[") -> str:
    """A value with that many levels."""
    opened, closed = {"[": ("[", "]"), "{": ('{"a":', "}")}[sign]
    return opened * (depth - 1) + (f"{sign}{closed[-1]}") + closed * (depth - 1)


def nested_case(depth: int, sign: str, status: int) -> Case:
    """The reply itself is one level."""
    reply = f'{{"ok":true,"value":"x","ttl_seconds":1,"generation":1,"more":{nested(depth - 1, sign)}}}\n'
    return Case(f"nested-{depth}-of-{sign}", ["get", "T"], answered(reply.encode()), status=status)


NESTED = [
    *(nested_case(depth, sign, 0) for depth in (2, 511, 512) for sign in "[{"),
    *(nested_case(depth, sign, 1) for depth in (513, 600, 900, 990, 1100) for sign in "[{"),
    Case("many-brackets", ["get", "T"], answered(value('[{"\\\\' * 2000)), stdout=b'[{"\\\\' * 2000),
    Case("many-lists", ["list"], answered(line(ok=True, project="p", allowlist=[], schema_version=1, x=[[]] * 2000))),
    field_case("deep-but-the-last-counts", f'{{"a":{nested(512)},"a":"1"}}', 1, b""),
    field_case("less-deep-and-the-last-counts", f'{{"a":{nested(511)},"a":"1"}}', 0, b"1"),
]

# --- replies that break the protocol ---------------------------------------------------------------------------------

GET_OK = value("x")
BROKEN: dict[str, bytes] = {
    "empty-line": b"\n",
    "blank-line": b"  \t\n",
    "word": b"hello\n",
    "http": b"HTTP/1.1 400 Bad Request\r\n",
    "number": b"1\n",
    "string": b'"ok"\n',
    "null": b"null\n",
    "array": b'["ok",true]\n',
    "empty-object": b"{}\n",
    "ok-is-one": b'{"ok":1}\n',
    "ok-is-text": b'{"ok":"true"}\n',
    "ok-is-null": b'{"ok":null}\n',
    "ok-is-no-word": b'{"ok":truex}\n',
    "refused-without-code": b'{"ok":false,"message":"x"}\n',
    "refused-without-message": b'{"ok":false,"code":"denied"}\n',
    "code-is-a-number": b'{"ok":false,"code":1,"message":"x"}\n',
    "message-is-null": b'{"ok":false,"code":"denied","message":null}\n',
    "message-is-a-list": b'{"ok":false,"code":"denied","message":["x"]}\n',
    "reason-is-a-number": b'{"ok":false,"code":"denied","message":"x","reason":1}\n',
    "retry-is-text": b'{"ok":false,"code":"denied","message":"x","retry_after_seconds":"1"}\n',
    "retry-is-a-fraction": b'{"ok":false,"code":"denied","message":"x","retry_after_seconds":1.0}\n',
    "retry-is-true": b'{"ok":false,"code":"denied","message":"x","retry_after_seconds":true}\n',
    "two-objects": b"{}{}\n",
    "comma-at-the-end": b'{"ok":true,}\n',
    "comma-first": b'{,"ok":true}\n',
    "no-comma": b'{"ok":true "value":"x"}\n',
    "no-colon": b'{"ok" true}\n',
    "key-without-quotes": b"{ok:true}\n",
    "single-quotes": b"{'ok':true}\n",
    "closed-by-a-bracket": b'{"ok":true]\n',
    "array-closed-by-a-brace": b'{"ok":true,"x":[1}}\n',
    "not-closed": b'{"ok":true\n',
    "closed-twice": b'{"ok":true}}\n',
    "string-not-closed": b'{"ok":true,"value":"x\n',
    "leading-zero": b'{"ok":true,"x":01}\n',
    "plus": b'{"ok":true,"x":+1}\n',
    "minus-alone": b'{"ok":true,"x":-}\n',
    "no-fraction": b'{"ok":true,"x":1.}\n',
    "no-whole": b'{"ok":true,"x":.5}\n',
    "no-exponent": b'{"ok":true,"x":1e}\n',
    "hexadecimal": b'{"ok":true,"x":0x1}\n',
    "comment": b'{"ok":true /* */}\n',
    "python-word": b'{"ok":True}\n',
    "byte-order-mark": b'\xef\xbb\xbf{"ok":true}\n',
    "utf-16": '{"ok":true}'.encode("utf-16-le") + b"\n",
    "utf-32": '{"ok":true}'.encode("utf-32-le") + b"\n",
    "nul": b"\0\n",
    "nul-behind": b'{"ok":true}\0\n',
    "invalid-utf-8-in-a-key": b'{"\xff":1,"ok":true}\n',
    "deep-and-never-closed": b"[" * 30000 + b"\n",
    "deep-objects-never-closed": b'{"a":' * 10000 + b"\n",
    "huge-number-of-digits": b'{"ok":true,"x":' + b"9" * 5000 + b"}\n",
    "escape": b'{"ok":true,"x":"\\x"}\n',
    "newline-first": b"\n{}\n",
    "too-long": b"x" * (LIMIT + 1) + b"\n",
    "too-long-object": b'{"ok":true,"x":"' + b"x" * LIMIT + b'"}\n',
    "one-byte-too-long": b'{"ok":false,"code":"denied","message":"' + b"x" * (LIMIT - 41) + b'"}\n',
    "never-ending": b"x" * (3 * LIMIT),
}
COMMANDS: dict[str, tuple[list[str], bytes]] = {
    "get": (["get", "T"], b""),
    "list": (["list"], b""),
    # No case waits this long: a loaded machine may take so long to answer.
    "wait": (["wait", "--timeout=60"], b""),
    "git": (["git-credential", "get"], HTTPS),
}
BROKEN_REPLIES = [
    Case(f"{command}-{name}", arguments, answered(raw), status=1, stdout=b"", stdin=stdin)
    for command, (arguments, stdin) in COMMANDS.items()
    for name, raw in BROKEN.items()
    if command in ("get", "wait") or len(raw) < 50
]
BROKEN_PINGS = [
    Case(f"greeting-{name}", ["get", "T"], [NEXT, raw, GET_OK], status=1, stdout=b"") for name, raw in BROKEN.items()
]

TYPES = {"text": '"x"', "number": "1", "fraction": "1.5", "true": "true", "null": "null", "list": "[]", "object": "{}"}


def with_field(reply: bytes, field: str, raw: str) -> bytes:
    """`reply` with the JSON `raw` in place of a field's."""
    parts = ",".join(
        f"{json.dumps(name)}:{raw if name == field else json.dumps(content)}"
        for name, content in json.loads(reply).items()
    )
    return f"{{{parts}}}\n".encode()


def without_field(reply: bytes, field: str) -> bytes:
    return line(**{name: content for name, content in json.loads(reply).items() if name != field})


REPLIES: dict[str, tuple[list[str], bytes, dict[str, tuple[str, ...]]]] = {
    "value": (["get", "T"], GET_OK, {"value": ("text",), "ttl_seconds": ("number",), "generation": ("number",)}),
    "expiring": (
        ["get", "T"],
        line(ok=True, value="x", ttl_seconds=1, generation=1, expires_at="2026-12-31T00:00:00Z"),
        {"expires_at": ("text", "null")},
    ),
    "binary": (["get", "T"], binary("AAEC"), {"value_b64": (), "ttl_seconds": ("number",), "generation": ("number",)}),
    "list": (
        ["list"],
        allowlist("A"),
        {"project": ("text",), "allowlist": ("list",), "schema_version": ("number",)},
    ),
    "ready": (["wait", "--timeout=60"], ready(), {"ready": ("true",), "generation": ("number",)}),
}
WRONG_TYPES = [
    Case(
        f"{name}-{field}-is-{kind}",
        arguments,
        answered(with_field(reply, field, raw)),
        status=0 if kind in right else 1,
    )
    for name, (arguments, reply, fields) in REPLIES.items()
    for field, right in fields.items()
    for kind, raw in TYPES.items()
] + [
    Case(f"{name}-without-{field}", arguments, answered(without_field(reply, field)), status=1)
    for name, (arguments, reply, fields) in REPLIES.items()
    for field in fields
    if field not in ("value_b64", "expires_at")
]

REPLIES_OF_ALL_KINDS = [*VALUES, *BINARIES, *FIELDS, *NESTED, *BROKEN_REPLIES, *BROKEN_PINGS, *WRONG_TYPES]
