"""A hostile listener, a hostile repository and another user against the installed programs."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.hostile_peer import COMMANDS, OBEYED, REQUESTS
from tests.support.machine import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from tests.support.machine import Machine
    from tests.support.operator import Operator

PEER = f"{SOURCE}/tests/support/hostile_peer.py"
# In a world-writable directory; an attack would create the other names in it.
PLACE = "/tmp/attacks"
SOCKET = f"{PLACE}/hostile.sock"
PWNED = f"{PLACE}/pwned"
# Names that no broker would accept: a variable's assignment, letters, a NUL, what a shell carries
# out, and what a terminal obeys.
NAMES = ["A=B", "\u00e9", "A\0", f"$(touch {PWNED})", f"`touch {PWNED}`", f"x;touch {PWNED}", "\x1b]0;x\x07"]
# As bash calls a completion at the end of a line.
TAB = """
compopt() { :; }
source /usr/share/bash-completion/completions/$1
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_${1/-/_}
printf '%s\\n' "${COMPREPLY[@]}"
"""
# On a terminal of its own.
ON_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
PROGRAMS = ("remo-broker", "remo-broker-bus", "remo-brokerctl", "remo-secret", "remo-sidecar")


@pytest.fixture
def place(machine: Machine) -> str:
    machine.run(["sh", "-c", f"rm -rf {PLACE} && mkdir -m 1777 {PLACE}"])
    return PLACE


@pytest.fixture
def victim(machine: Machine, operator: Operator) -> str:
    """An ordinary user who may use the projects' sockets."""
    name = operator.member()
    assert machine.ids(name)[0] >= 1000
    return name


@pytest.fixture
def attacker(operator: Operator, place: str) -> str:
    return operator.outsider()


@contextlib.contextmanager
def listening(machine: Machine, user: str, *names: str) -> Iterator[Callable[[], str]]:
    """A hostile listener of that user; yields a function that ends it and returns what it
    received."""
    peer = machine.popen(["/usr/bin/python3", "-IS", PEER, SOCKET, json.dumps(names or ["A"])], user=user)
    try:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "up\n"
        yield lambda: peer.communicate(timeout=60)[0]
    finally:
        if peer.poll() is None:
            peer.communicate(timeout=60)


def secret(
    machine: Machine, user: str | None, *arguments: str, stdin: str = "", cwd: str = "/", **variables: str
) -> CompletedProcess[str]:
    env = {"REMO_BROKER_SOCKET": SOCKET, "HOME": PLACE, **variables}
    command = ["env", "-C", cwd, "remo-secret", *arguments]
    return machine.run(command, user=user, stdin=stdin, env=env, check=False)


def tab(machine: Machine, user: str, *words: str) -> list[str]:
    env = {"REMO_BROKER_SOCKET": SOCKET}
    return machine.run(["bash", "-c", TAB, "bash", *words], user=user, env=env).stdout.split()


# --- a listener


def test_a_hostile_listener_controls_no_command(machine: Machine, victim: str, place: str) -> None:
    """It belongs to the victim's own user; otherwise clients would send nothing."""
    for names in (["A"], *([name] for name in NAMES)):
        with listening(machine, victim, *names):
            for command in COMMANDS if names == ["A"] else (["list"], ["exec", "--", "true"], ["env"], ["render"]):
                stdin = REQUESTS.get(command[0], b"").decode()
                done = secret(machine, victim, *command, stdin=stdin)
                shown = (done.stdout + done.stderr).encode()
                assert not [one for one in OBEYED if one in shown], (names, command)
                assert "internal error" not in done.stderr, (names, command)
                assert names == ["A"] or done.returncode == 1, (names, command)
            assert tab(machine, victim, "remo-secret", "get", "") == ["A"] * (names == ["A"])
    assert not machine.path(PWNED).exists()


def test_no_name_reaches_what_programs_load(machine: Machine, victim: str, place: str) -> None:
    for name in ("ld_preload", "PYTHONSTARTUP", "NODE_OPTIONS", "BASH_ENV", "GIT_SSH_COMMAND"):
        with listening(machine, victim, name):
            done = secret(machine, victim, "exec", "--", "true")
            assert (done.returncode, "env_var" in done.stderr) == (1, True), (name, done.stderr)


