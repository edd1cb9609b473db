"""JSON as people and other programs write it: accepted where its meaning is certain, otherwise an
error with advice."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.json_text import Node, read
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import Picking, Secrets, parse, text_or_bytes

if TYPE_CHECKING:
    import pathlib

VALUE = "zqMarkerqz"


def secrets(text: str, picking: Picking | None = None) -> dict[str, str | dict[str, str] | bytes]:
    found = Secrets()
    parse(text.encode(), "f", None, None, found, picking or Picking())
    return {**found.texts, **found.binaries}


def fault(text: str, picking: Picking | None = None) -> InputFault:
    with pytest.raises(InputFault) as raised:
        secrets(text, picking)
    assert VALUE not in f"{raised.value} {raised.value.hint}"
    return raised.value


def test_forms() -> None:
    assert secrets('{"A": "x", "b": {"c": "d"}}') == {"A": "x", "b": {"c": "d"}}
    assert secrets('{"secrets": {"A": "x"}, "secrets_b64": {"B": "AA=="}}') == {"A": "x", "B": b"\0"}
    assert secrets('{"op": "push-creds", "secrets": {"A": "x"}, "secrets_b64": {"B": "AA=="}}') == {
        "A": "x",
        "B": b"\0",
    }
    assert secrets('{"secrets": {"A": "x"}, "metadata": {"profile": "default", "total_secrets": 1}}') == {"A": "x"}
    assert secrets('{"secrets": {"A": "x"}, "metadata": null}') == {"A": "x"}
    assert secrets('{"secrets": "a secret of that name"}') == {"secrets": "a secret of that name"}
    assert secrets('{"op": "a secret", "b": {"c": "d"}}') == {"op": "a secret", "b": {"c": "d"}}
    assert secrets('{"op": {"a": "bundle"}}') == {"op": {"a": "bundle"}}
    assert secrets("{}") == {}
    assert secrets('\ufeff {"A": "x"}') == {"A": "x"}


def test_numbers_and_booleans_are_their_text() -> None:
    text = '{"A": 1.10, "B": -0, "C": 1E5, "D": true, "E": {"port": 5432, "tls": false}, "F": %s}' % ("7" * 5000)
    assert secrets(text) == {
        "A": "1.10",
        "B": "-0",
        "C": "1E5",
        "D": "true",
        "E": {"port": "5432", "tls": "false"},
        "F": "7" * 5000,
    }


@pytest.mark.parametrize(
    ("text", "line", "key", "advice"),
    [
        ('{\n"A": null}', 2, "A", "del(.A)"),
        ('{"aws": {\n"key": null}}', 2, "aws.key", "del(.aws.key)"),
        ('{"A": {"x":\n{"y": "%s"}}}', 2, "A.x", "jq '.A.x |= tojson'"),
        ('{"A": ["%s"]}', 1, "A", "join"),
        ('{"A": [{"x": "%s"}]}', 1, "A", "jq '.A |= tojson'"),
        ('{"A": [[]]}', 1, "A", "tojson"),
        ('{"A": []}', 1, "A", "tojson"),
        ('{"A":"1","db-password":"%s"}', 1, "db-password", "db_password"),
        ('{"A":"1",\n"b":{"a.b":"%s"}}', 2, "b.a.b", "a_b"),
        ('{"":"%s"}', 1, "(key 1)", "1 to 128"),
        ('{"A":"x","%s y":"x"}', 1, "(key 2)", "1 to 128"),
        ('{"%s y":{"b":null}}', 1, "(key 1)", "1 to 128"),
        ('{"A":{"%s y":"x"}}', 1, "A.(key 1)", "1 to 128"),
        ('{"A": "%s",\n "A": "x"}', 2, "A", "keep one"),
        ('{"A": {"b": "%s", "b": ""}}', 1, "A.b", "keep one"),
        ('{"A": "\\ud800"}', 1, "A", "secrets_b64"),
        ('{"A": {"b": "\\udfff%s"}}', 1, "A.b", "secrets_b64"),
        ('{"secrets": {}, "secrets_b64": {"A": "%s!"}}', 1, "secrets_b64.A", "base64 -w0"),
        ('{"secrets": {}, "secrets_b64": {"A": 5}}', 1, "secrets_b64.A", "base64 -w0"),
        ('{"secrets": {},\n"OTHER": {}}', 2, "OTHER", "move it into secrets"),
        ('{"secrets": {}, "secrets_b64": "%s"}', 1, "secrets_b64", "write"),
        ('{"secrets": "%s", "secrets_b64": {}}', 1, "secrets", "write"),
        ('{"op": "clear-creds"}', 1, "op", "write"),
        ('{"op": "push-creds", "TOKEN": "%s"}', 1, "op", "write"),
        ('{"A": "%s"', 1, None, "correct"),
        ('{"A":\n "%s}', 2, None, "correct"),
        ('{"A": NaN}', 1, "A", "put quotes around it"),
        ('{"A": 01}', 1, "A", "put quotes around it"),
        ('{"b":\n{"A": -Infinity}}', 2, "b.A", "put quotes around it"),
        ('{"A": True}', 1, "A", "put quotes around it"),
        ('{"A": %s}', 1, "A", "put quotes around it"),
        ('{"A": "x",}', 1, None, "remove the comma"),
        ('[{"name": "A", "value": "%s"},\n]', 2, None, "remove the comma"),
        ('{"A":}', 1, None, "there"),
        ("{'A': '%s'}", 1, None, "double quotes"),
        ('{"A": "%s" // why\n}', 1, None, "no comments"),
        ('{"A": "x",\n"B": "a\n%s"}', 2, "B", r"write \n for"),
        ('{"A": "%s\n', 1, None, "may have failed"),
        ('{"A": "%s\r\n', 1, None, "may have failed"),
        ('{"A": "\t%s"}', 1, "A", r"\t for a tab"),
        ('{"A": "%s"}}', 1, None, "remove it"),
        ('{"A": "%s"}\x1a', 1, None, "remove it"),
        ('{"items": [{"name": "A", "value": "%s"}]}', 1, "items", "jq .items"),
        ('{"A": "1"}\n{"B": "%s"}', 2, None, "jq -s add"),
        ('["%s"]', 1, "0", "write"),
        ('[{"label": "A", "value": "%s"},\n{"label": "A", "value": ""}]', 2, "1", "keep one"),
        ('{"secrets": {"A": "x"}, "expires": {"A": null}}', 1, "expires.A", "time"),
        ('{"apiVersion": "v1", "kind": "Secret", "data": {"A": "%s"}}', 1, None, "{secrets_b64: .data}"),
        ('{"request_id": "1", "data": {"data": {"A": "%s"}, "metadata": {}}}', 1, None, "jq .data.data"),
        ('{"request_id": "1", "data": {"A": "%s"}}', 1, None, "jq .data"),
        ('{"ARN": "a", "SecretString": "{}"}', 1, None, "jq -r .SecretString"),
        ('{"A": "ENC[AES256_GCM]", "sops": {"mac": "x"}}', 1, None, "sops decrypt"),
        ('{"A": {"computed": "%s", "note": ""}}', 1, None, "doppler secrets download"),
        ("{" * 20_000, 1, None, ""),
        ('{"A": ' + "[" * 200_000, 1, None, ""),
    ],
)
def test_faults_name_key_and_line_and_have_advice_for_the_case(
    text: str, line: int, key: str | None, advice: str
) -> None:
    found = fault(text.replace("%s", VALUE))
    assert (found.line, found.key) == (line, key)
    assert found.hint is not None
    assert advice in found.hint


_document = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def plain(node: Node) -> Any:
    if node.kind == "object":
        return {key: plain(one) for key, one in node.members.items()}
    if node.kind == "list":
        return [plain(one) for one in node.items]
    return node.text if node.kind == "string" else json.loads(node.text)


@given(_document, st.sampled_from([None, 2]))
def test_the_reader_agrees_with_the_json_module(document: Any, indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    if any("\ud800" <= letter <= "\udfff" for letter in json.dumps(document, ensure_ascii=False)):
        return
    assert plain(read(text, "f")) == document


@given(st.text('{}[]":,\\u1e- \ntrfalsn', max_size=30))
def test_the_reader_refuses_what_the_json_module_refuses(text: str) -> None:
    try:
        found = plain(read(text, "f"))
    except InputFault:
        return
    assert found == json.loads(text)


def test_a_name_occurs_once_in_all_inputs() -> None:
    found = Secrets()
    found.add("one", "A", "x")
    found.add("one", "B", b"\0")
    with pytest.raises(Problem, match="two: B is also given by one"):
        found.add("two", "B", "y")
    with pytest.raises(Problem, match="A is also given by f"):
        secrets('{"secrets": {"A": "x"}, "secrets_b64": {"A": "AA=="}}')
    assert found.names() == ["A", "B"]
    assert "x" not in repr(found)


@pytest.mark.parametrize(
    ("content", "stripped", "value"),
    [
        (b"text\n", False, "text\n"),
        (b"text\n", True, "text"),
        (b"text\r\n", True, "text"),
        (b"text\n\n", True, "text\n"),
        ("ä".encode(), False, "ä"),
        (b"", False, ""),
        (b"a\0", False, b"a\0"),
        (b"\xff\n", True, b"\xff\n"),
    ],
)
def test_a_file_of_text_is_a_string(content: bytes, stripped: bool, value: str | bytes) -> None:
    assert text_or_bytes(content, strip_newline=stripped) == value


def test_not_utf8() -> None:
    with pytest.raises(InputFault, match="f:2: not UTF-8") as raised:
        parse(b"A=1\nB=\xff", "f", None, None, Secrets())
    assert "NAME=@PATH" in str(raised.value.hint)
    assert raised.value.__context__ is None, "the decoder's error holds the content"


def test_base64_of_all_bytes() -> None:
    text = json.dumps({"secrets_b64": {"A": base64.b64encode(bytes(range(256))).decode()}})
    assert secrets(text) == {"A": bytes(range(256))}


# What the tools print.
FNOX = {"secrets": {"A": "x"}, "metadata": {"profile": "default", "exported_at": "2026-05-31T02:30:00Z", "total": 1}}
VAULT = {
    "request_id": "r",
    "lease_duration": 0,
    "renewable": False,
    "data": {"data": {"A": "x", "PORT": 5432}, "metadata": {"version": 3, "custom_metadata": None}},
    "warnings": None,
}
BW = {
    "object": "item",
    "id": "i",
    "name": "db",
    "notes": None,
    "login": {"username": "u", "password": "p", "totp": None, "uris": [{"uri": "https://x"}]},
    "fields": [{"name": "A", "value": "x", "type": 1}, {"name": "EMPTY", "value": None, "type": 0}],
}
OP = {
    "id": "o",
    "title": "db",
    "vault": {"id": "v", "name": "dev"},
    "fields": [
        {"id": "username", "type": "STRING", "purpose": "USERNAME", "label": "username", "value": "u"},
        {"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": "p"},
        {"id": "notesPlain", "type": "STRING", "purpose": "NOTES", "label": "notesPlain"},
    ],
}


@pytest.mark.parametrize(
    ("document", "picking", "found"),
    [
        (FNOX, Picking(), {"A": "x"}),
        (VAULT, Picking(("data", "data")), {"A": "x", "PORT": "5432"}),
        (VAULT, Picking(("data", "data"), only=("PORT",)), {"PORT": "5432"}),
        (BW, Picking(("login",), {"password": "DB_PASSWORD"}, ("DB_PASSWORD",)), {"DB_PASSWORD": "p"}),
        (BW, Picking(("fields",)), {"A": "x"}),
        ([BW], Picking(("0", "login"), only=("username", "password")), {"username": "u", "password": "p"}),
        (OP, Picking(("fields",), {"password": "DB"}), {"username": "u", "DB": "p"}),
        (OP["fields"], Picking(only=("password",)), {"password": "p"}),
        ({"a-b": "x", "c": None}, Picking((), {"a-b": "AB"}, ("AB",)), {"AB": "x"}),
    ],
)
def test_output_of_other_tools(document: Any, picking: Picking, found: dict[str, str]) -> None:
    assert secrets(json.dumps(document), picking) == found
    picking.check("f", list(found))


def test_a_missing_selection() -> None:
    with pytest.raises(Problem, match=r"f:1: data\.dta: not there") as raised:
        parse(json.dumps(VAULT).encode(), "f", None, None, Secrets(), Picking(("data", "dta")))
    assert "data, metadata" in (raised.value.hint or "")
    with pytest.raises(Problem, match="f: not JSON, of which select"):
        parse(b"A=1", "f", None, None, Secrets(), Picking(("data",)))
    for picking in (Picking(only=("A", "B")), Picking(rename={"b": "B"})):
        with pytest.raises(Problem, match="f: B: named by"):
            picking.check("f", ["A"])


def test_secrets_excluded_by_only_are_not_checked(tmp_path: pathlib.Path) -> None:
    found = Secrets()
    parse(b"a-b=@none\nA=1\n", "f", str(tmp_path), None, found, Picking(only=("A",)))
    assert found.texts == {"A": "1"}


def test_expires_of_a_whole_request() -> None:
    moment = "2126-05-31T03:30:00Z"
    found = Secrets()
    text = json.dumps({"op": "push-creds", "secrets": {"A": "x", "B": "y"}, "expires": {"A": moment}})
    parse(text.encode(), "f", None, None, found)
    assert (found.names(), found.expires) == (["A", "B"], {"A": moment})
    assert secrets('{"expires": "a secret of that name"}') == {"expires": "a secret of that name"}
