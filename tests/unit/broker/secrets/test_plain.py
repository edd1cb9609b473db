"""The plain bytes of a value, decoded from its JSON literal."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.broker.secrets.memory import Arena
from remo_broker.broker.secrets.plain import write_binary, write_field, write_string

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remo_broker.broker.secrets.memory import Region

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
ARENA = Arena(use_memfd_secret=False)


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    region = ARENA.take()
    yield region
    ARENA.give_back(region)


@given(text=TEXT, ascii_only=st.booleans())
def test_a_string_is_decoded_unchanged(region: Region, text: str, ascii_only: bool) -> None:
    literal = memoryview(json.dumps(text, ensure_ascii=ascii_only).encode())
    end = write_string(region, 0, literal, 0, len(literal))
    assert bytes(region.view[:end]) == text.encode()
    assert region.used >= end


@pytest.mark.parametrize(
    ("literal", "plain"),
    [
        (rb'"\/\u002f\"\\\b\f\n\r\t"', b'//"\\\b\f\n\r\t'),
        (rb'"\uD83D\uDE00\u00e9"', "😀é".encode()),
        (b'""', b""),
    ],
)
def test_every_escape_is_undone(region: Region, literal: bytes, plain: bytes) -> None:
    end = write_string(region, 0, memoryview(literal), 0, len(literal))
    assert bytes(region.view[:end]) == plain


@given(data=st.binary(max_size=2000), escaped=st.booleans())
def test_base64_is_decoded_to_bytes(region: Region, data: bytes, escaped: bool) -> None:
    text = json.dumps(base64.b64encode(data).decode())
    literal = memoryview((text.replace("/", r"\/").replace("=", r"\u003d") if escaped else text).encode())
    end = write_binary(region, literal, 0, len(literal))
    assert bytes(region.view[:end]) == data


@given(fields=st.dictionaries(st.from_regex("[A-Za-z0-9_]{1,8}", fullmatch=True), TEXT, min_size=1, max_size=5))
def test_each_field_of_a_bundle_is_found(region: Region, fields: dict[str, str]) -> None:
    literal = memoryview(json.dumps(json.dumps(fields, separators=(",", ":"))).encode())
    for name, value in fields.items():
        span = write_field(region, literal, 0, len(literal), name)
        assert span is not None
        assert bytes(region.view[slice(*span)]) == value.encode()


@pytest.mark.parametrize("value", ["plain", "", "[1]", '{"other":"x"}', '{"key":1}', '{"key":'])
def test_a_missing_field_is_none(region: Region, value: str) -> None:
    literal = memoryview(json.dumps(value).encode())
    assert write_field(region, literal, 0, len(literal), "key") is None
