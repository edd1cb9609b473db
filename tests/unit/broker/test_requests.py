"""From scanned JSON to a typed request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker.refusals import Refused
from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.protocol.ops import (
    ADMIN_REQUESTS,
    PROJECT_REQUESTS,
    STATUS_REQUESTS,
    Explain,
    Get,
    Ping,
    PushCreds,
    Register,
    Status,
    Watch,
    WatchProject,
    WatchStore,
)

if TYPE_CHECKING:
    from remo_broker.protocol.ops import Request

SOCKETS = {"project": PROJECT_REQUESTS, "admin": ADMIN_REQUESTS, "status": STATUS_REQUESTS}


def request_of(document: Any, which: str) -> Request:
    line = json.dumps(document).encode()
    return decode(memoryview(line), finish(scan(line, 0, len(line))), SOCKETS[which])


@pytest.mark.parametrize(
    ("which", "document", "wanted"),
    [
        ("project", {"op": "ping"}, Ping()),
        ("project", {"op": "get", "name": "A"}, Get(name="A")),
        ("project", {"name": "é\n☃", "op": "get", "more": {"name": "B"}}, Get(name="é\n☃")),
        ("admin", {"op": "status"}, Status(after=None)),
        ("admin", {"op": "status", "after": "a"}, Status(after="a")),
        ("status", {"op": "watch", "x": 1}, Watch()),
        ("admin", {"op": "watch", "x": 1}, WatchStore()),
        ("project", {"op": "watch", "x": 1}, WatchProject()),
        ("admin", {"op": "register", "name": "a", "project_path": "/p"}, Register(name="a", project_path="/p")),
        (
            "admin",
            {"op": "register", "name": "a", "project_path": "/p", "allowed_uids": [0, 1000, 2**32 - 2]},
            Register(name="a", project_path="/p", allowed_uids=[0, 1000, 2**32 - 2]),
        ),
        ("admin", {"op": "explain", "name": "a", "secret": "B", "uid": 7}, Explain(name="a", secret="B", uid=7)),
    ],
)
def test_requests(which: str, document: Any, wanted: Request) -> None:
    assert request_of(document, which) == wanted


def test_the_secrets_of_a_push_are_not_built() -> None:
    request = request_of({"op": "push-creds", "secrets": {"A": "hidden"}, "secrets_b64": {"B": "aGlkZGVu"}}, "admin")
    assert request == PushCreds()


@pytest.mark.parametrize(
    ("which", "document", "reason", "names"),
    [
        ("project", [], "not_an_object", "object"),
        ("project", {}, "missing_field", "op"),
        ("project", {"op": "status"}, "unknown_op", "get, ping, info, ready"),
        ("status", {"op": "get", "name": "A"}, "unknown_op", "status, watch"),
        ("admin", {"op": "ping"}, "unknown_op", "register"),
        ("project", {"op": "get"}, "missing_field", "name"),
        ("project", {"op": "get", "name": None}, "wrong_type", "name"),
        ("project", {"op": "get", "name": 5}, "wrong_type", "name"),
        ("project", {"op": "get", "name": ["A"]}, "wrong_type", "name"),
        ("admin", {"op": "register", "project_path": "/p"}, "missing_field", "name"),
        ("admin", {"op": "register", "name": "a"}, "missing_field", "project_path"),
        ("admin", {"op": "register", "name": "a", "project_path": 1}, "wrong_type", "project_path"),
        *(
            (
                "admin",
                {"op": "register", "name": "a", "project_path": "/p", "allowed_uids": uids},
                "wrong_type",
                "allowed_uids",
            )
            for uids in (0, "0", None, {"0": 1}, ["0"], [-1], [1.0], [1e3], [True], [None], [[1]], [10**10], [1, "2"])
        ),
        ("admin", {"op": "explain", "name": "a", "secret": "B", "uid": "7"}, "wrong_type", "uid"),
        ("admin", {"op": "explain", "name": "a", "secret": "B", "uid": -7}, "wrong_type", "uid"),
        ("admin", {"op": "status", "after": 1}, "wrong_type", "after"),
        ("admin", {"op": "push-creds", "secrets": []}, "wrong_type", "secrets"),
        ("admin", {"op": "push-creds", "secrets": None}, "wrong_type", "secrets"),
        ("admin", {"op": "push-creds", "secrets": "x"}, "wrong_type", "secrets"),
        ("admin", {"op": "push-creds", "secrets_b64": 1}, "wrong_type", "secrets_b64"),
        ("admin", {"op": "push-creds", "secrets": {}, "expires": []}, "wrong_type", "expires"),
    ],
)
def test_refusals_name_the_field(which: str, document: Any, reason: str, names: str) -> None:
    with pytest.raises(Refused) as raised:
        request_of(document, which)
    assert (raised.value.code, raised.value.reason) == ("protocol_error", reason)
    assert names in raised.value.message
    assert not raised.value.fatal
