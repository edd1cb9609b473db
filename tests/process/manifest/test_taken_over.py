"""A compromised reader: another program answers in its place, over the socket on which systemd
would start the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.broker import registration
from tests.support.played_helpers import SHOWN

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.played_helpers import Helpers


@pytest.mark.parametrize(
    "lie",
    [
        {"allowlist": ["A", "B", "PRECIOUS"]},
        {"hosts": {"h": "A", "attacker.example": "B"}},
        {"bindings": {"A": [{"env_var": "LD_PRELOAD"}]}},
        {"ttl_seconds": 900},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_content_under_an_approved_hash_must_be_what_was_shown(
    start_broker: StartBroker, helpers: Helpers, lie: dict[str, Any]
) -> None:
    """Even if another reading comes in between."""
    broker = start_broker(projects=[registration("app", "A")])
    shown = broker.ask({"op": "preview", "name": "app"})
    assert (shown["added"], shown["sha256"]) == (["B"], "0" * 64)
    helpers.says = SHOWN | lie | {"sha256": "1" * 64}
    assert broker.ask({"op": "preview", "name": "app"})["ok"]
    helpers.says = SHOWN | lie
    reply = broker.ask({"op": "reload", "name": "app", "sha256": "0" * 64})
    assert (reply["code"], reply["reason"]) == ("manifest_invalid", "manifest_changed")
    assert broker.ask({"op": "show", "name": "app"})["allowlist"] == ["A"]
    helpers.says = SHOWN
    assert broker.ask({"op": "reload", "name": "app", "sha256": "0" * 64})["allowlist"] == ["A", "B"]
