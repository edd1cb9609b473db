"""`push` and `check`: secrets from all kinds of sources, and errors of those that fail."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import first_lines, refused

if TYPE_CHECKING:
    from tests.process.sidecar.conftest import Supplied

VALUE = "zqMarkerqz"


def script(supplied: Supplied, body: str, name: str = "vault") -> str:
    """A program that runs `body`, which is Python."""
    file = supplied.directory / name
    file.write_text(f"{first_lines('-IS')}import os, sys, time\n{body}\n")
    file.chmod(0o755)
    return str(file)


def source(**keys: object) -> str:
    return "[[source]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def test_all_kinds_of_sources(supplied: Supplied) -> None:
    secrets = supplied.directory / "secrets"
    (secrets / "inner").mkdir(parents=True)
    (secrets / "github-token").write_bytes(b"t\n")
    (secrets / "KEY").write_bytes(b"\xff\x00\n")
    (secrets / ".hidden").write_text("x")
    (supplied.directory / "extra.env").write_text("B=two\n")
    printed = '{"data": {"data": {"b": {"x": 1.50}, "MORE": null}}}'
    config = supplied.configure(
        source(command=[script(supplied, f"print({printed!r})")], select="data.data", only=["b"])
        + source(file=str(supplied.directory / "extra.env"))
        + source(directory=str(secrets))
        + 'rename = { "github-token" = "A" }\n'
    )
    done = supplied.run(f"--config={config}", "push")
    assert done.stdout == b"Pushed 4 secrets; generation 1.\nAdded 4, removed 0, changed 0.\n", done.stderr
    assert supplied.broker.get("A")["value"] == "t"
    assert supplied.broker.get("B")["value"] == "two"
    assert supplied.broker.get("b")["value"] == '{"x":"1.50"}'
    assert supplied.broker.get("KEY")["value_b64"] == "/wAK", "of bytes nothing is stripped"


def test_on_the_command_line(supplied: Supplied) -> None:
    command = script(supplied, "print('A=' + repr(sys.argv[1]))")
    assert supplied.run("push", "--command", f"{command} 'two words'").returncode == 0
    assert supplied.broker.get("A")["value"] == "two words"
    (supplied.directory / "x.json").write_text('{"B":"y"}')
    assert supplied.run("push", "--command", f"{command} v", "--file", "x.json").returncode == 0
    assert (supplied.broker.get("A")["value"], supplied.broker.get("B")["value"]) == ("v", "y")


def test_credentials_are_a_source(supplied: Supplied) -> None:
    directory = supplied.directory / "credentials"
    directory.mkdir()
    (directory / "secret_A").write_text("sealed\n")
    (directory / "B").write_text("given")
    (directory / "vault-token").write_text("for a command")
    done = supplied.run("push", env={"CREDENTIALS_DIRECTORY": str(directory)})
    assert done.stdout == b"Pushed 2 secrets; generation 1.\nAdded 2, removed 0, changed 0.\n"
    assert supplied.broker.get("A")["value"] == "sealed\n", "as it was kept"
    assert supplied.broker.get("B")["value"] == "given"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit(3)", "exit status 3"),
        (f"print('A={VALUE}'); sys.stdout.flush(); sys.exit(1)", "exit status 1"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("print()", "prints nothing"),
        ("print('{}')", "no secret in it"),
        ("print('# nothing')", "no secret in it"),
        (
            "import signal; signal.signal(13, signal.SIG_DFL); os.write(1, b'x' * (2 << 20))",
            "prints more than 1048576 bytes",
        ),
        ("time.sleep(60)", "timed out after 1 s and was killed"),
        ("os.close(1); time.sleep(60)", "timed out after 1 s and was killed"),
        (f'print(\'{{"A": "{VALUE}", "A": "y"}}\')', "A"),
        (f'print(\'{{"A": {{"x": ["{VALUE}"]}}}}\')', "A.x"),
        (f'print(\'{{"ok": "{VALUE}", "A": null}}\')', "A: null"),
        (f'print(\'{{"bad-name": "{VALUE}"}}\')', "bad-name"),
        (f'print(\'{{"A": "{VALUE}\')', "JSON"),
    ],
)
def test_a_failed_source_leaves_the_broker_unchanged(supplied: Supplied, body: str, says: str) -> None:
    supplied.broker.push({"A": "kept"})
    config = supplied.configure(source(command=[script(supplied, body)], timeout_seconds=1))
    line = refused(supplied.run(f"--config={config}", "push"), 1)
    assert "source 1 (vault)" in line
    assert says in line
    assert VALUE not in line
    assert "\nHint: " in line
    assert supplied.broker.get("A")["value"] == "kept"


@pytest.mark.parametrize("value", [b"\xff" * 50_000, b'"' * 40_000, b"x" * 65_600])
def test_a_value_that_no_project_could_fetch_is_named_by_check_too(supplied: Supplied, value: bytes) -> None:
    """Its reply would be too long, escapes and base64 included."""
    supplied.broker.push({"A": "kept"})
    (supplied.directory / "secrets").mkdir()
    file = supplied.directory / "secrets/B"
    file.write_bytes(value)
    for command in ("check", "push"):
        done = supplied.run(command, "--directory", "secrets")
        assert done.returncode == 1
        assert f"source 1 ({file.parent}): B: too long\nHint: " in done.stderr.decode()
    assert supplied.broker.get("A")["value"] == "kept"


@pytest.mark.parametrize("value", [b"\xff" * 49_000, b'"' * 32_650, b"x" * 65_400])
def test_the_longest_value_that_fits_a_reply_is_pushed(supplied: Supplied, value: bytes) -> None:
    (supplied.directory / "secrets").mkdir()
    (supplied.directory / "secrets/B").write_bytes(value)
    assert supplied.run("push", "--directory", "secrets").returncode == 0
    assert supplied.broker.get("B")["ok"]


def test_files_that_cannot_be_sources(supplied: Supplied) -> None:
    os.mkfifo(supplied.directory / "fifo")
    (supplied.directory / "empty").touch()
    (supplied.directory / "dir").mkdir()
    (supplied.directory / "dir" / "A").touch()
    for option, path, says in (
        ("--file", "fifo", "FIFO"),
        ("--file", "empty", "empty"),
        ("--file", "dir", "directory"),
        ("--file", "gone", "No such file"),
        ("--directory", "gone", "No such file"),
        ("--directory", "dir", "A: empty"),
    ):
        line = refused(supplied.run("push", option, path), 1)
        assert f"source 1 ({supplied.directory / path})" in line
        assert says in line


def test_all_failures_are_named_and_a_name_given_twice_names_both(supplied: Supplied) -> None:
    (supplied.directory / "a.env").write_text("A=x\n")
    good = str(supplied.directory / "a.env")
    config = supplied.configure(source(file="/nowhere/1") + source(file=good) + source(file="/nowhere/2"))
    done = supplied.run(f"--config={config}", "push")
    assert done.stderr.decode().count("No such file") == 2
    config = supplied.configure(source(file=good) + source(file=good, rename={"B": "C"}))
    config = supplied.configure(source(file=good) + source(command=["echo", "A=y"]))
    line = refused(supplied.run(f"--config={config}", "push"), 1)
    assert "source 2 (echo): A is also given by source 1" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no source"),
        ("x = 1", "x: unknown key"),
        ("source = 5", "source: not a list of tables"),
        ("[[source]]", "source 1: needs one of command, file, directory"),
        ('[[source]]\nfile = "/x"\ndirectory = "/y"', "file and directory"),
        ('[[source]]\nfile = "x"', "source 1: file: must be an absolute path"),
        ("[[source]]\ncommand = []", "command: must be a list of strings"),
        ('[[source]]\ncommand = "ls"', "command: must be a list of strings"),
        ('[[source]]\nfile = "/x"\nrefresh_seconds = -1', "refresh_seconds: must be an integer"),
        ('[[source]]\nfile = "/x"\ntimeout_seconds = 3', "timeout_seconds: not for a source with file"),
        ('[[source]]\nfile = "/x"\nfrmat = "json"', "frmat: unknown key"),
        ('[[source]]\nfile = "/x"\nformat = "xml"', "format: must be one of"),
        ('[[source]]\nfile = "/x"\nselect = "a..b"', "select: must be keys"),
        ('[[source]]\nfile = "/x"\nonly = ["a-b"]', "only: must be"),
        ('[[source]]\nfile = "/x"\nrename = {a = "B", c = "B"}', "rename: must not"),
        ('[[source]]\ndirectory = "/x"\nstrip_newline = 1', "strip_newline: must be true or false"),
        ("[[source", "not TOML"),
        ("[[source]]\nfile = '/x'\n" * 65, "65 sources"),
    ],
)
def test_an_invalid_configuration(supplied: Supplied, text: str, says: str) -> None:
    config = supplied.configure(text)
    line = refused(supplied.run(f"--config={config}", "push"), 1)
    assert says in line
    assert "\nHint: " in line


def test_a_configuration_that_begins_with_a_byte_order_mark(supplied: Supplied) -> None:
    (supplied.directory / "a.env").write_text("A=one\n")
    config = supplied.configure("\ufeff" + source(file=str(supplied.directory / "a.env")))
    done = supplied.run(f"--config={config}", "push")
    assert done.returncode == 0, done.stderr
    assert supplied.broker.get("A")["value"] == "one"


def test_usage(supplied: Supplied) -> None:
    assert "no such file" in refused(supplied.run("--config=/nowhere/x", "push"), 1)
    assert "--watch needs --command" in refused(supplied.run("push", "--watch=/x"), 2)
    assert "use one of them" in refused(supplied.run("--config=/x", "push", "--file=/y"), 2)
    assert "must not be empty" in refused(supplied.run("push", "--command= "), 2)


def test_check(supplied: Supplied) -> None:
    (supplied.directory / "a.json").write_text(json.dumps({"A": VALUE, "b": {"x": VALUE * 200}}))
    done = supplied.run("--json=short", "check", "--file=a.json")
    found = json.loads(done.stdout)
    assert VALUE.encode() not in done.stdout + done.stderr
    label = f"source 1 ({supplied.directory}/a.json)"
    assert found == {
        "secrets": [
            {"name": "A", "kind": "string", "source": label, "size": "up to 64 B"},
            {"name": "b", "kind": "bundle", "source": label, "size": "up to 16 KiB"},
        ],
        "unsatisfied": [{"name": "myrepo", "missing": ["B", "KEY"]}],
        "unwatched": [],
        "errors": [],
    }
    assert done.returncode == 1, "a project would lack something"
    (supplied.directory / "a.json").write_text('{"A":"1","B":"2","KEY":"3","b":"4"}')
    done = supplied.run("check", "--file=a.json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"4 secrets would be pushed." in done.stdout
    assert supplied.broker.status()["secrets_loaded_at"] is None
    supplied.broker.stop()
    done = supplied.run("check", "--file=a.json")
    assert done.returncode == 1
    assert b"4 secrets would be pushed." in done.stdout, "what was read is shown all the same"
    assert b"the projects were not checked" in done.stderr


def test_a_commands_standard_error_is_logged_and_its_output_is_not(supplied: Supplied) -> None:
    command = script(supplied, f"print('A={VALUE}'); print('unlocking', file=sys.stderr)")
    done = supplied.run("push", "--command", command)
    assert done.returncode == 0
    assert done.stderr == b"unlocking\n"
    assert VALUE.encode() not in done.stdout


def test_commands_do_not_inherit_the_sidecars_own_variables(supplied: Supplied) -> None:
    command = script(supplied, "print('A=' + ','.join(sorted(os.environ)))")
    environment = {"NOTIFY_SOCKET": "/x", "PYTHONMALLOC": "malloc", "LD_BIND_NOW": "1", "VAULT_ADDR": "v"}
    assert supplied.run("push", "--command", command, env=environment).returncode == 0
    found = supplied.broker.get("A")["value"].split(",")
    assert "VAULT_ADDR" in found
    assert not {"NOTIFY_SOCKET", "PYTHONMALLOC", "LD_BIND_NOW"} & set(found)
