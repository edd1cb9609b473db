"""`remo-brokerctl push`: secrets come from files and standard input, never from the command line, and nowhere else go."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.cli.program import Problem
from remo_broker.ctl.secrets_file import Secrets, parse
from tests.process.ctl.conftest import Operator, write_project
from tests.support.broker import registration
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker

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


# --- what is read


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
    ("text", "says"),
    [
        (f"A=1\n{VALUE}\n", "f:2: not NAME=value"),
        (f'A="{VALUE}\n', "f:1: the quotes around A do not close"),
        (f"A='{VALUE}' {VALUE}\n", "f:1: the quotes around A do not close"),
        (f"{VALUE}-='x\n", "f:1: the quotes around a value do not close"),
        (f"A=1\n\nA={VALUE}\n", "f:3: A stands twice"),
        (f"{VALUE}-x=1\n", "f:1: a name that no secret can have"),
        (
            f"A=@{VALUE}\n",
            "f:1: the file for A: No such file or directory; write a value that begins with @ in single quotes",
        ),
        (f"{VALUE}-=@{VALUE}\n", "f:1: the file for a value: No such file"),
        ("A=@\n", "f:1: A=@ names no file; write A='@'"),
        (f'{{"A": "{VALUE}', "f:1:7: not JSON from here on"),
        (f'{{"A": "{VALUE}", "A": "x"}}', "f: a key stands twice"),
        (f'{{"A": {{"b": "{VALUE}", "b": ""}}}}', "f: a key stands twice"),
        (f'{{"A": ["{VALUE}"]}}', "f: A is neither a string nor an object of strings"),
        ('{"A": 5}', "write numbers in quotes"),
        (f'{{"A": {{"x": {{"y": "{VALUE}"}}}}}}', "f: A is neither"),
        (f'{{"A": {{"{VALUE}-": "y"}}}}', "f: A has a field with a name that none can have"),
        (f'{{"{VALUE}-": "y"}}', "f: a name that no secret can have"),
        (f'{{"secrets": {{}}, "secrets_b64": {{"A": "{VALUE}!"}}}}', "f: A is not base64"),
        (f'{{"secrets": {{"A": "x"}}, "secrets_b64": {{"A": "{VALUE}"}}}}', "f: A"),
        ('{"secrets": {}, "OTHER": {}}', "f: beside secrets and secrets_b64 nothing may stand"),
        (f'{{"secrets": {{}}, "OTHER": "{VALUE}"}}', "f: beside secrets and secrets_b64 nothing may stand"),
        (f'{{"secrets": {{}}, "secrets_b64": "{VALUE}"}}', "f: secrets_b64 is not an object"),
        (f'{{"secrets": "{VALUE}", "secrets_b64": {{}}}}', "f: secrets is not an object"),
        ('{"op": "clear-creds"}', "f: a request with the op clear-creds, not secrets; write"),
        (f'{{"op": "push-creds", "TOKEN": "{VALUE}"}}', "f: a request with the op push-creds, not secrets; write"),
        ('{"A": ' + "7" * 5000 + "}", "f: A is neither a string nor an object of strings; write numbers in quotes"),
        ('{"A": NaN}', "f: A is neither"),
        ("{" * 20_000, "not JSON|nested too deep"),
        ('{"A": ' + "[" * 200_000, "not JSON|nested too deep"),
    ],
)
def test_faults_name_the_place_and_no_value(text: str, says: str) -> None:
    with pytest.raises(Problem, match=says) as raised:
        parse(text.encode(), "f", "/nowhere", None, Secrets())
    assert VALUE not in str(raised.value)


def test_not_utf8() -> None:
    with pytest.raises(Problem, match="f: not UTF-8 at byte 2; to push its bytes as one secret, give NAME=@PATH"):
        parse(b"A=\xff", "f", ".", None, Secrets())


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


# --- what is pushed


@pytest.fixture
def served(start_broker: StartBroker) -> Operator:
    return Operator(start_broker(projects=[registration("myrepo", "A", "B", "KEY", "aws")], rate_limit_per_second=0))


def test_from_standard_input(served: Operator) -> None:
    assert served.says("push", stdin=b'{"A":"x","aws":{"id":"1"}}') == "Pushed 2 secrets; generation 1.\n"
    assert served.broker.get("aws")["value"] == '{"id":"1"}'
    assert served.says("push", "-", stdin=b"A=only\n") == "Pushed 1 secret; generation 2.\n"
    assert served.broker.get("A")["value"] == "only"
    assert served.broker.get("aws")["reason"] == "not_in_snapshot"
    assert served.json("push", stdin=b"{}")["secret_count"] == 0


def test_from_files(served: Operator, directory: pathlib.Path) -> None:
    (directory / "sub").mkdir()
    (directory / "sub/key.bin").write_bytes(b"\0\xff")
    (directory / "sub/s.env").write_text("A=x\nKEY=@key.bin\n")
    (directory / "b.json").write_text('{"B":"y"}')
    served.says("push", directory / "sub/s.env", directory / "b.json", f"aws=@{directory}/sub/key.bin")
    assert served.broker.get("KEY")["value_b64"] == served.broker.get("aws")["value_b64"] == "AP8="
    assert [served.broker.get(name)["value"] for name in "AB"] == ["x", "y"]
    done = served.run("push", "KEY=@sub/key.bin", cwd=directory)
    assert done.stdout == b"Pushed 1 secret; generation 2.\n", "with no FILE beside it, standard input is not read"
    assert "B stands twice" in refused(served.run("push", directory / "b.json", directory / "b.json"), 1)
    assert served.says("push", "--format=dotenv", "-", stdin=b"{A=x\n".replace(b"{", b"")).startswith("Pushed 1")
    assert refused(served.run("push", directory / "none"), 1).endswith(f"{directory}/none: No such file or directory")


def test_no_value_on_the_command_line(served: Operator, directory: pathlib.Path) -> None:
    line = refused(served.run("push", f"A={VALUE}"), 2)
    assert "no value of A belongs on the command line" in line
    assert VALUE not in line
    assert served.broker.status()["secrets_loaded_at"] is None
    line = refused(served.run("push", f"{VALUE}-a={VALUE}"), 2)
    assert "no value belongs on the command line" in line
    assert "NAME=@PATH" in line
    assert VALUE not in line, (
        "not even where what stands before the sign is no name: it may be the beginning of a value"
    )
    line = refused(served.run("push", f"{VALUE}-a=@{VALUE}"), 2)
    assert "a name before =@ that no secret can have; names are letters" in line
    assert VALUE not in line
    assert "nothing behind =@; write NAME=@PATH" in refused(served.run("push", "A=@"), 2)
    (directory / "A=x").write_text("B=from a file with an odd name")
    assert served.run("push", "A=x", cwd=directory).returncode == 0


def test_no_value_is_typed(served: Operator) -> None:
    shown = served.on_terminal("push")
    assert shown.status == 2
    assert "they would show on a terminal" in shown.text


def test_nothing_is_not_taken_for_no_secrets(served: Operator, directory: pathlib.Path) -> None:
    """It is what a program before the pipe leaves when it fails."""
    served.broker.push({"A": "kept"})
    (directory / "empty").write_bytes(b" \n\t\r\n")
    for arguments, source in (([], "standard input"), (["-"], "standard input"), ([directory / "empty"], "empty")):
        line = refused(served.run("push", *arguments), 1)
        assert (
            f"{source}: there is nothing in it; to forget all secrets say 'remo-brokerctl clear', or push {{}}" in line
        )
    assert "there is nothing in it" in refused(served.run("push", "--dry-run"), 1)
    assert served.broker.get("A")["value"] == "kept"
    served.says("push", stdin=b"# none for now\n")
    assert served.broker.get("A")["reason"] == "not_in_snapshot", "who writes a comment means it"


def test_a_fault_changes_nothing(served: Operator) -> None:
    served.broker.push({"A": "kept"})
    refused(served.run("push", stdin=b'{"A":5}'), 1)
    refused(served.run("push", stdin=b"x" * (2 << 20)), 1)
    line = refused(served.run("push", stdin=json.dumps({"A": "x" * 70_000}).encode()), 1)
    assert "A" in line
    assert served.broker.get("A")["value"] == "kept"


def test_too_much(served: Operator, directory: pathlib.Path) -> None:
    many = {f"N{number}": "x" * 60_000 for number in range(17)}
    text = json.dumps(many | {"LAST": "y" * 50_000}).encode()
    assert "standard input: larger than the 1048576 bytes" in refused(served.run("push", stdin=text), 1)
    text = json.dumps(many | {"LAST": "\n" * 10_000}).encode()
    (directory / "large").write_bytes(bytes(20_000))
    line = refused(served.run("push", "-", f"KEY=@{directory}/large", stdin=text), 1)
    assert "would have 10" in line
    assert "at most 1048576 are taken; leave something out" in line
    lone = r'{"A":"\ud800"}'
    assert "push such a value as bytes" in refused(served.run("push", stdin=lone.encode()), 1)


def test_clear(served: Operator) -> None:
    served.broker.push({"A": "x"})
    assert served.says("clear") == "Cleared: the broker holds no secrets.\n"
    assert served.broker.status()["secret_count"] == 0
    assert served.json("clear") == {"secret_count": 0}


def test_dry_run(operator: Operator, directory: pathlib.Path) -> None:
    for name, *secrets in (("one", "A", "B"), ("two", "A"), ("three", "C", "B", "A")):
        operator.says("register", write_project(directory, name, *secrets))
    assert operator.says("push", "--dry-run", stdin=b"A=x\n", status=1).splitlines() == [
        "PROJECT  WOULD LACK",
        "one      B",
        "three    C, B",
        "",
        "2 of 3 projects would lack something. Nothing was changed.",
    ]
    assert operator.json("push", "--dry-run", stdin=b"A=x\nB=y\n", status=1) == {
        "secret_count": 2,
        "project_count": 3,
        "unsatisfied": [{"name": "three", "missing": ["C"]}],
    }
    text = operator.says("push", "--dry-run", stdin=b"A=x\nB=y\nC=z\n")
    assert text == "3 secrets would satisfy all 3 projects. Nothing was changed.\n"
    assert operator.broker.status()["secrets_loaded_at"] is None


def test_no_value_anywhere_else(served: Operator) -> None:
    for arguments in (["push"], ["push", "--dry-run"], ["push", "-j"]):
        done = served.run(*arguments, stdin=f"A={VALUE}\nB={VALUE}\n".encode())
        assert VALUE.encode() not in done.stdout + done.stderr
    assert VALUE not in served.broker.log.read_text()