def test_a_listener_of_another_user_is_sent_nothing(machine: Machine, attacker: str, victim: str) -> None:
    for user in (None, victim):
        with listening(machine, attacker) as received:
            for command in COMMANDS:
                secret(machine, user, *command, stdin=REQUESTS.get(command[0], b"").decode())
            if user is None:
                for arguments in (["status"], ["push"], ["clear"], ["unregister", "app"]):
                    operate = ["remo-brokerctl", f"--socket={SOCKET}", *arguments]
                    done = machine.run(operate, stdin="A=zqMarkerqz\n", check=False)
                    assert (done.returncode != 0, done.stdout) == (True, "")
            assert received() == ""


def test_tab_evaluates_no_socket_s_name(machine: Machine, operator: Operator, place: str) -> None:
    operator.register("app", ["A"])
    names = (f"$(touch {PWNED}).sock".replace("/", "\N{FRACTION SLASH}"), "$(cd tmp;cd attacks;touch pwned).sock")
    machine.run(["sh", "-c", 'cd /run/remo-broker && touch "$@"', "sh", *names])
    done = machine.run(["env", "-C", "/", "bash", "-c", TAB, "bash", "remo-brokerctl", "show", ""])
    assert done.stdout.split() == ["app"]
    assert not machine.path(PWNED).exists()


def test_a_duplicate_key_gets_no_token(machine: Machine, operator: Operator, victim: str) -> None:
    socket = operator.register("app", ["GITHUB_TOKEN"])
    operator.push({"GITHUB_TOKEN": "zqMarkerqz"})
    for request in ("host=github.com\nhost=attacker.example\n", "host=attacker.example\nhost=github.com\n"):
        stdin = f"protocol=https\n{request}\n"
        done = secret(machine, victim, "git-credential", "get", stdin=stdin, REMO_BROKER_SOCKET=socket)
        assert "zqMarkerqz" not in done.stdout + done.stderr
    stdin = "protocol=https\nhost=github.com\n\n"
    asked = secret(machine, victim, "git-credential", "get", stdin=stdin, REMO_BROKER_SOCKET=socket)
    assert "zqMarkerqz" in asked.stdout


# --- a repository


BINDINGS = """schema_version = 1
project = "app"
[secrets.TOKEN]
env_var = "TOKEN"
[secrets.KEY]
fetch_as = "file"
file_path = "key"
file_mode = "0666"
template = "{{value}}"
"""


def test_only_the_registered_manifest_applies_and_files_belong_to_the_user(
    machine: Machine, operator: Operator, victim: str, attacker: str
) -> None:
    """With a nearer manifest, and a directory in memory that another user created first."""
    project, vendored = "/home/dev/projects/app", "/home/dev/projects/app/vendor/app"
    machine.run(["rm", "-rf", project])
    machine.write(f"{project}/.remo/manifest.toml", BINDINGS)
    machine.write(f"{vendored}/.remo/manifest.toml", BINDINGS.replace('"TOKEN"', '"LD_PRELOAD"'))
    socket = operator.do("register", name="app", project_path=project)["socket_path"]
    operator.push({"TOKEN": "zqTokenqz", "KEY": "zqKeyqz"})
    uid, _ = machine.ids(victim)
    machine.run(["sh", "-c", "rm -rf /dev/shm/remo-secret-*"])  # of a run that failed
    machine.run(["mkdir", f"/dev/shm/remo-secret-{uid}"], user=attacker)
    script = 'printf "%s|%s|" "$TOKEN" "$LD_PRELOAD"; cat "$HOME/key"'
    found = "zqTokenqz||zqKeyqz"
    for cwd in (project, vendored, "/"):
        done = secret(machine, victim, "exec", "--", "sh", "-c", script, cwd=cwd, REMO_BROKER_SOCKET=socket)
        assert done.stdout == found, (cwd, done.stderr)
    rendered = machine.run(["readlink", "-f", f"{PLACE}/key"]).stdout.strip()
    assert rendered.startswith(f"/dev/shm/remo-secret-{uid}-")
    modes = machine.run(["stat", "-c", "%a %u", rendered, os.path.dirname(rendered)]).stdout
    assert modes == f"600 {uid}\n700 {uid}\n"
    assert machine.run(["cat", rendered], user=attacker, check=False).returncode != 0
    assert not list(machine.path(f"/dev/shm/remo-secret-{uid}").iterdir())
    machine.run(["sh", "-c", "rm -r /dev/shm/remo-secret-*"])


