"""`remo-secret exec` and `render`: everything or nothing, into variables and files, and then the command itself."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.program import Problem
from remo_broker.manifest.rules import SEARCH
from remo_broker.secret import tmpfs
from tests.process.secret.conftest import KEY, MANIFEST
from tests.support import programs
from tests.support.broker import NOBODY, registration
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.process.secret.conftest import Project


def variables(done: subprocess.CompletedProcess[bytes]) -> dict[bytes, bytes]:
    """What `env -0` printed."""
    assert done.returncode == 0, done.stderr
    return dict(line.split(b"=", 1) for line in done.stdout.split(b"\0") if line)


def test_variables_and_files(project: Project) -> None:
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


def test_files_lie_in_memory_with_their_mode(project: Project) -> None:
    done = project.run("render")
    targets = [str(project.home / ".aws/credentials"), str(project.home / "keys/app.key")]
    assert done.stdout.decode().splitlines() == targets
    assert [os.readlink(target) for target in targets] == [f"{project.rendered}/aws", f"{project.rendered}/KEY"]
    assert [pathlib.Path(target).stat().st_mode & 0o7777 for target in targets] == [0o600, 0o440]
    assert (project.home / ".aws").stat().st_mode & 0o7777 == 0o700
    assert tmpfs.is_in_memory(str(project.rendered))
    assert sorted(os.listdir(project.rendered)) == ["KEY", "KEY.place", "aws", "aws.place"], "no temporary file"
    assert {one["REMO_SECRET"] for one in project.broker.records("fetch")} == {"aws", "KEY"}, "only what it renders"


def test_the_command_is_the_process(project: Project) -> None:
    """Its exit status, its signals, its process id: nobody stands between."""
    assert project.run("exec", "sh", "-c", "exit 42").returncode == 42
    assert project.run("exec", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    argv = programs.command(programs.SECRET, "exec", "--", "sh", "-c", "echo $$")
    environment = programs.environment(project.environment)
    with subprocess.Popen(argv, env=environment, cwd=project.path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


def test_signals_are_as_every_program_expects_them(project: Project) -> None:
    """Python ignores SIGPIPE, and an ignored signal stays ignored over execve: `yes | head` would not end."""
    done = project.run("exec", "--only=npm", "sh", "-c", "grep SigIgn /proc/self/status")
    assert int(done.stdout.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


def test_arguments_are_the_commands_own(project: Project) -> None:
    done = project.run("exec", "printf", "%s.", "--only", "--", "-h", "get")
    assert done.stdout == b"--only.--.-h.get."
    assert project.run("exec", "--only", "npm", "--", "printf", "%s.", "--").stdout == b"--."


def test_standard_streams_are_the_commands_own(project: Project) -> None:
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


def test_nothing_starts_when_a_secret_is_missing(project: Project) -> None:
    mark = project.path / "started"
    project.broker.push({"TOKEN": "x", "aws": {"id": "x", "key": "x"}})
    line = refused(project.run("exec", "touch", str(mark)), 4)
    assert "npm, KEY" in line
    assert "TOKEN" not in line
    assert not mark.exists()
    assert not (project.home / ".aws").exists(), "nor is any file written"


def test_more_names_than_may_be_fetched_at_once(start_broker: StartBroker) -> None:
    names = [f"S{number}" for number in range(4)]
    project = registration("myrepo", *names)
    broker = start_broker(projects=[project], rate_limit_per_second=2, rate_limit_burst=3)
    broker.push(dict.fromkeys(names, "x"))
    found = variables(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "env", "-0"))
    assert found.keys() >= {name.encode() for name in names}


def test_a_name_that_the_broker_does_not_allow(project: Project) -> None:
    """The manifest was edited and not reloaded: the broker's list rules."""
    project.manifest.write_text(MANIFEST + "[secrets.LATER]\n")
    line = refused(project.run("exec", "true"), 3)
    assert "LATER: not in the manifest of myrepo" in line
    assert "reload myrepo" in line


def test_no_snapshot(empty: Project) -> None:
    line = refused(empty.run("exec", "true"), 4)
    assert "TOKEN, npm, aws, KEY: the broker holds no secrets yet" in line


