"""`remo-secret exec`: everything or nothing, and then the command itself."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from remo_broker.secret import tmpfs
from tests.process.secret.conftest import KEY, MANIFEST, variables
from tests.support import programs
from tests.support.broker import registration
from tests.support.machine import poll
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.process.secret.conftest import Workspace


def test_variables_and_files(project: Workspace) -> None:
    found = variables(project.run("exec", "--", "env", "-0"))
    assert found[b"GH_TOKEN"] == b"zqTokenzq"
    assert found[b"NPM"] == b"zqNpm\nzq="
    assert not {b"TOKEN", b"AWS", b"KEY"} & found.keys()
    assert found[b"HOME"] == str(project.home).encode(), "the rest of the environment is as it was"
    credentials = project.home / ".aws/credentials"
    assert credentials.read_text() == "[default]\nid=zqIdzq\nkey = zq{{id}}zq\n", (
        "what is put in is not looked at again"
    )
    assert (project.home / "keys/app.key").read_bytes() == KEY


def test_files_lie_in_memory_with_their_mode(project: Workspace) -> None:
    done = project.run("render")
    targets = [str(project.home / ".aws/credentials"), str(project.home / "keys/app.key")]
    assert done.stdout.decode().splitlines() == targets
    assert [os.readlink(target) for target in targets] == [f"{project.rendered}/aws", f"{project.rendered}/KEY"]
    assert [pathlib.Path(target).stat().st_mode & 0o7777 for target in targets] == [0o600, 0o400], (
        "the owner's bits alone"
    )
    assert (project.home / ".aws").stat().st_mode & 0o7777 == 0o700
    assert project.rendered.stat().st_mode & 0o7777 == project.rendered.parent.stat().st_mode & 0o7777 == 0o700
    assert tmpfs.is_in_memory(str(project.rendered))
    assert sorted(os.listdir(project.rendered)) == ["KEY", "KEY.place", "aws", "aws.place"], "no temporary file"
    assert {one["REMO_SECRET"] for one in project.broker.records("fetch")} == {"aws", "KEY"}, "only what it renders"


def test_the_command_is_the_process(project: Workspace) -> None:
    """Its exit status, signals and process id are direct: no process is in between."""
    assert project.run("exec", "sh", "-c", "exit 42").returncode == 42
    assert project.run("exec", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    argv = programs.command(programs.SECRET, "exec", "--", "sh", "-c", "echo $$")
    environment = programs.environment(project.environment)
    with subprocess.Popen(argv, env=environment, cwd=project.path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


def test_ignored_signals_are_restored(project: Workspace) -> None:
    """Python ignores SIGPIPE, and an ignored signal stays ignored over execve: `yes | head` would
    not end."""
    done = project.run("exec", "--only=npm", "sh", "-c", "grep SigIgn /proc/self/status")
    assert int(done.stdout.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


def test_arguments_are_the_commands_own(project: Workspace) -> None:
    done = project.run("exec", "printf", "%s.", "--only", "--", "-h", "get")
    assert done.stdout == b"--only.--.-h.get."
    assert project.run("exec", "--only", "npm", "--", "printf", "%s.", "--").stdout == b"--."


def test_standard_streams_are_the_commands_own(project: Workspace) -> None:
    assert project.run("exec", "cat", stdin=b"to the command").stdout == b"to the command"
    done = subprocess.run(
        programs.command(programs.SECRET, "exec", "ls", "/proc/self/fd"),
        env=programs.environment(project.environment),
        cwd=project.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"], "ls has its directory open, and no connection of ours"


def test_nothing_starts_when_a_secret_is_missing(project: Workspace) -> None:
    mark = project.path / "started"
    project.broker.push({"TOKEN": "x", "aws": {"id": "x", "key": "x"}})
    line = refused(project.run("exec", "touch", str(mark)), 4)
    assert "npm, KEY" in line
    assert "TOKEN" not in line
    assert not mark.exists()
    assert not (project.home / ".aws").exists(), "nor is any file written"


def test_more_names_than_the_rate_limit_allows_at_once(start_broker: StartBroker) -> None:
    names = [f"S{number}" for number in range(4)]
    project = registration("myrepo", *names)
    broker = start_broker(projects=[project], rate_limit_per_second=2, rate_limit_burst=3)
    broker.push(dict.fromkeys(names, "x"))
    found = variables(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "env", "-0"))
    assert found.keys() >= {name.encode() for name in names}


def test_an_edited_manifest_takes_effect_when_it_is_reloaded(project: Workspace) -> None:
    edited = MANIFEST.replace("GH_TOKEN", "OTHER") + "[secrets.LATER]\n"
    project.manifest.write_text(edited)
    assert b"OTHER" not in variables(project.run("exec", "env", "-0"))
    assert "LATER is not in the manifest" in refused(project.run("exec", "--only=LATER", "true"), 1)
    line = refused(project.run("exec", "--manifest", str(project.path), "true"), 1)
    assert "is not the manifest that was registered" in line
    assert "reload myrepo" in line
    project.register(MANIFEST.replace("GH_TOKEN", "OTHER"))
    assert variables(project.run("exec", "env", "-0"))[b"OTHER"] == b"zqTokenzq"


def test_no_snapshot(empty: Workspace) -> None:
    line = refused(empty.run("exec", "--wait=0", "true"), 4)
    assert "no secrets yet" in line
    assert "waited 1 s" in refused(empty.run("render", "--wait=1"), 4)


def test_it_waits_for_a_late_push(empty: Workspace) -> None:
    argv = programs.command(programs.SECRET, "exec", "--only=TOKEN", "env", "-0")
    environment = programs.environment(empty.environment)
    with subprocess.Popen(argv, env=environment, cwd=empty.path, stdout=subprocess.PIPE) as process:
        poll("the first fetch", lambda: empty.broker.records("fetch"))
        empty.push_all()
        assert process.stdout is not None
        assert b"GH_TOKEN=zqTokenzq" in process.stdout.read()


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "ld_preload", "PYTHONSTARTUP", "BASH_ENV", "node_options", "PATH"),
        *("AWS_CONFIG_FILE", "KUBECONFIG", "TAR_OPTIONS", "gh_pager", "BORG_PASSCOMMAND", "SBT_OPTS"),
        *("DBUS_SESSION_BUS_ADDRESS", "PS2", "ERL_AFLAGS", "spark_home", "LIBGL_DRIVERS_PATH"),
        *("NULLCMD", "RPROMPT", "GNUMAKEFLAGS", "PYTEST_ADDOPTS", "IPYTHONDIR", "FLASK_APP", "pyenv_root"),
        *("UV_PYTHON", "ssh_sk_helper", "KUBECTL_EXTERNAL_DIFF", "SSH_SK_PROVIDER", "APT_CONFIG", "IRBRC", "GOAUTH"),
    ],
)
def test_a_variable_that_changes_what_programs_load(start_broker: StartBroker, name: str) -> None:
    broker = start_broker(projects=[registration("myrepo", name)])
    broker.push({name: "/tmp/x.so"})
    line = refused(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "true"), 1)
    assert name.upper() in line
    assert "env_var" in line


def test_the_operators_manifest_may_name_such_a_variable(project: Workspace) -> None:
    project.register('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\nenv_var = "NODE_OPTIONS"\n')
    assert variables(project.run("exec", "env", "-0"))[b"NODE_OPTIONS"] == b"zqTokenzq"


def test_many_missing_secrets_are_one_readable_line(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", *(f"S{number}" for number in range(200)))])
    broker.push({})
    line = refused(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "true"), 4)
    assert "S0, S1, " in line
    assert ", S19, ... and 180 more: the manifest allows" in line


def test_only(project: Workspace) -> None:
    found = variables(project.run("exec", "--only", "TOKEN,npm", "env", "-0"))
    assert {b"GH_TOKEN", b"NPM"} <= found.keys()
    assert not (project.home / ".aws").exists()
    found = variables(project.run("exec", "--only=TOKEN", "--only", "aws", "env", "-0"))
    assert b"NPM" not in found
    assert (project.home / ".aws/credentials").exists()
    assert "OTHER is not in" in refused(project.run("exec", "--only", "OTHER", "true"), 1)
    assert "names of secrets" in refused(project.run("exec", "--only", "a b", "true"), 2)
    assert b"GH_TOKEN" not in variables(project.run("exec", "--only", "", "env", "-0"))


def test_exec_does_the_same_in_every_directory(project: Workspace) -> None:
    expected = variables(project.run("exec", "env", "-0"))
    assert expected[b"GH_TOKEN"] == b"zqTokenzq"
    vendored = project.path / "vendor/myrepo"
    (vendored / ".remo").mkdir(parents=True)
    (vendored / ".remo/manifest.toml").write_text(MANIFEST.replace("GH_TOKEN", "LD_PRELOAD"))
    for where in (project.home, vendored, pathlib.Path("/")):
        found = variables(project.run("exec", "env", "-0", cwd=where))
        assert {**found, b"PWD": b""} == {**expected, b"PWD": b""}
    project.path.chmod(0o777)
    assert variables(project.run("exec", "env", "-0")) == expected, "even if others may write to the directory"


BARE = 'schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\n[secrets.npm]\n[secrets.aws]\n[secrets.KEY]\n'


def test_without_bindings_secrets_go_into_variables(project: Workspace) -> None:
    project.register(BARE)
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": {"id": "1"}, "KEY": "k"})
    found = variables(project.run("exec", "env", "-0"))
    assert (found[b"TOKEN"], found[b"NPM"], found[b"KEY"]) == (b"t", b"n", b"k")
    assert json.loads(found[b"AWS"]) == {"id": "1"}


def test_binary_in_a_variable(project: Workspace) -> None:
    project.register(BARE)
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": "a"}, KEY="//4=")
    assert variables(project.run("exec", "env", "-0"))[b"KEY"] == b"\xff\xfe"
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": "a"}, KEY="AAE=")
    assert "KEY has a zero byte" in refused(project.run("exec", "true", cwd=project.home), 1)


def test_commands_that_cannot_be_run(project: Workspace) -> None:
    assert "command not found" in refused(project.run("exec", "no-such", env={"PATH": "/usr/bin:/nowhere"}), 127)
    assert "cannot be executed (Permission denied)" in refused(project.run("exec", "/etc/passwd"), 126)
    assert "cannot be executed (it is a directory)" in refused(project.run("exec", "/etc"), 126)
    assert "command not found" in refused(project.run("exec", ""), 127)
    assert "command not found" in refused(project.run("exec", "no-such", env={"PATH": "/etc/passwd:/nowhere:"}), 127)
    assert "cannot be executed (Permission denied)" in refused(project.run("exec", "passwd", env={"PATH": "/etc"}), 126)
    assert not project.broker.records("fetch"), "what cannot be started gets no secret fetched"


@pytest.mark.parametrize(
    ("content", "why"), [("#!/no/such/program\n", "the interpreter"), ("\x7fELF\0", "Exec format error")]
)
def test_a_command_that_cannot_be_executed_at_the_last_moment(project: Workspace, content: str, why: str) -> None:
    script = project.path / "script"
    script.write_text(content)
    script.chmod(0o755)
    assert f"cannot be executed ({why}" in refused(project.run("exec", "./script"), 126)
    assert not list(project.home.iterdir())
    assert not os.listdir(project.rendered), "no file is left of what was not started"
    project.run("render")
    refused(project.run("exec", "./script"), 126)
    assert (project.home / "keys/app.key").read_bytes() == KEY, "but what was there before is"


def test_a_script_without_an_interpreter_runs_as_under_a_shell(project: Workspace) -> None:
    script = project.path / "script"
    script.write_text("echo $0 $1 $GH_TOKEN\n")
    script.chmod(0o755)
    assert project.run("exec", "./script", "a b").stdout == b"./script a b zqTokenzq\n"


def test_a_command_in_the_working_directory(project: Workspace) -> None:
    script = project.path / "script"
    script.write_text("#!/bin/sh\necho $0\n")
    script.chmod(0o755)
    assert project.run("exec", "script", env={"PATH": "/nowhere::/usr/bin:/bin"}).stdout == b"./script\n"
