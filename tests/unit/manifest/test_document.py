"""From bytes to tables: invalid TOML, and TOML made to be expensive."""

from __future__ import annotations

import re
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.manifest import ManifestError
from remo_broker.manifest.constants import MAX_BYTES, MAX_KEY_PARTS, MAX_NESTING
from remo_broker.manifest.document import parse
from remo_broker.protocol.codes import Code

# The deadline of the child that reads manifests is 1.5 s; an immediate refusal takes some
# hundredths.
AT_ONCE = 0.75


def refusal(content: bytes | str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse(content.encode() if isinstance(content, str) else content)
    error = caught.value
    assert error.code is Code.MANIFEST_INVALID
    assert error.key is None
    assert error.__context__ is None or error.__suppress_context__, "what tomllib says shows the file"
    assert re.fullmatch(r"[ -~]{1,200}", error.message)
    return error.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = 1\nb = \xff\n", "not UTF-8 at byte 10"),
        (b"a = 1\nb\n", "not TOML at line 2, column 2;"),
        (b"a = 1\na = 2\n", "not TOML at line 2, column 6;"),
        (b"[a]\n[a]\n", "not TOML at line 2, column 3;"),
        (b"a = {b = 1, b = 2}\n", "not TOML at line 1, column 18;"),
        (b"a = {}\na.b = 1\n", "not TOML at line 2, column 8;"),
        (b"[a\n", "not TOML at line 1, column 3;"),
        (b"a = 1 2\n", "not TOML at line 1, column 7;"),
        (b"a = [1, 2\n", "not TOML at the end of the document;"),
        (b"a = {b = 1; c = 2}\n", "not TOML at line 1, column 11;"),
        (b'a = "hunter2', "not TOML at the end of the document;"),
        (b"a = 'hunter2", "not TOML at the end of the document;"),
        (b"a = '''hunter2", "not TOML at the end of the document;"),
        (b'a = "\\q"', "not TOML at line 1, column 8;"),
        (b'a = "\\u00"', "not TOML at line 1, column 8;"),
        (b'a = "\\ud800"', "not TOML at line 1, column 12;"),
        (b'a = "\x1b[31m"', "not TOML at line 1, column 6;"),
        (b"# \x07\n", "not TOML at line 1, column 3;"),
        (b"a = 0000-01-01", "not TOML at line 1, column 5;"),
        (b"a = hunter2", "not TOML at line 1, column 5;"),
        (b"a =", "not TOML at the end of the document;"),
        (b"= 1", "not TOML at line 1, column 1;"),
        (b"a. = 1", "not TOML at line 1, column 4;"),
        (b"a = 1\x00", "not TOML at line 1, column 6;"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "not TOML at line 1, column 5;"),
        (b"-----BEGIN PRIVATE KEY-----\nMIIE\n", "not TOML at line 1, column 12;"),
    ],
)
def test_the_place_of_a_syntax_error_is_given(content: bytes, says: str) -> None:
    message = refusal(content)
    assert says in message
    assert "hunter2" not in message
    assert "root:x" not in message
    assert "MIIE" not in message


