"""The scanner: strict JSON by spans, compared with the `json` module on arbitrary input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.strict_json import (
    ARRAY,
    ARRAY_DEPTH,
    LITERAL,
    NUMBER,
    OBJECT,
    OBJECT_DEPTH,
    STEP_BUDGET,
    STRING,
    STRING_STEP,
    finish,
    forget,
    scan,
    text,
)
from remo_broker.protocol.codes import Reason
from remo_broker.protocol.shared_limits import MAX_DEPTH
from tests.support.lines import MARKER, NOT_JSON, REFUSED, nested

if TYPE_CHECKING:
    from remo_broker.broker.secrets.strict_json import Buffer, Node

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


def value_of(data: Buffer, node: Node) -> Any:
    """The value of a node, read through its spans only."""
    kind, start, end, children = node
    literal = bytes(data[start:end])
    if kind == OBJECT:
        assert literal[:1] + literal[-1:] == b"{}"
        return {key: value_of(data, child) for key, child in children.items()}
    if kind == ARRAY:
        assert literal[:1] + literal[-1:] == b"[]"
        return [value_of(data, child) for child in children]
    assert children is None
    assert kind in (STRING, NUMBER, LITERAL)
    assert (kind == STRING) == literal.startswith(b'"')
    assert (kind == LITERAL) == (literal in (b"true", b"false", b"null"))
    if kind == STRING:
        assert text(data, start, end) == json.loads(literal)
    return json.loads(literal)


def read(data: bytes) -> Any:
    return value_of(data, finish(scan(data, 0, len(data))))


def kept(value: Any, depth: int = 1) -> Any:
    """What the scanner keeps of a value: see `strict_json`."""
    if isinstance(value, dict):
        return {key: kept(item, depth + 1) for key, item in value.items()} if depth <= OBJECT_DEPTH else {}
    if isinstance(value, list):
        return [kept(item, depth + 1) for item in value] if depth == ARRAY_DEPTH else []
    return value


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as raised:
        finish(scan(data, 0, len(data)))
    return raised.value


def strict(data: bytes) -> Any:
    """The same rules, implemented with `json`. Raises ValueError."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) != len(items):
            raise ValueError
        return dict(items)

    def constant(_: str) -> Any:
        raise ValueError

    def check(value: Any, levels: int) -> None:
        if isinstance(value, str):
            value.encode("utf-8")  # a lone surrogate cannot be
        elif isinstance(value, dict):
            for key, item in value.items():
                check(key, levels)
                check(item, levels - 1)
        elif isinstance(value, list):
            for item in value:
                check(item, levels - 1)
        if isinstance(value, dict | list) and not levels:
            raise ValueError

    value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    check(value, MAX_DEPTH)
    return value


@settings(deadline=None)
@given(values, st.booleans(), st.sampled_from([None, 0, 1, "\t"]), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_reads_what_json_writes(value: Any, ascii_only: bool, indent: Any, separators: tuple[str, str]) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()
    assert read(data) == kept(value)
    assert read(b" \r\n\t" + data + b"\t ") == kept(value)


@settings(deadline=None, max_examples=250)
@given(values, st.data())
def test_agrees_with_json_on_nearly_valid_text(value: Any, draw: st.DataObject) -> None:
    data = bytearray(json.dumps(value, ensure_ascii=draw.draw(st.booleans())).encode())
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data)))
        cut = draw.draw(st.integers(0, 3))
        data[at : at + cut] = draw.draw(
            st.sampled_from([*b'"\\{}[],:0-.eEtfnul \x00\x1f\x7f\x80\xc0\xed\xff/']).map(lambda one: bytes([one]))
            | st.just(b"")
            | st.sampled_from([b"\\u", b"\\ud800", b"\\udc00", b'"a":', b"NaN"])
        )
    try:
        wanted = strict(bytes(data))
    except ValueError:
        refusal(bytes(data))
    else:
        assert read(bytes(data)) == kept(wanted)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        wanted = strict(data)
    except (ValueError, RecursionError):
        assert refusal(data).code == "protocol_error"
    else:
        assert read(data) == kept(wanted)


@pytest.mark.parametrize("name", NOT_JSON)
def test_strictness(name: str) -> None:
    refused = refusal(NOT_JSON[name])
    assert refused.reason is Reason.INVALID_JSON
    assert not refused.fatal
    assert MARKER not in refused.message