def test_however_many_are_missing_it_is_one_line_to_read(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", *(f"S{number}" for number in range(200)))])
    broker.push({})
    line = refused(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "true"), 4)
    assert "S0, S1, " in line
    assert ", S19, ... and 180 more: the manifest allows it, but" in line


def test_only(project: Project) -> None:
    found = variables(project.run("exec", "--only", "TOKEN,npm", "env", "-0"))
    assert {b"GH_TOKEN", b"NPM"} <= found.keys()
    assert not (project.home / ".aws").exists()
    found = variables(project.run("exec", "--only=TOKEN", "--only", "aws", "env", "-0"))
    assert b"NPM" not in found
    assert (project.home / ".aws/credentials").exists()
    assert "OTHER is not in" in refused(project.run("exec", "--only", "OTHER", "true"), 1)
    assert "names of secrets" in refused(project.run("exec", "--only", "a b", "true"), 2)
    assert b"GH_TOKEN" not in variables(project.run("exec", "--only", "", "env", "-0"))


def test_without_a_manifest_the_allowlist_goes_into_variables(project: Project) -> None:
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": {"id": "1"}, "KEY": "k"})
    found = variables(project.run("exec", "env", "-0", cwd=project.home))
    assert (found[b"TOKEN"], found[b"NPM"], found[b"KEY"]) == (b"t", b"n", b"k")
    assert json.loads(found[b"AWS"]) == {"id": "1"}


def test_binary_in_a_variable(project: Project) -> None:
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": "a"}, KEY="//4=")
    assert variables(project.run("exec", "env", "-0", cwd=project.home))[b"KEY"] == b"\xff\xfe"
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": "a"}, KEY="AAE=")
    assert "KEY holds a zero byte" in refused(project.run("exec", "true", cwd=project.home), 1)


def test_commands_that_cannot_be_run(project: Project) -> None:
    assert "no such command" in refused(project.run("exec", "no-such", env={"PATH": "/usr/bin:/nowhere"}), 127)
    assert "cannot be run (Permission denied)" in refused(project.run("exec", "/etc/passwd"), 126)
    assert "cannot be run (it is a directory)" in refused(project.run("exec", "/etc"), 126)
    assert "no such command" in refused(project.run("exec", ""), 127)
    assert "no such command" in refused(project.run("exec", "no-such", env={"PATH": "/etc/passwd:/nowhere:"}), 127)
    assert "cannot be run (Permission denied)" in refused(project.run("exec", "passwd", env={"PATH": "/etc"}), 126)
    assert not project.broker.records("fetch"), "what cannot be started gets no secret fetched"


@pytest.mark.parametrize(
    ("content", "why"), [("#!/no/such/program\n", "the interpreter"), ("echo\n", "Exec format error")]
)
def test_a_command_that_fails_at_the_last_moment(project: Project, content: str, why: str) -> None:
    script = project.path / "script"
    script.write_text(content)
    script.chmod(0o755)
    assert f"cannot be run ({why}" in refused(project.run("exec", "./script"), 126)
    assert not list(project.home.iterdir())
    assert not os.listdir(project.rendered), "no file is left of what was not started"
    project.run("render")
    refused(project.run("exec", "./script"), 126)
    assert (project.home / "keys/app.key").read_bytes() == KEY, "but what was there before is"


def test_a_command_in_the_working_directory(project: Project) -> None:
    script = project.path / "script"
    script.write_text("#!/bin/sh\necho $0\n")
    script.chmod(0o755)
    assert project.run("exec", "script", env={"PATH": "/nowhere::/usr/bin:/bin"}).stdout == b"./script\n"


def test_the_working_directory_is_gone(project: Project) -> None:
    gone = project.path / "gone"
    code = (
        f"import os; os.mkdir({str(gone)!r}); os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); os.execv(argv[0], argv)"
    )
    argv = programs.command(programs.SECRET, "exec", "/bin/true")
    done = subprocess.run(
        [argv[0], "-c", f"argv = {argv!r}; {code}"],
        env=programs.environment(project.environment),
        capture_output=True,
        check=False,
    )
    assert "the working directory has been removed" in refused(done, 1)


