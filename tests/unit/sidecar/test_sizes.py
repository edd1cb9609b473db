"""The longest value that the sidecar pushes, compared with what the store accepts."""

from __future__ import annotations

import base64
import bisect
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.sidecar.sizes import fits
from tests.support.stock import Stock

if TYPE_CHECKING:
    from collections.abc import Callable

    Value = str | dict[str, str] | bytes


def fields(value: Value) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"secrets_b64": {"A": base64.b64encode(value).decode()}}
    return {"secrets": {"A": value}}


@pytest.mark.parametrize(
    "value_of",
    [
        lambda count: "x" * count,
        lambda count: '"' * count,
        lambda count: "é" * count,
        lambda count: {"field": "x" * count},
        lambda count: {"field": '"' * count},
        lambda count: b"\xff" * count,
    ],
    ids=["text", "quotes", "non-ascii", "bundle", "bundle of quotes", "binary"],
)
def test_the_longest_value_that_fits_is_near_the_stores_limit(value_of: Callable[[int], Value]) -> None:
    longest = bisect.bisect_left(range(70_000), True, key=lambda count: not fits(value_of(count))) - 1
    with contextlib.closing(Stock()) as stock:
        stock.push(**fields(value_of(longest)), ensure_ascii=False)
        assert "too long" in stock.refused(**fields(value_of(longest + 100)))
