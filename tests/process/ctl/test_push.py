"""`remo-brokerctl push`: secrets come from files and standard input, never from the command line, and nowhere else go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import Operator, write_project
from tests.support.broker import registration
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker

VALUE = "zqMarkerqz"


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
    assert "B is also given by" in refused(served.run("push", directory / "b.json", directory / "b.json"), 1)
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
    refused(served.run("push", stdin=b'{"A":null}'), 1)
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
    assert "secrets_b64" in refused(served.run("push", stdin=lone.encode()), 1)


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
