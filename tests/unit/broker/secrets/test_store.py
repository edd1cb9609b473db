"""The store: how a push is kept and served, and that nothing of it remains."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.memory import REGION_SIZE
from remo_broker.broker.secrets.store import BINARY_HEAD, VALUE_HEAD, VALUE_TAIL
from remo_broker.broker.secrets.strict_json import finish
from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH
from tests.support.stock import NOW, Stock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remo_broker.broker.secrets.memory import Region

names = st.text("ABCabc019_", min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture
def stock() -> Iterator[Stock]:
    with contextlib.closing(Stock()) as stock:
        yield stock


# --- what is kept


@settings(deadline=None)
@given(st.dictionaries(names, texts, max_size=8), st.booleans())
def test_strings_come_back(secrets: dict[str, str], ascii_only: bool) -> None:
    with contextlib.closing(Stock()) as stock:
        stock.push(secrets, ensure_ascii=ascii_only)
        assert {name: stock.value(name) for name in secrets} == secrets
        assert stock.store.secret_count == len(secrets)


@settings(deadline=None)
@given(st.dictionaries(names, st.dictionaries(names, texts, max_size=6), max_size=4), st.booleans())
def test_bundles_come_back_as_strings_of_json(bundles: dict[str, dict[str, str]], ascii_only: bool) -> None:
    with contextlib.closing(Stock()) as stock:
        stock.push(bundles, ensure_ascii=ascii_only)
        for name, fields in bundles.items():
            assert list(json.loads(stock.value(name)).items()) == list(fields.items())
            wanted = json.dumps(fields, separators=(",", ":"), ensure_ascii=ascii_only)
            assert stock.value(name) == wanted


@settings(deadline=None)
@given(st.dictionaries(names, st.binary(max_size=60), max_size=8))
def test_base64_comes_back_as_it_was_pushed(secrets: dict[str, bytes]) -> None:
    encoded = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
    with contextlib.closing(Stock()) as stock:
        stock.push(None, encoded)
        assert {name: stock.value(name) for name in encoded} == encoded


def test_spaces_in_a_bundle_are_not_kept(stock: Stock) -> None:
    stock.push_line(b'{"secrets":{"b" : { "k" : "v w" ,\t"\\u006c":"" } , "none":{ }}}')
    assert stock.value("b") == '{"k":"v w","l":""}'
    assert stock.value("none") == "{}"


@pytest.mark.parametrize(
    "value", ['"', "\\", '\\"', '"' * 50, "\\" * 51, 'a"b\\c\nd', '"\\' * 40, "é\\é", "\\u0041", ""]
)
def test_quotes_and_backslashes_in_a_bundle(stock: Stock, value: str) -> None:
    stock.push({"b": {"k": value, "l": value}})
    assert json.loads(stock.value("b")) == {"k": value, "l": value}


def test_strings_and_binaries_and_bundles_together(stock: Stock) -> None:
    stock.push({"A": "x", "b": {"k": "y"}, "C": "z"}, {"D": "3q2+7w=="})
    assert [stock.value(name) for name in "AbCD"] == ["x", '{"k":"y"}', "z", "3q2+7w=="]
    snapshot = stock.snapshot()
    assert [snapshot.secrets[name][3] for name in "AbCD"] == [False, False, False, True]
    assert (snapshot.generation, stock.store.secret_count, stock.store.loaded_usec) == (1, 4, NOW)


def test_a_push_of_nothing(stock: Stock) -> None:
    stock.push({"A": "x"})
    stock.push({})
    assert stock.store.snapshot is not None
    assert (stock.store.secret_count, stock.store.generation) == (0, 2)


# --- base64

GOOD_BASE64 = ["", "AA==", "AAA=", "AAAA", "3q2+7w==", "+/+/", "A" * 64]
BAD_BASE64 = ["A", "AA", "AAA", "A===", "AA=", "AAA==", "AAAA=", "AAAA==", "====", "=", "==", "AA=A", "A=AA", "AAAA\n"]
BAD_BASE64 += [" AAA", "AA==AAAA", "-_-_", "AAA\u00e9", "AAAAA", "AA==\\"]


def as_escapes(text: str, which: str) -> str:
    """The text as a JSON string in which the characters of `which` are escapes."""
    return "".join(f"\\u{ord(one):04x}" if one in which else one for one in text)


@pytest.mark.parametrize("value", GOOD_BASE64)
def test_good_base64(stock: Stock, value: str) -> None:
    stock.push(None, {"A": value})
    assert stock.value("A") == value
    for literal in (
        as_escapes(value, "+="),
        as_escapes(value, "+").replace("/", "\\/"),
        as_escapes(value, "=").upper(),
    ):
        stock.push_line(b'{"secrets_b64":{"A":"%s"}}' % literal.replace("\\U", "\\u").encode())
        assert stock.value("A").upper() == value.upper()


@pytest.mark.parametrize("value", BAD_BASE64)
def test_bad_base64(stock: Stock, value: str) -> None:
    assert "secret A" in stock.refused(None, {"A": value})
    for which in ("=", "+", "/"):
        with pytest.raises(Refused):
            stock.push_line(b'{"secrets_b64":{"A":"%s"}}' % as_escapes(value, which).replace("\n", "\\n").encode())


@pytest.mark.parametrize(
    "literal", [rb"A\/", rb"A\/A", rb"\/", rb"\u002b", rb"AAA\u002bA", rb"AA\u003d", rb"\u003d\u003d\u003d\u003d"]
)
def test_escapes_are_counted_as_the_characters_that_they_are(stock: Stock, literal: bytes) -> None:
    with pytest.raises(Refused):
        stock.push_line(b'{"secrets_b64":{"A":"%s"}}' % literal)


@pytest.mark.parametrize("value", [None, 5, True, ["AAAA"], {"k": "AAAA"}])
def test_a_binary_is_a_string(stock: Stock, value: Any) -> None:
    assert "secret A" in stock.refused(None, {"A": value})


# --- what is refused

HIDDEN = "zq hidden qz"


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        ({"A": None}, "secret A"),
        ({"A": 5}, "secret A"),
        ({"A": [HIDDEN]}, "secret A"),
        ({"b": {"k": 5}}, "field k"),
        ({"b": {"k": {"l": HIDDEN}}}, "field k"),
        ({"b": {"k": None, "l": HIDDEN}}, "field k"),
        ({"A": "x", HIDDEN: "y"}, "name 2 of secrets"),
        ({"": "y"}, "name 1 of secrets"),
        ({"A" * 129: "y"}, "name 1 of secrets"),
        ({"A\n": "y"}, "name 1 of secrets"),
        ({"b": {"k": "", HIDDEN: "y"}}, "name 2 of its fields"),
        ({"b": {"": "y"}}, "name 1 of its fields"),
        ({"b": {"k" * 129: "y"}}, "name 1 of its fields"),
    ],
)
def test_a_refusal_says_where_and_repeats_nothing(stock: Stock, secrets: Any, says: str) -> None:
    stock.push({"OLD": "old"})
    message = stock.refused(secrets)
    assert says in message
    assert HIDDEN not in message
    assert stock.value("OLD") == "old"


def test_the_longest_names(stock: Stock) -> None:
    stock.push({"A" * 128: "y", "b": {"k" * 128: "z"}})
    assert stock.value("A" * 128) == "y"


def test_a_name_in_both_objects_is_refused(stock: Stock) -> None:
    assert "secret A is in both" in stock.refused({"A": "x"}, {"A": "AAAA"})


def test_the_second_table_has_its_own_positions(stock: Stock) -> None:
    assert "name 2 of secrets_b64" in stock.refused({"A": "x"}, {"B": "AAAA", "C-": "AAAA"})


def test_a_push_with_a_fault_at_its_end_changes_nothing(stock: Stock) -> None:
    """A thousand valid secrets and bundles, then an invalid one."""
    stock.push({"OLD": "old", "bundle": {"k": "old"}})
    good: dict[str, Any] = {f"NAME_{number}": "new" for number in range(1000)}
    stock.refused({**good, "OLD": "new", "bundle": {"k": "new"}, "bad": 5})
    stock.refused({**good, "OLD": "new", "bundle": {"k": "new"}}, {"B": "bad"})
    assert stock.value("OLD") == "old"
    assert stock.value("bundle") == '{"k":"old"}'
    assert stock.store.secret_count == 2


# --- the longest


def longest(head: bytes, generation: int) -> int:
    """The longest literal, quotes included, whose reply fits one message even with the longest
    lease."""
    return MAX_MESSAGE - len(head) - len(VALUE_TAIL % generation % 900)


def test_the_longest_string(stock: Stock) -> None:
    room = longest(VALUE_HEAD, 1) - 2
    assert "secret A is too long" in stock.refused({"A": "x" * (room + 1)})
    stock.push({"A": "x" * room})
    answer = VALUE_HEAD + stock.literal("A") + VALUE_TAIL % 1 % 900
    assert len(answer) == MAX_MESSAGE


def test_the_length_of_a_string_includes_its_escapes(stock: Stock) -> None:
    room = longest(VALUE_HEAD, 1) - 2
    stock.refused({"A": "é" * (room // 6 + 1)})  # six bytes as an escape
    stock.push({"A": "é" * (room // 2)}, ensure_ascii=False)


def test_the_longest_bundle(stock: Stock) -> None:
    for unit in ("x", '"', "\\"):
        grown = len(json.dumps(json.dumps(unit))) - len(json.dumps(json.dumps("")))
        room = longest(VALUE_HEAD, stock.store.generation + 1) - len(json.dumps('{"k":""}'))
        value = unit * (room // grown) + "x" * (room % grown)
        assert "secret b is too long" in stock.refused({"b": {"k": value + "x"}})
        stock.push({"b": {"k": value}})
        assert len(stock.literal("b")) == longest(VALUE_HEAD, stock.store.generation)
        assert json.loads(stock.value("b")) == {"k": value}


def test_the_longest_binary(stock: Stock) -> None:
    room = (longest(BINARY_HEAD, 1) - 2) // 4 * 4
    assert "secret A is too long" in stock.refused(None, {"A": "x" * (room + 4)})
    stock.push(None, {"A": "x" * room})


def test_a_bundle_may_be_longer_than_its_push(stock: Stock) -> None:
    """Each quote is escaped when a bundle becomes a string; a push of the maximum size is accepted
    nevertheless."""
    bundles: dict[str, Any] = {}
    size = len('{"secrets": {}}')
    while size < MAX_PUSH:
        fields = {f"F{number}": '"' for number in range(3000)}
        name = f"B{len(bundles)}"
        size += len(json.dumps({name: fields}))
        if size <= MAX_PUSH:
            bundles[name] = fields
    stock.push(bundles)
    assert sum(len(stock.literal(name)) for name in bundles) > REGION_SIZE
    for name, fields in bundles.items():
        assert json.loads(stock.value(name)) == fields


def test_a_bundle_that_cannot_fit_is_refused_before_it_is_escaped(stock: Stock) -> None:
    """A megabyte of quotes would otherwise be escaped in vain."""
    stock.refused({"b": {"k": '"' * (MAX_PUSH // 3)}})
    stock.refused({"b": {f"k{number}": '"' * 1000 for number in range(100)}})


def test_a_long_push_is_taken_in_steps(stock: Stock) -> None:
    assert stock.push({f"NAME_{number}": "x" for number in range(5000)}) >= 9
    assert stock.push(None, {f"NAME_{number}": "AAAA" for number in range(5000)}) >= 9
    assert stock.push({f"b{number}": {"k": '"' * 1000} for number in range(100)}) >= 9
    assert stock.push({"A": "x"}) == 0


# --- what is left


def is_zero(region: Region, length: int) -> bool:
    return not any(region.view[:length])


def test_a_replaced_snapshot_is_overwritten(stock: Stock) -> None:
    stock.push({"A": "old", "b": {"k": "old"}})
    pages = [(region, region.used) for region in stock.snapshot().regions]
    assert all(not is_zero(region, used) for region, used in pages)
    views = [region.view[:used] for region, used in pages]
    stock.arena.SPARES = 2  # so that both are kept and can be looked at
    stock.push({"A": "new"})
    assert all(not any(view) for view in views)
    for view in views:
        view.release()


def test_a_cleared_store_is_overwritten(stock: Stock) -> None:
    stock.push({"A": "old"})
    (region,) = stock.snapshot().regions
    used = region.used
    generation = stock.store.generation
    stock.store.clear()
    assert stock.store.snapshot is None
    assert is_zero(region, used)
    assert (stock.store.secret_count, stock.store.loaded_usec, stock.store.generation) == (0, 0, generation)
    stock.store.clear()  # twice is fine
    stock.push({"A": "new"})
    assert stock.store.generation == generation + 1


def test_memory_is_kept_until_its_last_reader_ends(stock: Stock) -> None:
    stock.push({"A": "old"})
    snapshot = stock.snapshot()
    (region,) = snapshot.regions
    used = region.used
    snapshot.readers += 2
    stock.store.clear()
    snapshot.finished_reading()
    assert not is_zero(region, used)
    snapshot.finished_reading()
    assert is_zero(region, used)
    assert snapshot.regions == []


def test_the_current_snapshot_stays_when_its_readers_end(stock: Stock) -> None:
    stock.push({"A": "x"})
    snapshot = stock.snapshot()
    snapshot.readers += 1
    snapshot.finished_reading()
    assert stock.value("A") == "x"


@pytest.mark.parametrize("how", ["refused", "vanished"])
def test_the_bundles_of_a_refused_push_are_overwritten(stock: Stock, how: str) -> None:
    secrets = {f"b{number}": {"k": HIDDEN * 100} for number in range(100)} | {"bad": 5}
    holder, fields = stock.receive(json.dumps({"secrets": secrets}).encode())
    stock.arena.LARGEST_SPARE = REGION_SIZE  # kept so that the test can inspect it
    steps = stock.store.load(holder, fields["secrets"], None, NOW)
    next(steps)
    assert stock.arena._spares == []
    if how == "refused":
        with pytest.raises(Refused):
            finish(steps)
    else:
        steps.close()
    (other,) = stock.arena._spares
    assert is_zero(other, 200_000)
    stock.arena.LARGEST_SPARE = 0
    holder.release()


def test_no_value_in_a_repr(stock: Stock) -> None:
    stock.push({"A": HIDDEN})
    shown = repr(stock.store.snapshot) + repr(stock.arena) + repr(stock.store.snapshot and stock.store.snapshot.regions)
    assert HIDDEN not in shown
