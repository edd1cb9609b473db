"""Any bytes on any socket: an answer to each line, no fault, no stall, no growth. `./run fuzz` goes
on for longer."""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from remo_broker.protocol.ops import ADMIN_REQUESTS, PROJECT_REQUESTS, STATUS_REQUESTS
from tests.contract.fuzz import model
from tests.contract.fuzz.harness import PROJECT, Harness, Script, Wrong
from tests.contract.fuzz.mutation import make_script
from tests.contract.fuzz.streams import KINDS, streams
from tests.support.broker import short_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

# The same examples each time: a failure that only some runs see is of no use here.
_SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
RANDOM_STREAMS = 250
# A stream as long as this is also sent with a pause behind each byte.
MAX_SPLIT = 120
STREAMS = [(kind, name) for kind in KINDS for name in streams(kind)]


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with short_directory() as directory, contextlib.closing(Harness(directory)) as harness:
        harness.start()
        for kind, name in STREAMS:
            harness.run(Script(kind, streams(kind)[name]))
        harness.remember()  # a first use is not growth
        yield harness


@pytest.fixture(autouse=True)
def _no_growth(harness: Harness) -> Iterator[None]:
    yield
    harness.check_growth()


@pytest.mark.parametrize(("kind", "name"), STREAMS)
def test_corpus(harness: Harness, kind: str, name: str) -> None:
    """Each stream whole, cut in half, cut off, and left in the middle."""
    data = streams(kind)[name]
    harness.run(Script(kind, data))
    harness.run(Script(kind, data, [len(data) // 2]))
    harness.run(Script(kind, data[: len(data) * 2 // 3]))
    harness.run(Script(kind, data, ending="close"))


@pytest.mark.parametrize("kind", KINDS)
def test_split_at_every_byte(harness: Harness, kind: str) -> None:
    for data in streams(kind).values():
        if len(data) <= MAX_SPLIT:
            harness.run(Script(kind, data, range(1, len(data))))


@pytest.mark.parametrize("kind", KINDS)
def test_pipelined(harness: Harness, kind: str) -> None:
    """One behind the other on one connection: none spoils what follows."""
    short = [data for data in streams(kind).values() if len(data) <= 4096]
    harness.run(Script(kind, b"\n".join(short * 3)))


def test_changed_by_chance(harness: Harness) -> None:
    random_ = random.Random("seeded")
    pools = {kind: list(streams(kind).values()) for kind in KINDS}
    for _ in range(RANDOM_STREAMS):
        script = make_script(random_, pools)
        try:
            harness.run(script)
        except Wrong as error:
            raise AssertionError(f"{error}: {script} {script.data[:500]!r}") from error


# --- requests that are nearly right

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    ["TOKEN", "bundle", "A", "", "a b", "\x1b[31m", "A" * 129, "\u202eA", "\u0410", "A\n"]
) | st.text(max_size=20)
_values = st.text(max_size=40) | st.dictionaries(_names, st.text(max_size=20), max_size=3) | _json
_fields = {
    "name": _names | st.sampled_from([PROJECT, "nobody"]) | _json,
    "secret": _names | _json,
    "uid": st.integers(-1, 2**33) | _json,
    "after": st.text(max_size=10) | _json,
    "project_path": st.sampled_from(["/nonexistent", "", "x", "/\0"]) | _json,
    "allowed_uids": st.lists(st.integers(-1, 2**33), max_size=3) | _json,
    "secrets": st.dictionaries(_names, _values, max_size=4) | _json,
    "secrets_b64": st.dictionaries(_names, st.binary(max_size=9).map(lambda data: data.hex()) | _json, max_size=3)
    | _json,
    "expires": st.dictionaries(
        _names, st.sampled_from(["2026-05-31T02:30:00Z", "2999-05-31T02:30:00+01:00", "9999-12-31T23:59:60Z"]) | _json
    )
    | _json,
    "x": _json,
}


@st.composite
def requests(draw: st.DrawFn, kind: str) -> bytes:
    """A line that is a request or nearly one."""
    ops = {"project": PROJECT_REQUESTS, "admin": ADMIN_REQUESTS, "status": STATUS_REQUESTS}[kind].keys() - {
        "watch",
        "unregister",
    }
    request: dict[str, Any] = {"op": draw(st.sampled_from(sorted(ops)) | _json)}
    for name in draw(st.lists(st.sampled_from(sorted(_fields)), max_size=4)):
        request[name] = draw(_fields[name])
    keys = draw(st.permutations(list(request)))
    line = json.dumps({key: request[key] for key in keys}, ensure_ascii=draw(st.booleans()))
    return line.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("kind", KINDS)
def test_requests(harness: Harness, kind: str) -> None:
    @_SETTINGS
    @given(st.lists(requests(kind), min_size=1, max_size=6))
    def check(lines: list[bytes]) -> None:
        harness.run(Script(kind, b"\n".join(lines) + b"\n"))

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_bytes(harness: Harness, kind: str) -> None:
    @_SETTINGS
    @given(
        st.lists(st.binary(max_size=60) | st.text(max_size=30).map(str.encode), max_size=5),
        st.lists(st.integers(0, 300), max_size=3),
    )
    def check(pieces: list[bytes], cuts: list[int]) -> None:
        harness.run(Script(kind, b"".join(pieces), cuts))

    check()


# --- the harness itself


def test_no_stream_takes_away_what_the_next_ones_need() -> None:
    unregister = json.dumps({"op": "unregister", "name": PROJECT}).encode()
    random_ = random.Random("unregister")
    made = [make_script(random_, {kind: [unregister] for kind in KINDS}) for _ in range(200)]
    lines = [line for script in made for line in script.data.split(b"\n") if script.kind == "admin"]
    assert b'{"op": "show", "name": "fuzzed"}' in lines
    assert unregister not in lines


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        (b'{"op":"push-creds","secrets":{"A":"x"},"secrets_b64":{"B":"AA=="}}', {"ok"}),
        (b'{"op":"push-creds","secrets":{"A":"x"},"secrets_b64":{"A":"AA=="}}', {"invalid_payload"}),
        (b'{"op":"push-creds","secrets_b64":{"B":"AA"}}', {"invalid_payload"}),
        (b'{"op":"push-creds"}', {"protocol_error"}),
        (b'{"op":"status","op":"status"}', {"protocol_error"}),
        (b'{"op":"status","x":"\\ud800"}', {"protocol_error"}),
    ],
)
def test_the_model(line: bytes, codes: set[str]) -> None:
    assert model.on_admin(line) == model.Expected(frozenset(codes))


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        (b"", "has no answer"),
        (b'{"ok":true}', "no newline"),
        (b'{"ok":false,"code":"protocol_error","message":"x"}\n' * 2, "too many"),
        (b'{"ok":false,"code":"denied","message":"x"}\n', "expected"),
        (b'{"ok":false,"code":"protocol_error","message":"unexpected \'swordfish-and-chips\'"}\n', "repeats"),
        (b'{"ok":false,"code":"internal_error","message":"x"}\n', "fault"),
        (b'{"ok":false,"code":"teapot","message":"x"}\n', "shape"),
        (b"{'ok':true}\n", "not JSON"),
    ],
)
def test_the_judge(harness: Harness, answers: bytes, wrong: str) -> None:
    with pytest.raises(Wrong, match=wrong):
        harness._judge(Script("project", b"{ swordfish-and-chips }\n"), answers)