BOMBS = {
    "a dotted key of 64 KiB": ("a." * 32_000 + "a = 1", f"a key in line 1 has more than {MAX_KEY_PARTS} parts"),
    "a dotted key with spaces": ("\na" + " . a" * 16_000 + " = 1", "a key in line 2 has more than"),
    "a dotted key in quotes": ('"a".' * 16_000 + "a = 1", "a key in line 1 has more than"),
    "a dotted key behind an odd string": ('x = """"a"""""\n' + "a." * 30_000, "a key in line 2 has more than"),
    "a dotted key behind an escaped quote": ('x = """\\""""\n' + "a." * 30_000, "a key in line 2 has more than"),
    "a dotted table name": ("[" + "a." * 32_000 + "a]", "a key in line 1 has more than"),
    "a dotted key in braces": ("x = {" + "a." * 32_000 + "a = 1}", "a key in line 1 has more than"),
    "lists in lists": ("a = " + "[" * 60_000, f"deeper than {MAX_NESTING}"),
    "tables in tables": ("a = " + "{a = " * 12_000, f"deeper than {MAX_NESTING}"),
    "5,000 digits": ("a = " + "9" * 5_000, "a number or a date is out of range"),
    "strings that never end": ('a = """\n' + '\\"""\n' * 13_000, "not TOML at"),
    "literal strings that never end": ("a = '''\n" + "''\n" * 20_000, "not TOML at"),
    "a string cut short": ('a = "' + '\\"' * 30_000, "not TOML at"),
    "60,000 digits": ("a = -" + "1_" * 30_000 + "1", "a number or a date is out of range"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_costly_document_is_refused_at_once(name: str) -> None:
    content, says = BOMBS[name]
    began = time.process_time()
    assert says in refusal(content)
    assert time.process_time() - began < AT_ONCE


def fill(line: str) -> str:
    """64 KiB of one line, repeated with a different number each time."""
    lines: list[str] = []
    size = 0
    while True:
        text = line.replace("%", str(len(lines)))
        size += len(text)
        if size > MAX_BYTES:
            return "".join(lines)
        lines.append(text)


@pytest.mark.parametrize(
    "content",
    [
        fill("a.b.c.d.e.f.g.k% = 1\n"),
        fill("k%.b.c.d.e.f.g.h = 1\n"),
        fill("[a.b.c.d.e.f.g.t%]\n"),
        fill("[[a]]\n[[a.b]]\nc.d = 1\n"),
        "a = [" + "[],\n" * 16_000 + "]",
        "a = [" + "{a = {a = {}}}," * 4_000 + "]",
        "a = [" + "#\n" * 32_000 + "]",
        'a = """' + "\\\n \n" * 16_000 + '"""',
        'a = """' + '"" ' * 21_000 + '"""',
        'a = "' + "\\n" * 32_000 + '"',
        "a = 0x" + "f" * 65_000,
        "a = 1." + "1" * 65_000,
        fill('"%"."%"."%" = 2020-01-01T00:00:00.111111111111111Z\n'),
        "\n" * MAX_BYTES,
    ],
)
def test_the_most_expensive_legal_document_is_read_in_time(content: str) -> None:
    began = time.process_time()
    parse(content.encode())
    assert time.process_time() - began < AT_ONCE


@pytest.mark.parametrize(
    "content",
    [
        "a.b.c.d.e.f.g.h = 1",
        'a = "1.2.3.4.5.6.7.8.9.10"',
        "a = '1.2.3.4.5.6.7.8.9.10'",
        "a = '''\n1.2.3.4.5.6.7.8.9.10'''",
        'a = """\n1.2.3.4.5.6.7.8.9.10"""',
        "# 1.2.3.4.5.6.7.8.9.10",
        "a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]",
        'a = "[[[[[[[[[["',
        "a = [[[[[[[[]]]]]]]]",
        'a = """\\"""[[[[[[[[[["""',
        "a = '''''[[[[[[[[[['''",
        'a = """[[[[[[[[[["""""',
        'a = "\\\\"\nb = "[[[[[[[[[["',
        "a = '''x'''' # it's 1.2.3.4.5.6.7.8.9.10",
        'a = """x"""" # 3" or 1.2.3.4.5.6.7.8.9.10',
    ],
)
def test_a_document_that_only_looks_expensive_is_read(content: str) -> None:
    assert parse(content.encode()) == tomllib.loads(content)


@pytest.mark.parametrize("content", ["a = " + "[" * 9 + "]" * 9, "a.b.c.d.e.f.g.h.i = 1"])
def test_one_more_than_the_limit_is_refused(content: str) -> None:
    tomllib.loads(content)
    refusal(content)


pieces = st.sampled_from(
    ['"', "'", '"""', "'''", "\\", '\\"', "\n", "#", "=", ".", ",", "[", "]", "{", "}", "a", "b = 1", " ", "1.5", '"x"']
)


def attempt(content: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """The tables, or the error line."""
    try:
        return parse(content), None
    except ManifestError as error:
        message = error.message
    assert re.fullmatch(r"[ -~]{1,200}", message)
    return None, message


@given(st.lists(pieces, max_size=60).map("".join))
def test_any_text_is_read_as_tomllib_reads_it_or_refused(text: str) -> None:
    """The preliminary check agrees with tomllib on where strings end, and refuses only what is not
    TOML or too deep."""
    expected: dict[str, Any] | None
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        expected = None
    tables, message = attempt(text.encode())
    if message is None:
        assert tables == expected
    else:
        assert expected is None or "deeper than" in message or "more than 8 parts" in message


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes) -> None:
    attempt(content)


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    assert parse(b"\xef\xbb\xbfschema_version = 1\n") == {"schema_version": 1}