@pytest.mark.parametrize(
    "name", [name for name, (_, reason) in REFUSED.items() if reason in ("too_deep", "duplicate_key")]
)
def test_depth_and_duplicates(name: str) -> None:
    line, reason = REFUSED[name]
    refused = refusal(line)
    assert refused.reason == reason
    assert MARKER not in refused.message


def test_the_deepest_that_is_read() -> None:
    read(nested(MAX_DEPTH))
    assert refusal(nested(MAX_DEPTH + 1)).reason is Reason.TOO_DEEP
    wide = b"[" * (MAX_DEPTH - 1) + b",".join([b"{}", b"[]"] * 500) + b"]" * (MAX_DEPTH - 1)
    read(wide)


SAMPLE = (
    '{"op":"push-creds","secrets":{"A":"\\u00e9\\"\\\\","b":{"k":"☃","l":""},"n":-1.5e+3},'
    '"t":[true,false,null,[],{}],"é":"\\ud83d\\ude00"}'
).encode()


def test_every_truncated_message_is_refused() -> None:
    read(SAMPLE)
    for length in range(len(SAMPLE)):
        refusal(SAMPLE[:length])


def test_only_text_between_the_offsets_is_read() -> None:
    for before, after in ((b"", b"}"), (b'{"a":', b'"'), (b"\xff" * 7, b"\xff"), (b" " * 9, b" x")):
        data = before + SAMPLE + after
        node = finish(scan(memoryview(data), len(before), len(before) + len(SAMPLE)))
        assert node[1:3] == (len(before), len(before) + len(SAMPLE))
        assert value_of(memoryview(data), node) == json.loads(SAMPLE)


def steps(data: bytes) -> int:
    count = 0
    for _ in scan(data, 0, len(data)):
        count += 1
    return count


@pytest.mark.parametrize(
    "document",
    [
        {f"NAME_{number}": "value" for number in range(5000)},
        {f"NAME_{number}": "\\" for number in range(5000)},
        {f"é{number}": number for number in range(5000)},
        list(range(5000)),
        [[]] * 5000,
        [{}] * 5000,
        {"a": [{"b": {"c": str(number)}} for number in range(5000)]},
    ],
)
def test_a_long_message_is_read_in_steps(document: Any) -> None:
    """A step ends after about `STEP_BUDGET` members of any kind."""
    assert steps(json.dumps(document).encode()) >= 5000 // STEP_BUDGET


def test_a_long_value_costs_more_of_a_step() -> None:
    assert steps(json.dumps({f"N{number}": "x" * 60_000 for number in range(17)}).encode()) >= 3
    assert steps(json.dumps({f"N{number}": "é" * 10_000 for number in range(17)}).encode()) >= 1


@pytest.mark.parametrize("item", ["[" * 13 + "1" + "]" * 13, '{"":' * 13 + "1" + "}" * 13])
def test_each_level_of_nesting_costs_part_of_a_step(item: str) -> None:
    """Although it has only two bytes, and all levels may be closed at once."""
    assert steps(f"[{','.join([item] * 1000)}]".encode()) >= 1000 * 13 // STEP_BUDGET


@pytest.mark.parametrize("text", ["\n", "\x01", "é", "aé"])
def test_a_long_string_is_read_in_steps(text: str) -> None:
    """If each of its characters must be checked; the same applies to a key."""
    literal = json.dumps(text * 100_000, ensure_ascii=text == "\x01")
    for data in (f'{{"a":{literal}}}'.encode(), f'{{{literal}:"a"}}'.encode()):
        assert steps(data) >= len(data) // (2 * STRING_STEP)


def test_a_short_message_is_read_at_once() -> None:
    assert steps(SAMPLE) == 0


def test_nodes_are_freed_in_steps() -> None:
    """After a complete message and after a refused one."""
    document = {f"N{number}": {f"F{field}": "" for field in range(50)} for number in range(200)}
    data = json.dumps(document).encode()
    node = finish(scan(data, 0, len(data)))
    assert sum(1 for _ in forget(node[3])) >= 200 * 50 // STEP_BUDGET
    assert node[3] == {}
    whole = steps(data)
    unfinished = scan(data, 0, len(data) - 1)
    for _ in range(whole + 200 * 50 // STEP_BUDGET):
        next(unfinished)
    with pytest.raises(Refused):
        finish(unfinished)
    deep = b'{"a":{"b":{"c":' + data + b"}}}"
    assert steps(deep) >= whole + 200 // STEP_BUDGET