def test_a_repository_neither_blocks_an_operator_nor_reveals_a_file(
    machine: Machine, operator: Operator, attacker: str
) -> None:
    project = f"{PLACE}/app"
    machine.run(["sh", "-c", f"mkdir -p {project}/.devcontainer && mkfifo {project}/.devcontainer/remo-broker.toml"])
    for command in ("check", "register"):
        done = machine.run(["remo-brokerctl", command, project], check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    operator.register("app", ["T"])
    machine.run(["sh", "-c", f"mkfifo {PLACE}/fifo; ln -s /etc/shadow {project}/link; echo own >{project}/own"])
    machine.run(["sh", "-c", f"install -m 600 /etc/hostname {project}/roots"])
    machine.run(["chown", "-hR", f"{attacker}:", project])
    machine.run(["chown", "root:", f"{project}/roots"])
    assert machine.run(["remo-brokerctl", "push", f"{PLACE}/fifo"], check=False).returncode == 1
    for path in (
        "/etc/shadow",
        "/etc/hostname",
        "link",
        "../../../etc/shadow",
        "roots",
        ".devcontainer/remo-broker.toml",
        ".",
    ):
        machine.write(f"{project}/.env", f"T=@{path}\n")
        machine.run(["chown", f"{attacker}:", f"{project}/.env"])
        done = machine.run(["remo-brokerctl", "push", f"{project}/.env"], check=False)
        assert done.returncode == 1, path
    assert operator.do("status")["secret_count"] == 0
    machine.write(f"{project}/.env", "T=@own\n")
    machine.run(["chown", f"{attacker}:", f"{project}/.env"])
    machine.run(["remo-brokerctl", "push", f"{project}/.env"])
    assert operator.get("app", "T")["value"] == "own\n"


# --- the caller's surroundings


def test_the_caller_does_not_choose_roots_pager(machine: Machine, operator: Operator, place: str) -> None:
    """Neither by its name, nor by PATH, nor by options for `less`."""
    operator.register("app", ["A"])
    script = f'#!/bin/sh\n[ "$LESSSECURE" = 1 ] && [ -z "$LESSSECURE_ALLOW" ] || touch {PWNED}\nexec cat\n'
    for name, text in (
        ("less", script),
        *((name, f"#!/bin/sh\ntouch {PWNED}\nexec cat\n") for name in ("more", "pager", "mine")),
    ):
        machine.write(f"{PLACE}/{name}", text)
        machine.path(f"{PLACE}/{name}").chmod(0o755)

    def listed(path: str, pager: str) -> str:
        variables = [f"PATH={path}", f"PAGER={pager}", f"SYSTEMD_PAGER={pager}", "LESSSECURE_ALLOW=shell,pipe,edit"]
        command = ["env", *variables, "TERM=dumb", "/usr/bin/python3", "-c", ON_TERMINAL, "/usr/bin/remo-brokerctl"]
        return machine.run([*command, "list"]).stdout

    for pager in ("mine", "more", f"{PLACE}/mine", f"sh -c 'touch {PWNED}'"):
        assert "app" in listed(f"{PLACE}:/usr/bin:/bin", pager)
        assert not machine.path(PWNED).exists(), pager
    machine.path(f"{PLACE}/less").unlink()
    assert "app" in listed(PLACE, "mine")
    assert not machine.path(PWNED).exists()


def test_no_program_imports_from_its_working_directory(machine: Machine, place: str) -> None:
    planted = f"{PLACE}/planted"
    code = f"open({PWNED!r}, 'w')\n"
    for name in ("json", "os", "site", "sitecustomize", "usercustomize", "encodings/__init__", "remo_broker/__init__"):
        machine.write(f"{planted}/{name}.py", code)
    machine.write(f"{PLACE}/.local/lib/python3/site-packages/attacker.pth", f"import os; {code}")
    env = {"PYTHONPATH": planted, "PYTHONUSERBASE": f"{PLACE}/.local", "PYTHONSTARTUP": f"{planted}/json.py"}
    env |= {"HOME": PLACE, "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error::json.Attacker", "PYTHONBREAKPOINT": "json.x"}
    for program in PROGRAMS:
        machine.run(["env", "-C", planted, program, "--version"], env=env)
        assert not machine.path(PWNED).exists(), program
    # For the static client: the program that it starts.
    machine.run(["env", "-C", planted, "remo-secret", "doctor"], env=env, check=False)
    assert not machine.path(PWNED).exists()
