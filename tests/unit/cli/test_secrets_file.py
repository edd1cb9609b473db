"""Secrets as files and tools write them: what is read, and where an error says that it is wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import Picking, Secrets, parse

VALUE = "zqMarkerqz"


def dotenv(text: str) -> dict[str, str | dict[str, str]]:
    secrets = Secrets()
    parse(text.encode(), "f", ".", None, secrets)
    assert not secrets.binaries
    return secrets.texts


def read_json(document: Any) -> Secrets:
    secrets = Secrets()
    parse(json.dumps(document).encode(), "f", ".", None, secrets)
    return secrets


def test_dotenv() -> None:
    text = r"""# a comment
PLAIN=value with spaces # and a comment
export EXPORTED=x
SHARP=a#b
EMPTY=
  INDENTED = padded
SINGLE='literal \n # $HOME'
DOUBLE="a\tb\n\"q\" \$HOME \\ \x"   # comment
SEVERAL="one
two
  three"
AT='@not a file'
EQUALS=a=b==

LAST=end"""
    assert dotenv(text) == {
        "PLAIN": "value with spaces",
        "EXPORTED": "x",
        "SHARP": "a#b",
        "EMPTY": "",
        "INDENTED": "padded",
        "SINGLE": r"literal \n # $HOME",
        "DOUBLE": 'a\tb\n"q" $HOME \\ \\x',
        "SEVERAL": "one\ntwo\n  three",
        "AT": "@not a file",
        "EQUALS": "a=b==",
        "LAST": "end",
    }
    assert list(dotenv("B=1\r\nA=2\r\n").items()) == [("B", "1"), ("A", "2")]
    assert dotenv("\ufeffA=1") == {"A": "1"}
    assert dotenv("# none\n\n") == {}


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z0-9_]{1,12}\Z"), st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_value_goes_through_quotes(values: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    for end in ("\n", "\r\n"):
        assert dotenv("".join(f"{name}={quoted(value)}{end}" for name, value in values.items())) == values


def test_line_ends_in_quotes_stay() -> None:
    """A value is what stands between its quotes, whatever editor wrote the file."""
    text = "A='one\r\ntwo\r\n'\r\nB=\"one\r\ntwo\\\r\nthree\" # comment\r\nC=bare\r\n\r\nD=''\r\nE='x'"
    assert dotenv(text) == {"A": "one\r\ntwo\r\n", "B": "one\r\ntwothree", "C": "bare", "D": "", "E": "x"}
    assert dotenv("A=\u00a0 x\u00a0") == {"A": "\u00a0 x\u00a0"}, "only blanks around a bare value are not its own"


@given(st.text(st.characters(codec="utf-8"), max_size=200) | st.text("A='\"\\\n #@{}", max_size=40))
def test_any_text_is_secrets_or_one_line(text: str) -> None:
    try:
        parse(text.replace("@", "").encode(), "f", "/nowhere", None, Secrets())
    except Problem as problem:
        assert "\n" not in str(problem)  # noqa: PT017 - it is about the text


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (f"A=1\n{VALUE}\n", "f:2: not NAME=value", "quotes"),
        (f'A="{VALUE}\n', "f:1: the quotes around A do not close", "quote"),
        (f"A='{VALUE}' {VALUE}\n", "f:1: the quotes around A do not close", "quote"),
        (f"{VALUE}-='x\n", "f:1: the quotes around a value do not close", "quote"),
        (f"A=1\n\nA={VALUE}\n", "f:3: A is also given by f", "keep one"),
        (f"{VALUE}-x=1\n", "f:1: a name", "letters"),
        (f"A=@{VALUE}\n", "f:1: the file for A: No such file or directory", "single quotes"),
        (f"{VALUE}-=@{VALUE}\n", "f:1: the file for a value: No such file", "single quotes"),
        ("A=@\n", "f:1: A=@ names no file", "A='@'"),
        (f'{{"A": "{VALUE}', "f:1:7: not JSON", "correct"),
        (f'{{"A": "{VALUE}", "A": "x"}}', "f: A: twice", "keep one"),
        (f'{{"A": {{"b": "{VALUE}", "b": ""}}}}', "f: b: twice", "keep one"),
        (f'{{"A": ["{VALUE}"]}}', "f: A: a list", "string"),
        ('{"A": null}', "f: A: null", "leave it out"),
        ('{"A": {"b": null}}', "f: A.b: null", "leave it out"),
        (f'{{"A": {{"x": {{"y": "{VALUE}"}}}}}}', "f: A.x: an object inside an object", "select"),
        ('{"A": {"x-y": "z"}}', "f: A.x-y: a name", "letters"),
        (f'{{"A": {{"{VALUE} x": "y"}}}}', r"f: A.\(key 1\): a name", "letters"),
        ('{"github-token": "y"}', "f: github-token: a name", "rename"),
        (f'{{"ok": "x", "{VALUE} x": "y"}}', r"f: \(key 2\): a name", "rename"),
        (f'{{"secrets": {{}}, "secrets_b64": {{"A": "{VALUE}!"}}}}', "f: secrets_b64.A: not base64", "base64 -w0"),
        ('{"secrets": {"A": "x"}, "secrets_b64": {"A": "AA=="}}', "f: secrets_b64: A is also given by f", "keep one"),
        ('{"secrets": {}, "OTHER": {}}', "f: OTHER: not allowed beside secrets", "move it"),
        (f'{{"secrets": {{}}, "OTHER": "{VALUE}"}}', "f: OTHER: not allowed", "move it"),
        (f'{{"secrets": {{}}, "secrets_b64": "{VALUE}"}}', "f: secrets_b64: not an object", "write"),
        (f'{{"secrets": "{VALUE}", "secrets_b64": {{}}}}', "f: secrets: not an object", "write"),
        ('{"secrets": {"A": "x"}, "expires": {"A": null}}', "f: expires.A: not a string", "time"),
        ('{"op": "clear-creds"}', "f: a request with the op clear-creds", "write"),
        (f'{{"op": "push-creds", "TOKEN": "{VALUE}"}}', "f: a request with the op push-creds", "write"),
        ('{"A": NaN}', "f: NaN", "quotes"),
        ('{"A": "\\ud800"}', "f: A: half of a surrogate pair", "secrets_b64"),
        ("{" * 20_000, "not JSON|nested too deep", ""),
        ('{"A": ' + "[" * 200_000, "not JSON|nested too deep", ""),
        (f'["{VALUE}"]', "f: 0: not an object with a name", "select"),
        (f'[{{"label": "A", "value": "{VALUE}"}}, {{"label": "A", "value": ""}}]', "f: 1: A: twice", "keep one"),
        (f'"{VALUE}"', "f:1: not NAME=value", "quotes"),
    ],
)
def test_faults_name_the_place_and_no_value(text: str, place: str, hint: str) -> None:
    with pytest.raises(Problem, match=place) as raised:
        parse(text.encode(), "f", "/nowhere", None, Secrets())
    assert VALUE not in f"{raised.value} {raised.value.hint}"
    assert hint in (raised.value.hint or "")


def test_not_utf8() -> None:
    with pytest.raises(Problem, match="f: not UTF-8 at byte 2") as raised:
        parse(b"A=\xff", "f", ".", None, Secrets())
    assert "NAME=@PATH" in (raised.value.hint or "")


def test_json_forms() -> None:
    assert read_json({"A": "x", "b": {"c": "d"}}).texts == {"A": "x", "b": {"c": "d"}}
    both = read_json({"secrets": {"A": "x"}, "secrets_b64": {"B": base64.b64encode(b"\0").decode()}})
    assert (both.texts, both.binaries) == ({"A": "x"}, {"B": b"\0"})
    assert read_json({"secrets": "a secret of that name"}).texts == {"secrets": "a secret of that name"}
    assert read_json({}).names() == []
    assert read_json({"op": "a secret", "b": {"c": "d"}}).names() == ["op", "b"]
    assert read_json({"op": {"a": "bundle"}}).texts == {"op": {"a": "bundle"}}


def test_a_whole_request() -> None:
    """What a sidecar sends may be given as it is, by hand or from its log of a test."""
    request = {"op": "push-creds", "secrets": {"A": "x"}, "secrets_b64": {"B": "AA=="}}
    found = read_json(request)
    assert (found.texts, found.binaries) == ({"A": "x"}, {"B": b"\0"})
    del request["secrets_b64"]
    assert read_json(request).texts == {"A": "x"}


def test_no_value_in_a_repr() -> None:
    assert VALUE not in repr(read_json({"A": VALUE}))


def test_numbers_and_booleans_are_the_text_in_the_json() -> None:
    long = "7" * 5000
    text = f'{{"A": 1.10, "B": 1e3, "C": true, "D": false, "E": -0, "F": {long}, "G": {{"port": 5432}}}}'
    secrets = Secrets()
    parse(text.encode(), "f", ".", None, secrets)
    assert secrets.texts == {
        "A": "1.10",
        "B": "1e3",
        "C": "true",
        "D": "false",
        "E": "-0",
        "F": long,
        "G": {"port": "5432"},
    }


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
def test_what_tools_print(document: Any, picking: Picking, found: dict[str, str]) -> None:
    secrets = Secrets()
    parse(json.dumps(document).encode(), "f", None, None, secrets, picking)
    assert secrets.texts == found
    picking.check("f", secrets.names())


def test_a_selection_that_is_not_there() -> None:
    with pytest.raises(Problem, match=r"f: data\.dta: not there") as raised:
        parse(json.dumps(VAULT).encode(), "f", None, None, Secrets(), Picking(("data", "dta")))
    assert "data, metadata" in (raised.value.hint or "")
    with pytest.raises(Problem, match="f: not JSON, of which select"):
        parse(b"A=1", "f", None, None, Secrets(), Picking(("data",)))
    for picking in (Picking(only=("A", "B")), Picking(rename={"b": "B"})):
        with pytest.raises(Problem, match="f: B: named by"):
            picking.check("f", ["A"])


def test_only_spares_what_it_leaves_out() -> None:
    secrets = Secrets()
    parse(b"a-b=@/nowhere\nA=1\n", "f", ".", None, secrets, Picking(only=("A",)))
    assert secrets.texts == {"A": "1"}


def test_an_at_sign_in_what_a_command_prints_is_a_value() -> None:
    secrets = Secrets()
    parse(b"A=@/etc/passwd\n", "f", None, None, secrets)
    assert secrets.texts == {"A": "@/etc/passwd"}


def test_expires_of_a_whole_request() -> None:
    moment = "2126-05-31T03:30:00Z"
    found = read_json({"op": "push-creds", "secrets": {"A": "x", "B": "y"}, "expires": {"A": moment}})
    assert (found.names(), found.expires) == (["A", "B"], {"A": moment})
    assert read_json({"expires": "a secret of that name"}).texts == {"expires": "a secret of that name"}
