"""`remo-secret get` and `list`: the pushed bytes, and one line for any error."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.program import Problem
from remo_broker.secret.project_socket import find_socket
from tests.process.secret.conftest import KEY, SECRETS
from tests.support import programs
from tests.support.broker import NOBODY, listen, registration
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.process.secret.conftest import Workspace


def test_the_bytes_as_pushed(project: Workspace) -> None:
    assert project.run("get", "TOKEN").stdout == b"zqTokenzq"
    assert project.run("get", "npm").stdout == b"zqNpm\nzq="
    assert project.run("get", "KEY").stdout == KEY
    assert json.loads(project.run("get", "aws").stdout) == SECRETS["aws"]


def test_one_field(project: Workspace) -> None:
    assert project.run("get", "--field", "id", "aws").stdout == b"zqIdzq"
    assert project.run("get", "aws", "-fkey").stdout == b"zq{{id}}zq"
    assert "Hint: it has id, key" in refused(project.run("get", "aws", "-f", "other"), 4)
    assert "not a bundle" in refused(project.run("get", "TOKEN", "-f", "id"), 1)


def test_on_a_terminal_a_newline_is_added(project: Workspace) -> None:
    assert project.on_terminal("get", "TOKEN").text == "zqTokenzq\r\n"
    assert project.on_terminal("get", "aws", "-f", "id").text == "zqIdzq\r\n"


@pytest.mark.parametrize("value", ["\x1b]0;owned\x07", "a\x9bb", "\u202egnp"])
def test_control_characters_are_not_sent_to_a_terminal(project: Workspace, value: str) -> None:
    project.broker.push({"TOKEN": value})
    shown = project.on_terminal("get", "TOKEN")
    assert shown.status == 1
    assert value not in shown.text
    assert "redirect the output" in shown.text
    assert project.run("get", "TOKEN").stdout == value.encode()


def test_a_binary_secret_is_not_written_to_a_terminal(project: Workspace) -> None:
    shown = project.on_terminal("get", "KEY")
    assert shown.status == 1
    assert "redirect the output" in shown.text


def test_list(project: Workspace) -> None:
    assert project.run("list").stdout == b"TOKEN\nnpm\naws\nKEY\n"
    assert not project.broker.records("fetch"), "info is not a fetch"


def test_exit_status_tells_why(project: Workspace) -> None:
    assert "not in the manifest" in refused(project.run("get", "OTHER"), 3)
    assert "letters, digits and _" in refused(project.run("get", "no name"), 3)
    project.broker.push({})
    assert "last push" in refused(project.run("get", "TOKEN"), 4)
    assert "does not exist" in refused(project.run("--socket", "/nowhere/x.sock", "list"), 5)


def test_no_snapshot(empty: Workspace) -> None:
    assert "no secrets yet" in refused(empty.run("get", "TOKEN"), 4)


def test_rate_limited(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")], rate_limit_per_second=1, rate_limit_burst=1)
    for _ in range(2):
        done = programs.run(programs.SECRET, "--socket", broker.project(), "get", "TOKEN")
    assert "more than 1 request a second;" in refused(done, 6)


def test_wrong_user(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN", allowed_uids=[NOBODY])])
    assert "--allow-uid" in refused(programs.run(programs.SECRET, "--socket", broker.project(), "list"), 3)


def test_another_version_is_named(directory: pathlib.Path) -> None:
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('up', flush=True)\n"
        "c = s.accept()[0]; c.recv(9999)\n"
        """c.sendall(b'{"ok":true,"broker_version":"3.0.0","protocol_version":3,"project":"x"}\\n')\n"""
    )
    path = directory / "x.sock"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        done = programs.run(programs.SECRET, "--socket", path, "get", "TOKEN")
    assert "speaks protocol version 3, this client version 2" in refused(done, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no command given"),
        (["fetch"], "unknown command: 'fetch'"),
        (["get"], "'get' requires NAME"),
        (["get", "A", "B"], "'get' takes NAME, not 2 operands"),
        (["get", "--filed=x", "A"], "unknown option for 'get': '--filed'"),
        (["get", "-x", "A"], "unknown option for 'get': '-x'"),
        (["get", "A", "--field"], "--field requires a value: FIELD"),
        (["list", "--help=1"], "--help takes no value"),
        (["exec"], "'exec' requires COMMAND..."),
        (["exec", "--only", "A", "--"], "'exec' requires COMMAND..."),
        (["wait", "--timeout=soon"], "--timeout must be an integer from 0 to 86400"),
        (["wait", "--timeout=-1"], "--timeout must be an integer"),
        (["git-credential"], "'git-credential' requires OPERATION"),
        (["git-credential", "get", "x"], "'git-credential' takes OPERATION, not 2 operands"),
        (["wait", "--timeout=2.5"], "--timeout must be an integer"),
        (["wait", "--timeout=nan"], "--timeout must be an integer"),
        (["wait", "--timeout=1e9"], "--timeout must be an integer"),
        (["wait", "--timeout=" + "9" * 5000], "--timeout must be an integer"),
        (["git-credential", "--host=x", "get"], "each --host requires a --secret"),
        (["--socket"], "--socket requires a value: PATH"),
    ],
)
def test_misuse_says_what_is_wrong_and_what_to_do(arguments: list[str], says: str) -> None:
    line = refused(programs.run(programs.SECRET, *arguments), 2)
    assert line.startswith(f"remo-secret: {says}"), line
    assert "\nHint: " in line


def test_help_and_version() -> None:
    for arguments in (["-h"], ["--help"], ["get", "-h"], ["--help", "exec"], ["git-credential", "--help"]):
        done = programs.run(programs.SECRET, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"remo-secret ")
        assert max(map(len, done.stdout.decode().splitlines())) <= 80
    assert programs.run(programs.SECRET, "--version").stdout == b"remo-secret 2.0.0 (protocol 2)\n"


def test_output_that_cannot_be_written(project: Workspace) -> None:
    argv = programs.command(programs.SECRET, "get", "TOKEN")
    environment = programs.environment(project.environment)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(argv, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"remo-secret: output: No space left on device\n")
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        done = subprocess.run(argv, env=environment, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""


# --- which socket


def test_option_before_variable(project: Workspace, start_broker: StartBroker) -> None:
    done = project.run("list", "--socket", "/nowhere/a.sock", env={"REMO_BROKER_SOCKET": str(project.broker.project())})
    assert "/nowhere/a.sock" in refused(done, 5)


@pytest.mark.parametrize("command", [("list",), ("wait", "--timeout=60"), ("exec", "true")])
def test_a_socket_of_the_host(project: Workspace, command: tuple[str, ...]) -> None:
    assert "is a socket of the host" in refused(
        project.run(*command, env={"REMO_BROKER_SOCKET": str(project.broker.admin)}), 1
    )


def test_the_find_socket_in_the_directory(directory: pathlib.Path) -> None:
    def problem() -> str:
        with pytest.raises(Problem) as raised:
            find_socket(str(directory))
        assert raised.value.status == 5
        return str(raised.value)

    assert "has no socket of a project" in problem()
    for name in ("admin.sock", "status.sock", "myrepo.sock"):
        listen(directory / name).close()
    listen(directory / "$(id>pwned).sock").close()
    assert find_socket(str(directory)) == f"{directory}/myrepo.sock"
    listen(directory / "other.sock").close()
    assert "several sockets: myrepo.sock, other.sock" in problem()
    listen(directory / "broker.sock").close()
    assert find_socket(str(directory)) == f"{directory}/broker.sock", "a mounted directory has this one"
    with pytest.raises(Problem, match="nowhere does not exist"):
        find_socket(str(directory / "nowhere"))


@pytest.mark.takes_root("running as another user")
def test_a_directory_without_search_permission(directory: pathlib.Path) -> None:
    directory.chmod(0o711)
    code = f"from remo_broker.secret.project_socket import find_socket; find_socket({str(directory)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=programs.environment(),
        user=NOBODY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Permission denied (mode 0711, root:root; you are nobody)" in done.stderr