# --- which manifest


def test_files_take_a_manifest(project: Project) -> None:
    """To have written none in the wrong directory would be found out by whatever wants them."""
    line = refused(project.run("render", cwd=project.home), 1)
    assert "no manifest of myrepo is here or above; go to the project's directory, or give --manifest" in line
    project.manifest.write_text('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\n')
    done = project.run("render")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), "one that wants no file is no error"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_a_working_directory_that_may_not_be_looked_into(directory: pathlib.Path) -> None:
    """As after `sudo -u`: a directory in which one is, and that one may not reach by its name."""
    (directory / "closed/inside").mkdir(parents=True)
    (directory / "closed").chmod(0o700)
    where = f"{directory}/closed/inside"
    told = f"{where}: Permission denied; go to another directory, or give --manifest"
    for code, says in (("assert projects_nearby(None) == []", ""), ("list(_above())", told)):
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"from remo_broker.secret.bindings import _above, projects_nearby; {code}"],
            env=programs.environment(),
            cwd=where,
            user=NOBODY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr.rstrip().endswith(says)
        assert bool(done.stderr) == bool(says), done.stderr


def test_from_below_the_project(project: Project) -> None:
    below = project.path / "src/deep"
    below.mkdir(parents=True)
    assert variables(project.run("exec", "env", "-0", cwd=below))[b"GH_TOKEN"] == b"zqTokenzq"


def test_manifest_by_name(project: Project) -> None:
    for path in (str(project.manifest), str(project.path), os.path.relpath(project.path, project.home)):
        done = project.run("exec", "--manifest", path, "env", "-0", cwd=project.home)
        assert variables(done)[b"GH_TOKEN"] == b"zqTokenzq"
    assert "has none of .devcontainer/remo-broker.toml" in refused(project.run("render", "--manifest", "/usr"), 1)
    assert "No such file" in refused(project.run("render", "--manifest", "/nowhere"), 1)


def test_a_manifest_of_another_project(project: Project) -> None:
    """A nested repository's is passed over; where there is no other, that is an error and not a guess."""
    nested = project.path / "vendor/other"
    (nested / ".remo").mkdir(parents=True)
    (nested / ".remo/manifest.toml").write_text('schema_version = 1\nproject = "other"\n[secrets.X]\n')
    assert variables(project.run("exec", "env", "-0", cwd=nested))[b"GH_TOKEN"] == b"zqTokenzq"
    project.manifest.unlink()
    line = refused(project.run("exec", "true", cwd=nested), 1)
    assert "is the manifest of other, but" in line
    assert "--manifest" in line
    assert "is the manifest of other" in refused(project.run("exec", "--manifest", str(nested), "true"), 1)


def test_a_strangers_manifest_does_not_count(project: Project) -> None:
    """It says which files to write into the home directory, and /tmp is where anybody can leave one."""
    project.path.chmod(0o1777)
    assert b"GH_TOKEN" not in variables(project.run("exec", "--only", "TOKEN", "env", "-0"))


@pytest.mark.parametrize("place", SEARCH)
@pytest.mark.parametrize("form", ["binding", "allowlist"])
def test_each_place_and_spelling(project: Project, place: tuple[str, str], form: str) -> None:
    project.manifest.unlink()
    text = MANIFEST
    if form == "allowlist":
        text = text.replace(
            'project = "myrepo"', '[project]\nname = "myrepo"\n[allowlist]\nsecrets = ["TOKEN", "npm", "aws"]'
        )
    (project.path / place[0]).mkdir(exist_ok=True)
    project.path.joinpath(*place).write_text(text)
    found = variables(project.run("exec", "env", "-0"))
    assert (found[b"GH_TOKEN"], found[b"NPM"]) == (b"zqTokenzq", b"zqNpm\nzq=")
    assert (project.home / ".aws/credentials").exists()
    assert (project.home / "keys/app.key").exists() == (form == "binding"), "what the allowlist lacks is not fetched"


