"""No value is shown where it was not requested, and importing the library is cheap."""

from __future__ import annotations

import copy
import json
import pathlib
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker import client
from remo_broker.client.exchange import Exchange, encode
from remo_broker.client.value import SecretValue
from remo_broker.protocol.ops import Get, PushCreds
from tests.support.machine import REPOSITORY
from tests.support.programs import environment

VALUE = "zqMarkerqz"


@pytest.mark.parametrize("content", [VALUE, VALUE.encode(), json.dumps({"field": VALUE})])
def test_no_repr_or_conversion_shows_a_value(content: str | bytes) -> None:
    value = SecretValue("TOKEN", content, 10, 3)
    for shown in (repr(value), str(value), f"{value}", f"{[value]}", f"{vars(type(value))}"):
        assert VALUE not in shown
    assert "TOKEN" in repr(value)
    assert not hasattr(value, "__dict__")
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            write(value)
    with pytest.raises(TypeError):
        json.dumps(value)


def test_a_failed_push_shows_no_value() -> None:
    request = PushCreds(secrets={"TOKEN": VALUE}, secrets_b64={"KEY": VALUE})
    assert VALUE not in repr(request)
    exchange = Exchange("/x", request, greet=False)
    assert VALUE not in repr(exchange)


def test_no_traceback_shows_a_value() -> None:
    exchange = Exchange("/x", Get(name="TOKEN"), greet=False)
    try:
        exchange.feed(f'{{"ok":true,"value":"{VALUE}'.encode())
    except client.BadReply:
        assert VALUE not in traceback.format_exc()


@pytest.mark.parametrize(
    "line", [f'{{"ok":true,"value":"{VALUE}', f'["{VALUE}"]', f'"{VALUE}', "7" * 5000 + VALUE, "\ud800"]
)
def test_no_error_keeps_the_reply(line: str) -> None:
    """Nor does its cause, which some loggers show too."""
    exchange = Exchange("/x", Get(name="TOKEN"), greet=False)
    with pytest.raises(client.BadReply, match="not a JSON object") as raised:
        exchange.feed(line.encode("utf-8", "surrogatepass"))
    assert raised.value.__context__ is None


def test_a_request_that_cannot_be_sent_shows_no_value() -> None:
    with pytest.raises(client.Unsendable, match="is not UTF-8") as raised:
        encode(PushCreds(secrets={"TOKEN": f"{VALUE}\ud800"}))
    error: BaseException = raised.value
    assert error.__context__ is None
    assert VALUE not in repr(error) + str(error) + repr(pickle.dumps(error))


@pytest.mark.parametrize(
    "error",
    [
        client.Denied("denied", "not_in_manifest", "what to do"),
        client.RateLimited("rate_limited", "too_many_requests", "wait", 3),
        client.Unreachable("/x.sock", "not there", temporary=True),
        client.ConnectionLost("/x.sock"),
        client.TimedOut("/x.sock", 0.5),
        client.WrongVersion("/x.sock", 3),
        client.BadReply("/x.sock", "odd"),
        client.Unsendable(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled(error: client.ClientError) -> None:
    """`concurrent.futures` and `multiprocessing` pass them between processes."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), repr(again), vars(again)) == (str(error), repr(error), vars(error))


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z0-9_]{1,20}\Z"), st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_bundle_keeps_fields_and_order(fields: dict[str, str]) -> None:
    text = json.dumps(fields, separators=(",", ":"))
    assert list((SecretValue("x", text, 1, 1).reveal_fields() or {}).items()) == list(fields.items())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a":1}',
        '{"a":{"b":"c"}}',
        "{" * 50_000,
        " {}",
        "text",
        '{"a":"\\ud800"}',
        '{"a b":"c"}',
        '{"":"c"}',
    ],
)
def test_values_that_are_not_bundles(text: str) -> None:
    assert SecretValue("x", text, 1, 1).reveal_fields() is None


@given(
    st.binary()
    | st.text().map(lambda text: json.dumps(text).encode())
    | st.builds(
        lambda fields: json.dumps(fields).encode(),
        st.dictionaries(
            st.sampled_from(["ok", "code", "message", "value", "ttl_seconds", "generation", "value_b64"]),
            st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()),
        ),
    )
)
def test_any_line_is_a_reply_or_a_client_error(line: bytes) -> None:
    from remo_broker.client.project import secret_value

    exchange = Exchange("/x", Get(name="TOKEN"), greet=False)
    try:
        exchange.feed(line.replace(b"\n", b""))
        secret_value("TOKEN", exchange)
    except client.ClientError:
        pass


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_what_a_get_imports() -> None:
    """Each of these would cost `remo-secret get` more than the whole library."""
    loaded = modules_after("import remo_broker.secret.main, remo_broker.secret.get, remo_broker.client.quick")
    assert "remo_broker.client.value" in loaded
    assert not loaded & {
        *("argparse", "asyncio", "dataclasses", "inspect", "logging", "pathlib", "pydantic", "socket", "subprocess"),
        *("tomllib", "typing", "traceback", "signal", "remo_broker.client.aio", "remo_broker.manifest"),
    }


def test_the_synchronous_client_does_without_asyncio() -> None:
    loaded = modules_after("from remo_broker.client import AdminClient, Client, StatusClient, ClientError")
    assert "asyncio" not in loaded
    assert "pydantic" not in loaded


def test_the_librarys_types_are_exported(tmp_path: pathlib.Path) -> None:
    """Another project's type checker uses the library's annotations only if there is a
    `py.typed`."""
    (tmp_path / "uses.py").write_text(
        "from remo_broker.client import AsyncClient, Client\n"
        "reveal_type(Client('/x').get('A').reveal())\n"
        "async def f(c: AsyncClient) -> None: reveal_type(await c.get('A'))\n"
    )
    (tmp_path / "site").mkdir()
    shutil.copytree(REPOSITORY / "remo_broker", tmp_path / "site/remo_broker")
    # On the path of an installed package, not of the sources.
    (tmp_path / "python").write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {shlex.quote(sys.executable)} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-incremental",
            f"--python-executable={tmp_path}/python",
            "uses.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r'Revealed type is "(?:builtins\.)?(\S+)"', done.stdout) == [
        "str",
        "remo_broker.client.value.SecretValue",
    ], done.stdout


def test_every_exported_name_exists() -> None:
    for name in client.__all__:
        assert getattr(client, name).__name__ == name
    assert set(dir(client)) == set(client.__all__)
    with pytest.raises(AttributeError):
        client.no_such_thing  # noqa: B018
