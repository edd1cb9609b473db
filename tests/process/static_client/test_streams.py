"""Both forms of `remo-secret` with unusual streams, terminals, locales and signals, and what the
static one passes to Python."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.machine import poll
from tests.support.processes import state
from tests.support.scripted_peer import HOLD, NEXT, PONG, ScriptedPeer, Step, allowlist, binary, value

if TYPE_CHECKING:
    from tests.process.static_client.conftest import Both

WAIT_SECONDS = 60
GET = ("get", "T")
REPLY: list[Step] = [NEXT, PONG, value("s3cret")]

# --- streams and signals ---------------------------------------------------------------------------------------------


def test_a_full_disk(both: Both) -> None:
    with ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, value("x" * 50000)]):
        done = both.run("--socket", "p.sock", *GET, stdout=lambda: os.open("/dev/full", os.O_WRONLY))
    assert (done.returncode, done.stderr) == (1, b"remo-secret: output: No space left on device\n")


def test_a_closed_pipe(both: Both) -> None:
    def closed_pipe() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        return writer

    for reply in (value("x"), value("x" * 50000), allowlist(*(f"N{number}" for number in range(3000)))):
        with ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, reply]):
            command = ("list",) if b"allowlist" in reply else GET
            done = both.run("--socket", "p.sock", *command, stdout=closed_pipe)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("path", ["p.sock", "missing.sock"])
def test_streams_that_the_caller_has_closed(both: Both, closed: str, path: str) -> None:
    with ScriptedPeer(both.directory / "p.sock", REPLY):
        done = both.run("--socket", path, *GET, through=["sh", "-c", f'exec "$@" {closed}', "sh"])
    assert done.returncode == (5 if "missing" in path else 1 if "1>" in closed else 0)


@pytest.mark.parametrize("text", ['{"ok":true 1}', '{"ok":tru}', '{"ok', "{", '{"\\x":1}', "[1.}", "\xe4"])
@pytest.mark.parametrize(
    "command", ["get", "get --field=a", "git-credential --host=a.org --secret=T", "aws-credentials"]
)
def test_invalid_json_in_a_fresh_process(both: Both, text: str, command: str) -> None:
    """The table of cases runs Python with its modules loaded; without them, its scanner fails
    differently. A password may begin with a brace."""
    command += " get" if "git" in command else " T"
    request = r"printf 'protocol=https\nhost=a.org\n\n'"
    for reply in (value(text), text.encode("latin-1") + b"\n"):
        with ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, reply]):
            done = both.run("--socket", "p.sock", *command.split(), through=["sh", "-c", f'{request} | "$@"', "sh"])
        assert b"internal error" not in done.stderr
        if "git" in command:
            assert (done.returncode == 0) == (reply == value(text))


@pytest.mark.parametrize("text", ["99\x1b]0;title\x07", "\x9b31m", "\x7f", "\u202eright"])
@pytest.mark.parametrize(
    "command", ["get T", "get --field=username T", "git-credential --host=a.org --secret=T get", "aws-credentials T"]
)
def test_no_value_that_a_terminal_obeys_is_written_to_one(both: Both, text: str, command: str) -> None:
    names = ("username", "password", "aws_access_key_id", "aws_secret_access_key")
    bundle = json.dumps(dict.fromkeys(names, text))
    for content in (text, bundle):
        for argv in both.argvs("--socket", "p.sock", *command.split()):
            with ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, value(content)]):
                shown = programs.answer_on_terminal(argv, b"protocol=https\nhost=a.org\n\n", {}, both.directory)
            assert not {"\x1b", "\x07", "\x9b", "\x7f", "\u202e"} & set(shown.decode())
            assert b"remo-secret: T " in shown or content == bundle


@pytest.mark.parametrize("operation", ["get", "store"])
def test_git_whose_request_cannot_be_read(both: Both, operation: str) -> None:
    done = both.run("git-credential", operation, through=["sh", "-c", 'exec "$@" 0<&-', "sh"])
    assert (done.returncode, done.stderr) == (1, b"remo-secret: standard input: Bad file descriptor\n")


@pytest.mark.parametrize("stderr", ["2>&1", "2>&-", "2>/dev/full"])
def test_a_warning_that_cannot_be_written_does_not_change_the_status(both: Both, stderr: str) -> None:
    request = r"printf 'protocol=https\nhost=example.org\n\n'"
    through = ["sh", "-c", f'{request} | "$@" {stderr}', "sh"]
    done = both.run("git-credential", "--host=example.org:8443", "--secret=T", "get", through=through)
    assert (done.returncode, b"Hint: " in done.stdout) == (0, stderr == "2>&1")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (value("s3cret"), 0),
        (value("s3cret\n"), 0),
        (value(""), 0),
        (value("a\tb\r\nc"), 0),
        (value("\u20ac \u6f22 \U0001f511"), 0),
        (value("\x1b]0;owned\x07"), 1),
        (value("a\x9bb"), 1),
        (value("\u202e"), 1),
        (value("\ufeff"), 1),
        (binary("AAEC"), 1),
        (binary("aGVsbG8="), 0),
        (binary("/w=="), 1),
    ],
)
def test_on_a_terminal(both: Both, reply: bytes, status: int) -> None:
    shown = []
    for argv in both.argvs("--socket", both.directory / "p.sock", *GET):
        with ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, reply]):
            shown.append(programs.run_on_terminal(argv, {}, both.directory))
    assert shown[0].status == status
    assert (shown[1].status, shown[1].text) == (shown[0].status, shown[0].text)


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1", "xx_XX", ""])
def test_the_locale_changes_no_byte(both: Both, locale: str) -> None:
    if locale not in ("C.UTF-8", ""):
        programs.require_ascii_path()
    text = "na\u00efve \u20ac \U0001f511"
    env = {"LC_ALL": locale, "LANG": locale}
    with ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, value(text)]):
        assert both.run("--socket", "p.sock", *GET, env=env).stdout == text.encode()
    assert both.run("--socket", "missing.sock", *GET, env=env).returncode == 5


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_signals_end_it(both: Both, number: signal.Signals, status: int) -> None:
    for argv in both.argvs("--socket", "p.sock", *GET):
        with (
            ScriptedPeer(both.directory / "p.sock", [NEXT, PONG, HOLD]) as peer,
            subprocess.Popen(
                argv, cwd=both.directory, env=programs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process,
        ):
            poll("the request", lambda: peer.requests and peer.requests[0])
            poll("it to wait for the reply", lambda: state(process.pid) == "S")
            process.send_signal(number)
            out, err = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, out, err) == (status, b"", b"")


# --- what is handed to Python ----------------------------------------------------------------------------------------

HANDED = [
    [],
    ["--help"],
    ["-h"],
    ["--version"],
    ["get"],
    ["get", "--help"],
    ["get", "-hf", "T"],
    ["get", "A", "B"],
    ["get", ""],
    ["get", "-x", "T"],
    ["get", "--filed=x", "T"],
    ["get", "T", "--field"],
    ["get", "--field=", "T"],
    ["get", "--wait=soon", "T"],
    ["get", "--wait=86401", "T"],
    ["get", "--timeout=1", "T"],
    ["--field=x", "get", "T"],
    ["get", "\udcff"],
    ["get", "x" * 2000],
    ["fetch"],
    ["--socket"],
    ["--socket=", "list"],
    ["list", "x"],
    ["list", "--help=1"],
    ["wait", "--timeout=-1"],
    ["wait", "--timeout=1e3"],
    ["wait", "--timeout=" + "9" * 500],
    ["wait", "now"],
    ["git-credential"],
    ["git-credential", "get", "x"],
    ["git-credential", "--host=x", "get"],
    ["git-credential", "--host=x", "--secret=A", "--host=X", "--secret=B", "get"],
    ["aws-credentials"],
    ["aws-credentials", "A", "B"],
    ["aws-credentials", "--field=a", "T"],
    ["docker-credential", "get"],
    ["exec", "--", "echo", "handed"],
    ["render"],
]


@pytest.mark.parametrize("arguments", HANDED, ids=lambda one: " ".join(one)[:40].encode("ascii", "replace").decode())
def test_unknown_commands_are_passed_to_python(both: Both, installed: pathlib.Path, arguments: list[str]) -> None:
    both.static = installed
    both.run(*arguments, env={"REMO_BROKER_SOCKET": str(both.directory / "missing.sock")})


def test_without_python_it_names_what_is_missing(alone: pathlib.Path) -> None:
    for arguments, status in ((["exec", "--", "true"], 1), (["--help"], 1), (["get"], 2), (["get", "--nonsense"], 2)):
        done = subprocess.run([alone, *arguments], capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (status, b"")
        assert b"needs the Python program" in done.stderr
        assert b"\nHint: " in done.stderr


def test_the_one_file_beside_it_is_used(alone: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "remo-secret"
    copy.write_bytes(alone.read_bytes())
    copy.chmod(0o755)
    (tmp_path / "remo-secret.pyz").write_text('#!/bin/sh\necho "the one file: $@"\n')
    (tmp_path / "remo-secret.pyz").chmod(0o755)
    done = subprocess.run([copy, "exec", "--", "a b"], capture_output=True, check=True)
    assert done.stdout == b"the one file: exec -- a b\n"