def test_a_broken_manifest(project: Project) -> None:
    project.manifest.write_text("schema_version = 1\nproject = \n")
    assert re.search(r"myrepo: not TOML at line 2", refused(project.run("exec", "true"), 1))
    project.manifest.write_text(MANIFEST.replace("0600", "rw"))
    assert "remo-brokerctl check" in refused(project.run("exec", "true"), 1)


def test_two_secrets_for_one_place(project: Project) -> None:
    project.manifest.write_text(MANIFEST + '[secrets.KEY2]\nenv_var = "NPM"\n')
    project.manifest.write_text(MANIFEST.replace("[secrets.npm]", '[secrets.npm]\nenv_var = "GH_TOKEN"'))
    assert "same variable GH_TOKEN" in refused(project.run("exec", "true"), 1)
    project.manifest.write_text(MANIFEST.replace("keys/app.key", "~/.aws/../.aws/credentials"))
    assert "same file" in refused(project.run("exec", "true"), 1)


# --- files


def test_a_real_file_is_not_replaced(project: Project) -> None:
    (project.home / ".aws").mkdir()
    credentials = project.home / ".aws/credentials"
    credentials.write_text("mine")
    line = refused(project.run("render"), 1)
    assert "was not rendered by remo-secret; move it away" in line
    assert credentials.read_text() == "mine"
    assert not (project.home / "keys").exists(), "nothing else is written either"
    credentials.unlink()
    credentials.symlink_to("/etc/passwd")
    refused(project.run("render"), 1)
    assert os.readlink(credentials) == "/etc/passwd"
    credentials.unlink()
    (project.home / "keys").mkdir()
    (project.home / "keys/app.key").write_text("mine")
    refused(project.run("exec", "true"), 1)
    assert not os.path.lexists(credentials), "nor is what comes before it in the manifest"


def test_rendering_anew_replaces_what_was_rendered(project: Project) -> None:
    project.run("render")
    project.broker.push({"aws": {"id": "new", "key": "k"}}, KEY="AA==")
    assert project.run("render").returncode == 0
    assert "id=new" in (project.home / ".aws/credentials").read_text()


def test_a_reader_never_sees_half_a_file(project: Project) -> None:
    """The link and the file are each put in place in one step; an open file keeps its old content."""
    project.run("render")
    with (project.home / "keys/app.key").open("rb") as before:
        project.broker.push({"aws": {"id": "new", "key": "k"}}, KEY="AA==")
        project.run("render")
        assert before.read() == KEY


def test_remove(project: Project) -> None:
    project.run("render")
    assert project.run("render", "--remove").returncode == 0
    assert not os.path.lexists(project.home / ".aws/credentials")
    assert not os.listdir(project.rendered)
    assert project.run("render", "--remove").returncode == 0, "twice does no harm"
    credentials = project.home / ".aws/credentials"
    credentials.write_text("mine")
    project.run("render", "--remove")
    assert credentials.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_a_directory_that_is_not_ours_is_not_used(project: Project) -> None:
    """/dev/shm is everybody's: somebody may have made our directory before us, to read what we put there."""
    outer = project.rendered.parent
    outer.mkdir()
    os.chown(outer, 65534, 65534)
    assert "belongs to somebody else" in refused(project.run("render"), 1)
    outer.rmdir()
    (project.memory / "elsewhere").mkdir()
    outer.symlink_to(project.memory / "elsewhere")
    refused(project.run("render"), 1)
    assert not list((project.memory / "elsewhere").iterdir())
    outer.unlink()
    outer.mkdir()
    outer.chmod(0o777)
    assert "others may write" in refused(project.run("render"), 1)


def test_a_disk_is_not_rendered_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime directory on a disk is passed over; with nothing else, that is an error."""
    on_disk = project.home / "runtime"
    on_disk.mkdir()
    assert not tmpfs.is_in_memory(str(on_disk))
    assert not tmpfs.is_in_memory("/nowhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(on_disk))
    assert tmpfs.find_memory() in tmpfs.candidates()[1:]
    monkeypatch.setattr(tmpfs, "CANDIDATES", (str(project.home),))
    with pytest.raises(Problem, match="is a tmpfs of yours or root's that you may write to; mount one"):
        tmpfs.find_memory()
