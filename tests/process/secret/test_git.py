"""`remo-secret git-credential`, run by git itself; no host gets another host's token."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.secret.commands import PROGRAM
from remo_broker.secret.servers import GIT_SERVERS
from tests.support import programs
from tests.support.broker import registration
from tests.support.machine import poll, unavailable
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker
    from tests.support.broker import Broker


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    names = ("GH_TOKEN", "GITLAB_TOKEN", "login", "KEY", "odd", "MISSING")
    broker = start_broker(projects=[registration("myrepo", *names)])
    broker.push(
        {
            "GH_TOKEN": "zqGithubzq",
            "GITLAB_TOKEN": "zqGitlabzq",
            "login": {"username": "alice", "password": "zqPasswordzq"},
            "odd": "a\nb",
        },
        KEY="AA==",
    )
    return broker


def ask(broker: Broker, question: str, *options: str, operation: str = "get") -> subprocess.CompletedProcess[bytes]:
    where = f"--socket={broker.project()}"
    return programs.run(programs.SECRET, where, "git-credential", *options, operation, stdin=question.encode())


GITHUB = "protocol=https\nhost=github.com\n\n"
FORGE = ("--host", "git.example.org:8443", "--secret", "login")


def test_known_hosts(broker: Broker) -> None:
    assert ask(broker, GITHUB).stdout == b"username=x-access-token\npassword=zqGithubzq\n"
    done = ask(broker, "protocol=https\nhost=GitLab.com\nwwwauth[]=Basic\nwwwauth[]=Bearer\n")
    assert done.stdout == b"username=oauth2\npassword=zqGitlabzq\n"
    assert [one["REMO_SECRET"] for one in broker.records("fetch")] == ["GH_TOKEN", "GITLAB_TOKEN"], "none was guessed"


def test_lines_may_end_with_crlf(broker: Broker) -> None:
    assert b"password=zqGithubzq\n" in ask(broker, GITHUB.replace("\n", "\r\n") + "host=other\r\n").stdout


def test_an_empty_line_ends_the_request(broker: Broker) -> None:
    """A user who types the request need not close the input."""
    argv = programs.command(programs.SECRET, f"--socket={broker.project()}", "git-credential", "get")
    with subprocess.Popen(
        argv, env=programs.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdin.write(GITHUB.encode())
        assert asked.wait(20) == 0
        assert b"password=zqGithubzq\n" in asked.stdout.read()


def test_own_host(broker: Broker) -> None:
    done = ask(broker, "protocol=https\nhost=git.example.org:8443\npath=x.git\n\n", *FORGE)
    assert done.stdout == b"username=alice\npassword=zqPasswordzq\n"


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("protocol=http\nhost=github.com\n\n", ()),
        ("protocol=ssh\nhost=github.com\n\n", ()),
        ("protocol=https\nhost=github.com.attacker.example\n\n", ()),
        ("protocol=https\nhost=github.example\n\n", ()),
        ("protocol=https\nhost=github.com:8443\n\n", ()),
        ("protocol=https\nhost=bitbucket.org\n\n", ()),
        (GITHUB, FORGE),
        ("protocol=https\nhost=git.example.org:8443\nusername=bob\n\n", FORGE),
        ("protocol=https\n\nhost=github.com\n", ()),
        ("protocol=https\n", ()),
        ("host=github.com\n", ()),
        ("protocol=https\nhost=\n", ()),
        ("protocol\nhost\n", ()),
        ("\r\n" + GITHUB, ()),
        ("a=" + "x" * 65536 + "\n" + GITHUB, ()),
        ("", ()),
    ],
)
def test_other_hosts_get_no_answer(broker: Broker, question: str, options: tuple[str, ...]) -> None:
    done = ask(broker, question, *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("options", [(), ("--host=x",)])
@pytest.mark.parametrize("operation", ["store", "erase", "capability", "of-the-future", ""])
def test_every_other_operation_is_ignored(broker: Broker, operation: str, options: tuple[str, ...]) -> None:
    done = ask(broker, GITHUB + "username=x\npassword=y\n", *options, operation=operation)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not broker.records("fetch")


def test_a_git_that_knows_ephemeral_credentials_is_told_not_to_store(broker: Broker) -> None:
    done = ask(broker, "capability[]=authtype\ncapability[]=state\n" + GITHUB)
    lines = done.stdout.split(b"\n")
    assert lines[0] == b"capability[]=authtype"
    assert b"ephemeral=1" in lines


@pytest.mark.parametrize("key", ["host", "protocol", "username"])
def test_a_key_that_occurs_twice_is_refused(broker: Broker, key: str) -> None:
    question = f"protocol=https\nhost=attacker.example\nusername=a\n{key}=github.com\n\n"
    assert f"the key {key} twice" in refused(ask(broker, question), 1)
    assert not broker.records("fetch")
    assert ask(broker, question, operation="store").returncode == 0


def test_every_pair_of_host_and_secret_is_used(broker: Broker) -> None:
    pairs = (*FORGE, "--host=other.example.org", "--secret=GITLAB_TOKEN")
    assert b"alice" in ask(broker, "protocol=https\nhost=git.example.org:8443\n\n", *pairs).stdout
    assert b"zqGitlabzq" in ask(broker, "protocol=https\nhost=OTHER.example.org\n\n", *pairs).stdout
    refused(ask(broker, GITHUB, *pairs, "--host=third.example.org"), 2)
    refused(ask(broker, GITHUB, "--host=a", "--host=a", "--secret=login", "--secret=GH_TOKEN"), 2)


def test_another_port_is_another_server_and_the_reason_is_given(broker: Broker) -> None:
    done = ask(broker, "protocol=https\nhost=localhost:8443\n\n", "--host=localhost", "--secret=login")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"--host=localhost:8443" in done.stderr


def test_bytes_are_utf8_in_every_locale(broker: Broker) -> None:
    programs.require_ascii_path()
    broker.push({"GH_TOKEN": "p\u00e4ss\u20ac"})
    for locale in ("C", "POSIX", "en_US.iso88591", "C.UTF-8"):
        where = f"--socket={broker.project()}"
        done = programs.run(
            programs.SECRET, where, "git-credential", "get", stdin=GITHUB.encode(), env={"LC_ALL": locale}
        )
        assert done.stdout == "username=x-access-token\npassword=p\u00e4ss\u20ac\n".encode()


def test_a_push_that_comes_late_is_waited_for(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "GH_TOKEN")])
    refused(ask(broker, GITHUB, "--wait=0"), 4)
    argv = programs.command(programs.SECRET, f"--socket={broker.project()}", "git-credential", "get")
    with subprocess.Popen(argv, env=programs.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdin.write(GITHUB.encode())
        asked.stdin.close()
        poll("a second fetch", lambda: len(broker.records("fetch")) == 2)
        broker.push({"GH_TOKEN": "zqLatezq"})
        assert asked.stdout.read().endswith(b"password=zqLatezq\n")


def test_usernames(broker: Broker) -> None:
    assert ask(broker, GITHUB.strip() + "\nusername=bob\n").stdout.startswith(b"username=bob\n")
    assert ask(broker, GITHUB, "--username", "carol").stdout.startswith(b"username=carol\n")


def test_a_password_that_git_cannot_accept(broker: Broker) -> None:
    def secret(name: str) -> subprocess.CompletedProcess[bytes]:
        return ask(broker, GITHUB, "--host", "github.com", "--secret", name)

    assert "line break" in refused(secret("odd"), 1)
    assert "KEY is binary" in refused(secret("KEY"), 1)
    assert "MISSING, for github.com: " in refused(secret("MISSING"), 4)
    assert "OTHER, for github.com: " in refused(secret("OTHER"), 3)
    broker.push({"login": {"user": "x"}})
    assert "no field 'password'" in refused(secret("login"), 1)


def test_the_help_shows_the_table_of_hosts() -> None:
    rows = re.findall(r"^  (\S+\.\S+) +(\S.*)$", PROGRAM.commands["git-credential"].details, re.MULTILINE)
    assert {host: tuple(names.split(", ")) for host, names in rows} == {
        host: server.names for host, server in GIT_SERVERS.items()
    }


def test_with_git(broker: Broker, directory: pathlib.Path) -> None:
    if shutil.which("git") is None:
        unavailable("git is not installed")
    command = [sys.executable, "-P", "-m", programs.SECRET, "--socket", str(broker.project()), "git-credential"]
    helper = f"!{shlex.join(command)}"
    environment = programs.environment({"HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"})

    def git(*arguments: str, stdin: str = "") -> str:
        return subprocess.run(
            ["git", *arguments], env=environment, input=stdin, capture_output=True, text=True, check=True
        ).stdout

    git("config", "--global", "credential.helper", helper)
    git("config", "--global", "--add", "credential.helper", f"{helper} {' '.join(FORGE)}")
    filled = git("credential", "fill", stdin="url=https://github.com/x/y\n\n")
    assert "username=x-access-token\npassword=zqGithubzq\n" in filled
    git("credential", "approve", stdin=filled)
    git("credential", "reject", stdin=filled)
    assert "password=zqPasswordzq\n" in git("credential", "fill", stdin="url=https://git.example.org:8443/x/y\n\n")
