"""The published schemas: that they are what the code says, and say what it does."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from remo_broker.broker.requests import decode
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.build import schema
from remo_broker.manifest import constants
from remo_broker.manifest.keys import ALLOWED, AllowlistForm, BindingForm
from remo_broker.protocol import ops, replies
from remo_broker.protocol.message import Message
from remo_broker.protocol.ops import Request
from remo_broker.protocol.replies import Reply

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "tests" / "contract" / "fixtures"
PROTOCOL_EXAMPLES = sorted((EXAMPLES / "protocol").glob("*.json"))
MANIFEST_EXAMPLES = sorted((EXAMPLES / "manifest").glob("*.toml"))
REQUESTS = ops.PROJECT_REQUESTS | ops.ADMIN_REQUESTS | ops.STATUS_REQUESTS

published: dict[str, Any] = {name: json.loads(text) for name, text in schema.documents().items()}
protocol = published["remo-broker.v2.json"]
manifest = Draft202012Validator(published["remo-broker-manifest.v1.json"])


def definition(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": protocol["$defs"]})


def message_classes() -> list[type[Message]]:
    """Every message that travels."""
    found = [cls for _, cls in inspect.getmembers(ops, inspect.isclass) if issubclass(cls, Message)]
    return [cls for cls in found if cls not in (Message, Reply, Request, replies.BrokerFacts, replies.ProjectFacts)]


# --- the files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", published)
def test_the_published_file_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "schema" / name).read_text() == schema.documents()[name], (
        "python -m remo_broker.build.schema --write"
    )


@pytest.mark.parametrize("name", published)
def test_it_is_json_schema_with_a_name(name: str) -> None:
    Draft202012Validator.check_schema(published[name])
    assert published[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert published[name]["$id"].startswith("urn:remo-broker:")
    assert published[name]["title"].startswith("remo-broker ")


def test_the_command_tells_drift_and_mends_it(tmp_path: Path) -> None:
    def run(what: str) -> tuple[int, str]:
        program = (
            "import sys, pathlib; from remo_broker.build import schema; "
            f"schema.DIRECTORY = pathlib.Path({str(tmp_path)!r}); sys.exit(schema.main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, what], capture_output=True, text=True, check=False, cwd=ROOT
        )
        return done.returncode, done.stderr

    status, said = run("--check")
    assert status == 1
    assert said.count("run 'python -m remo_broker.build.schema --write'") == 2
    assert run("--write") == (0, "")
    assert run("--check") == (0, "")
    (tmp_path / "remo-broker.v2.json").write_text("{}")
    assert run("--check")[0] == 1


# --- the protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", PROTOCOL_EXAMPLES, ids=lambda path: path.stem)
def test_each_example_of_the_protocol_is_what_its_definition_says(example: Path) -> None:
    name = example.name.split(".")[0]
    message = json.loads(example.read_text())
    definition(name).validate(message)
    Draft202012Validator(protocol).validate(message)
    # An added field changes nothing.
    definition(name).validate(message | {"later": 1})


@pytest.mark.parametrize("example", PROTOCOL_EXAMPLES, ids=lambda path: path.stem)
def test_each_request_of_the_protocol_is_decoded(example: Path) -> None:
    content = example.read_bytes()
    fields = json.loads(content)
    if "op" not in fields:
        return
    cls = REQUESTS[fields["op"]]
    assert cls.__name__ == example.name.split(".")[0]
    request = decode(content, finish(scan(content, 0, len(content))), REQUESTS)
    assert type(request) is cls
    for name in set(cls.FIELDS) - cls.SECRET_FIELDS & set(fields):
        assert getattr(request, name) == fields.get(name, getattr(cls, name, None))


def test_there_is_an_example_of_every_op_of_the_contract_and_its_answer() -> None:
    there = {path.name.split(".")[0] for path in PROTOCOL_EXAMPLES}
    contract = [ops.Get, ops.Ping, ops.Info, ops.Register, ops.Unregister, ops.Reload]
    contract += [ops.PushCreds, ops.ClearCreds, ops.Status]
    assert there == {cls.__name__ for cls in contract} | {f"{cls.__name__}Reply" for cls in contract}


def test_every_message_has_a_definition_with_its_fields() -> None:
    for cls in message_classes():
        if cls is replies.Failure:
            continue
        properties = protocol["$defs"][cls.__name__]["properties"]
        assert set(properties) - {"op"} == set(cls.FIELDS), cls
    for socket, (requests, codes) in schema.SOCKETS.items():
        assert set(protocol["$defs"][f"{socket}Request"]["discriminator"]["mapping"]) == set(requests)
        failure = protocol["$defs"][f"{socket}Failure"]["properties"]
        assert set(failure) == set(replies.Failure.FIELDS)
        assert failure["code"]["enum"] == [str(code) for code in codes]


def sample(cls: type[Message], *, whole: bool) -> Message:
    """A message as the broker would send it; `whole` with every field that may be left out."""
    plausible: dict[str, Any] = {
        "name": "myrepo",
        "project": "myrepo",
        "allowlist": ["A"],
        "memory_protection": "memfd_secret",
        "code": "internal_error",
        "reason": "no_snapshot",
        "project_path": "/projects/myrepo",
        "allowed_uids": [0, 1000],
        "secrets": {"A": "x", "B": {"C": "x"}},
        "secrets_b64": {"D": "AA=="},
        "expires": {"D": "2026-05-31T02:30:00Z"},
        **{
            key: ["A"]
            for key in ("added", "removed", "changed_bindings", "added_names", "removed_names", "changed_names")
        },
        "changed_hosts": ["registry.example.org"],
        "sha256": "0" * 64,
        "event": replies.PUSHED,
        "projects": [],
        "hosts": {"registry.example.org": "A"},
        "new_hosts": {"registry.example.org": "A"},
        "bindings": {"A": [{"env_var": "B"}]},
        "unsaved": ["myrepo"],
        "new_bindings": {"A": [{"env_var": "B"}]},
    }
    by_kind: dict[Any, Any] = {int: 7, str: "2026-05-31T02:30:00Z", bool: True}
    hints = typing.get_type_hints(cls, localns=vars(typing))
    values: dict[str, Any] = {}
    for field in cls.FIELDS:
        fixed = field in ("ok", "event") and getattr(cls, field) is not None
        if fixed or (cls.optional(field) and not whole):
            continue
        kind = next(part for part in (*typing.get_args(hints[field]), hints[field]) if part is not type(None))
        if field in plausible:
            values[field] = plausible[field]
        elif issubclass(kind, Message):
            values[field] = sample(kind, whole=whole)
        else:
            values[field] = by_kind[kind]
    if cls is replies.BrokerStatus:
        values["projects"] = [sample(replies.ProjectStatus, whole=whole)]
    if cls is replies.UnitCredentials:
        values["credentials"] = [sample(replies.UnitCredential, whole=whole)]
    return cls(**values)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("cls", message_classes(), ids=lambda cls: cls.__name__)
def test_what_the_code_sends_is_what_the_schema_says(cls: type[Message], whole: bool) -> None:
    name = "AdminSocketFailure" if cls is replies.Failure else cls.__name__
    fields = sample(cls, whole=whole).to_json()
    if issubclass(cls, Request):
        fields = {"op": cls.OP} | fields
    definition(name).validate(fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ProjectSocketRequest", {"op": "status"}),
        ("ProjectSocketRequest", {"op": "rotate-bootstrap"}),
        ("ProjectSocketRequest", {"op": "get"}),
        ("ProjectSocketRequest", {"op": "get", "name": 1}),
        ("ProjectSocketRequest", {"name": "A"}),
        ("ProjectSocketRequest", []),
        ("AdminSocketRequest", {"op": "get", "name": "A"}),
        ("Register", {"op": "register", "name": "My Repo", "project_path": "/x"}),
        ("Register", {"op": "register", "name": "myrepo", "project_path": "x"}),
        ("Register", {"op": "register", "name": "myrepo", "project_path": "/x", "allowed_uids": [-1]}),
        ("Register", {"op": "register", "name": "myrepo", "project_path": "/x", "allowed_uids": [2**32 - 1]}),
        ("Register", {"op": "register", "name": "myrepo", "project_path": "/x", "allowed_uids": None}),
        ("PushCreds", {"op": "push-creds", "secrets": {"A B": "x"}}),
        ("PushCreds", {"op": "push-creds", "secrets": {"A": {"b c": "x"}}}),
        ("PushCreds", {"op": "push-creds", "secrets": {"A": 1}}),
        ("PushCreds", {"op": "push-creds", "secrets": {"A": {"B": {}}}}),
        ("PushCreds", {"op": "push-creds", "secrets_b64": {"A": {"B": "AA=="}}}),
        ("GetReply", {"ok": True, "value": "x", "value_b64": "eA==", "ttl_seconds": 1, "generation": 1}),
        ("GetReply", {"ok": True, "value": "x", "generation": 1}),
        ("GetReply", {"ok": True, "value": "x", "ttl_seconds": -1, "generation": 1}),
        ("GetReply", {"ok": False, "value": "x", "ttl_seconds": 1, "generation": 1}),
        ("GetReply", {"ok": False, "code": "manifest_invalid", "message": "x"}),
        ("GetReply", {"ok": False, "code": "denied"}),
        ("ReloadReply", {"ok": False, "code": "denied", "message": "x"}),
        ("ReloadReply", {"ok": True}),
        ("StatusSocketReply", {"ok": False, "code": "manifest_invalid", "message": "x"}),
        ("WatchReply", {"event": "project"}),
        ("WatchReply", {"event": "removed", "name": 1}),
    ],
)
def test_a_malformed_message_is_not_valid(name: str, message: Any) -> None:
    assert not definition(name).is_valid(message)


# --- the manifest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", MANIFEST_EXAMPLES, ids=lambda path: path.stem)
def test_each_example_of_a_manifest_is_valid(example: Path) -> None:
    manifest.validate(tomllib.loads(example.read_text()))


KEYS = sorted({part for key in ALLOWED for part in key.split(".")} - {"*"})
texts = st.sampled_from(["env", "file", "myrepo", "0600", "A", "", "a b", "\x1b"])
values = st.recursive(
    st.booleans() | st.sampled_from([0, 1, 2, 64, 900, 86_400, 86_401]) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "A", "b_1", "a-b"]), inner),
    max_leaves=8,
)
good: dict[str, Any] = {
    "schema_version": 1,
    "project": {"name": "myrepo", "description": "x"},
    "allowlist": {"secrets": ["A", "B"]},
    "secrets": {
        "A": {"env_var": "A"},
        "B": {"fetch_as": "file", "file_path": "x", "file_mode": "0600", "template": "x"},
    },
    "cache": {"ttl_seconds": 1, "max_entries": 1},
}
bound = {key: good[key] for key in ("schema_version", "secrets")} | {"project": "myrepo"}


@st.composite
def nearly_good(draw: st.DrawFn) -> dict[str, Any]:
    """A good manifest with one thing in it changed, added or taken out."""
    document: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from([good, bound]))))
    table = document
    while nested := [key for key, value in table.items() if isinstance(value, dict)]:
        if draw(st.booleans()):
            break
        table = table[draw(st.sampled_from(nested))]
    if draw(st.booleans()) and table:
        del table[draw(st.sampled_from(sorted(table)))]
    else:
        table[draw(st.sampled_from([*KEYS, *table]))] = draw(values)
    return document


@given(nearly_good() | st.dictionaries(st.sampled_from(KEYS), values))
def test_the_schema_and_the_models_agree(document: dict[str, Any]) -> None:
    expected = True
    try:
        TypeAdapter(AllowlistForm | BindingForm).validate_python(document)
    except ValidationError:
        expected = False
    # What pydantic does not look at: that a list has no name twice, and that `true` is not the 1 of
    # the version.
    listed = document.get("allowlist")
    if isinstance(listed, dict) and isinstance(names := listed.get("secrets"), list):
        expected = expected and len(set(map(str, names))) == len(names)
    expected = expected and document["schema_version"] is not True
    assert manifest.is_valid(document) == expected


def test_the_patterns_of_the_schema_are_those_of_the_code() -> None:
    text = json.dumps(published)
    for pattern in (constants.ENV_VAR_PATTERN, constants.FILE_MODE_PATTERN):
        assert json.dumps(pattern) in text
    assert all(re.compile(json.loads(pattern)) for pattern in re.findall(r'"pattern": ("[^"]*")', text))
