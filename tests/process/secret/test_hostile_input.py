"""`remo-secret` shows input from a hostile listener or repository as escaped text."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.secret import doctor, git_command
from remo_broker.secret.commands import EXIT_RATE_LIMITED
from remo_broker.secret.project_directory import check_untracked
from tests.support import programs
from tests.support.hostile_peer import ANSWERS, COMMANDS, HOSTILE, OBEYED, REPLIES, REQUESTS, Listener
from tests.support.links import chain
from tests.support.machine import unavailable
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def listener(directory: pathlib.Path) -> Iterator[Listener]:
    with Listener(str(directory / "hostile.sock")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def environment(listener: Listener, directory: pathlib.Path, memory: pathlib.Path) -> dict[str, str]:
    return {
        "HOME": str(directory),
        "XDG_RUNTIME_DIR": str(memory),  # in /dev/shm, other tests would meet what is rendered
        "REMO_BROKER_SOCKET": os.fspath(listener.server_address),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_control_characters(
    listener: Listener, directory: pathlib.Path, environment: dict[str, str], command: list[str], fails: bool
) -> None:
    listener.fails = fails
    done = programs.run(programs.SECRET, *command, stdin=REQUESTS.get(command[0], b""), env=environment, cwd=directory)
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
    assert b"internal error" not in done.stderr


FIELDS = ("username", "password", "token", "aws_access_key_id", "aws_secret_access_key")


@pytest.mark.parametrize("value", [HOSTILE, json.dumps(dict.fromkeys(FIELDS, HOSTILE))], ids=["string", "bundle"])
@pytest.mark.parametrize("command", ANSWERS, ids=" ".join)
def test_no_value_that_a_terminal_obeys_is_written_to_one(
    listener: Listener,
    directory: pathlib.Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    value: str,
) -> None:
    """Whatever the command is for: any can be run by hand."""
    monkeypatch.setitem(REPLIES, "get", {"value": value, "ttl_seconds": 1, "generation": 1})
    listener.escapes = True
    shown = programs.answer_on_terminal(
        programs.command(programs.SECRET, *command), REQUESTS.get(command[0], b""), environment, directory
    )
    assert not [one for one in OBEYED if one in shown]


def test_no_path_that_a_terminal_obeys_is_written_to_one(
    listener: Listener, directory: pathlib.Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = {"fetch_as": "file", "file_path": "~/\u202eright", "file_mode": "0600", "template": "{{value}}"}
    monkeypatch.setitem(REPLIES, "bindings", {"bindings": {"A": [binding]}})
    monkeypatch.setitem(REPLIES, "get", {"value": "v", "ttl_seconds": 1, "generation": 1})
    shown = programs.answer_on_terminal(programs.command(programs.SECRET, "render"), b"", environment, directory)
    assert b"\\u202eright" in shown
    assert not [one for one in OBEYED if one in shown]


def test_numbers_too_large_for_anything_end_in_no_internal_error(
    directory: pathlib.Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REPLIES, "ping", REPLIES["ping"] | {"broker_version": "9" * 5000})
    done = programs.run(programs.SECRET, "doctor", env=environment, cwd=directory)
    assert b"start this container again" in done.stdout
    refusal = {"ok": False, "code": "rate_limited", "message": "later", "retry_after_seconds": 10**400}
    for operation, command in (("get", "env"), ("peek", "check")):
        monkeypatch.setitem(REPLIES, operation, refusal)
        done = programs.run(programs.SECRET, command, env=environment, cwd=directory)
        assert refused(done, EXIT_RATE_LIMITED) == "remo-secret: later"


@pytest.mark.parametrize("field", ["file_path", "template"])
def test_a_binding_that_is_not_text_is_a_malformed_reply(
    listener: Listener,
    directory: pathlib.Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    field: str,
) -> None:
    binding = {"fetch_as": "file", "file_path": "a", "file_mode": "0600", "template": "{{value}}", field: "\ud800"}
    monkeypatch.setitem(REPLIES, "bindings", {"bindings": {"A": [binding]}})
    monkeypatch.setitem(REPLIES, "get", {"value": "v", "ttl_seconds": 1, "generation": 1})
    listener.escapes = True
    done = programs.run(programs.SECRET, "render", env=environment, cwd=directory)
    assert "malformed reply" in refused(done, 1)


@pytest.mark.parametrize(
    "content",
    ["\n" * 500_000, " " * 500_000, "TOKEN" * 100_000, "_auth=" + " " * 500_000, "A=" + " " * 500_000 + "x"],
)
def test_a_file_that_takes_long_to_search(directory: pathlib.Path, content: str) -> None:
    """The search takes a fraction of a second."""
    (directory / ".remo").mkdir()
    (directory / ".remo/manifest.toml").write_text(content[:65_536])
    for name in (".env", ".npmrc", ".pypirc"):
        (directory / name).write_text(content)
    for command in (["doctor"], ["render", "--remove"]):
        done = programs.run(
            programs.SECRET, *command, env={"HOME": str(directory)}, cwd=directory, processor_seconds=10
        )
        assert done.returncode >= 0, "killed"


def test_a_configuration_that_is_nested_deep(directory: pathlib.Path) -> None:
    (directory / ".docker").mkdir()
    (directory / ".docker/config.json").write_text("[" * 100_000)
    env = {"HOME": str(directory)}
    assert b"internal error" not in programs.run(programs.SECRET, "doctor", env=env, cwd=directory).stderr
    done = programs.run(programs.SECRET, "setup", "docker", env=env, cwd=directory)
    assert "is not JSON" in refused(done, 1)


def test_a_fifo_in_place_of_a_manifest(directory: pathlib.Path, environment: dict[str, str]) -> None:
    os.mkfifo(directory / "manifest.toml")
    for command in (["render"], ["render", "--remove"], ["exec", "--", "true"]):
        words = [command[0], "--manifest=manifest.toml", *command[1:]]
        assert "is a FIFO" in refused(programs.run(programs.SECRET, *words, env=environment, cwd=directory), 1)


@pytest.fixture
def repository(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    if shutil.which("git") is None:
        unavailable("git is not installed")
    subprocess.run(["git", "init", "-q", directory], check=True, env=programs.environment())
    monkeypatch.setattr(git_command, "GIT_SECONDS", 0.5)
    monkeypatch.setenv("HOME", str(directory))
    return directory


@pytest.mark.parametrize("place", [".gitignore", ".git/config", ".git/index", ".git/info/exclude"])
def test_git_waits_for_no_fifo_of_the_repository(repository: pathlib.Path, place: str) -> None:
    (repository / place).unlink(missing_ok=True)
    os.mkfifo(repository / place)
    with pytest.raises(Problem, match="git does not tell") as refusal:
        check_untracked(str(repository), str(repository / "secret"))
    assert f": find {repository} " in str(refusal.value.hint), "not git, which runs what the repository names"


@pytest.mark.parametrize("setting", ["", "[include]\n\tpath = /dev/stdin\n"], ids=["fifo", "input"])
def test_doctor_waits_for_no_file_of_the_repository(
    repository: pathlib.Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    if setting:
        monkeypatch.setattr(git_command, "GIT_SECONDS", 60)  # as git ends, however busy the machine is
    config = repository / ".git/config"
    config.unlink()
    if setting:
        config.write_text(setting)
    else:
        os.mkfifo(config)
    reading, writing = os.pipe()
    standard_input = os.dup(0)
    os.dup2(reading, 0)
    try:
        found = [one.what for one in doctor.git_helpers(Arguments())]
    finally:
        os.dup2(standard_input, 0)
        for descriptor in (reading, writing, standard_input):
            os.close(descriptor)
    assert ["git does not answer" in what for what in found] == ([] if setting else [True])


def test_doctor_waits_for_no_fifo_that_takes_a_file_s_place(
    directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(directory / ".env")
    monkeypatch.setattr(os.path, "isfile", lambda _: True)  # as it was when it was looked at
    found: list[str] = []
    search = threading.Thread(target=lambda: found.append(doctor._text(str(directory / ".env"))), daemon=True)
    search.start()
    search.join(20)
    waits = search.is_alive()
    with contextlib.suppress(OSError):
        os.close(os.open(directory / ".env", os.O_WRONLY | os.O_NONBLOCK))
    assert not waits
    assert found == [""]


def test_doctor_waits_for_no_comparison_of_a_hundred_thousand_helpers(repository: pathlib.Path) -> None:
    with (repository / ".git/config").open("a") as config:
        for number in range(100_000):
            config.write(f'[credential "https://u{number}@github.com"]\n\thelper = x\n')
    env = {"HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1"}
    done = programs.run(programs.SECRET, "doctor", env=env, cwd=repository, processor_seconds=20)
    assert b"git has 100000 credential helpers" in done.stdout, done


def test_no_chain_of_links_ends_doctor_or_render(
    directory: pathlib.Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(directory / "chain", 2000)
    (directory / ".env").symlink_to("chain/1999")
    (directory / ".npmrc").write_text("//registry.npmjs.org/:_authToken=x\n")
    done = programs.run(programs.SECRET, "doctor", env=environment, cwd=directory)
    assert (done.stderr, b".npmrc has a token" in done.stdout) == (b"", True)
    file = {"fetch_as": "file", "file_path": "chain/1999/a", "file_mode": "0600", "template": "{{value}}"}
    monkeypatch.setitem(REPLIES, "bindings", {"bindings": {"A": [file]}})
    monkeypatch.setitem(REPLIES, "get", {"value": "v", "ttl_seconds": 1, "generation": 1})
    done = programs.run(programs.SECRET, "render", env=environment, cwd=directory)
    assert "/chain/1999" in refused(done, 1)  # which error it is depends on Python's version


@pytest.mark.takes_root("/proc/kmsg, which waits for the kernel's next message")
@pytest.mark.parametrize("name", [".env", ".npmrc"])
def test_doctor_reads_nothing_of_the_kernel(directory: pathlib.Path, name: str) -> None:
    """A repository can have such a link."""
    (directory / name).symlink_to("/proc/kmsg")
    done = programs.run(programs.SECRET, "doctor", env={"HOME": str(directory)}, cwd=directory)
    assert b"has a token" not in done.stdout


def test_setup_reads_no_configuration_of_the_repository(repository: pathlib.Path) -> None:
    (repository / ".git/config").unlink()
    os.mkfifo(repository / ".git/config")
    done = programs.run(programs.SECRET, "setup", "git", "--dry-run", env={"HOME": str(repository)}, cwd=repository)
    assert (done.returncode, done.stderr) == (0, b"")


def test_doctor_shows_names_of_a_hostile_repository_as_text(directory: pathlib.Path) -> None:
    (directory / f".env.{HOSTILE.replace('/', '')}").write_text("A_TOKEN=x\n")
    done = programs.run(programs.SECRET, "doctor", env={"HOME": str(directory)}, cwd=directory)
    assert b".env.99" in done.stdout
    assert not [one for one in OBEYED if one in done.stdout + done.stderr]
