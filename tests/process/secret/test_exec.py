"""`remo-secret exec` and `render`: everything or nothing, into variables and files, and then the command itself."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli.program import Problem
from remo_broker.secret import tmpfs
from tests.process.secret.conftest import KEY, MANIFEST, everything_below
from tests.support import programs
from tests.support.broker import NOBODY, registration
from tests.support.machine import poll, unavailable
from tests.support.programs import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    assert [pathlib.Path(target).stat().st_mode & 0o7777 for target in targets] == [0o600, 0o400], (
        "the owner's bits alone"
    )
    assert (project.home / ".aws").stat().st_mode & 0o7777 == 0o700
    assert project.rendered.stat().st_mode & 0o7777 == project.rendered.parent.stat().st_mode & 0o7777 == 0o700
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


def test_an_edited_manifest_counts_when_it_is_reloaded(project: Project) -> None:
    edited = MANIFEST.replace("GH_TOKEN", "OTHER") + "[secrets.LATER]\n"
    project.manifest.write_text(edited)
    assert b"OTHER" not in variables(project.run("exec", "env", "-0"))
    assert "LATER is not in the manifest" in refused(project.run("exec", "--only=LATER", "true"), 1)
    line = refused(project.run("exec", "--manifest", str(project.path), "true"), 1)
    assert "is not the manifest that was registered" in line
    assert "reload myrepo" in line
    project.register(MANIFEST.replace("GH_TOKEN", "OTHER"))
    assert variables(project.run("exec", "env", "-0"))[b"OTHER"] == b"zqTokenzq"


def test_no_snapshot(empty: Project) -> None:
    line = refused(empty.run("exec", "--wait=0", "true"), 4)
    assert "no secrets yet" in line
    assert "waited 1 s" in refused(empty.run("render", "--wait=1"), 4)


def test_a_push_that_comes_late_is_waited_for(empty: Project) -> None:
    argv = programs.command(programs.SECRET, "exec", "--only=TOKEN", "env", "-0")
    environment = programs.environment(empty.environment)
    with subprocess.Popen(argv, env=environment, cwd=empty.path, stdout=subprocess.PIPE) as process:
        poll("the first fetch", lambda: empty.broker.records("fetch"))
        empty.push_all()
        assert process.stdout is not None
        assert b"GH_TOKEN=zqTokenzq" in process.stdout.read()


@pytest.mark.parametrize("name", ["LD_PRELOAD", "ld_preload", "PYTHONSTARTUP", "BASH_ENV", "node_options", "PATH"])
def test_a_variable_that_changes_what_programs_load(start_broker: StartBroker, name: str) -> None:
    broker = start_broker(projects=[registration("myrepo", name)])
    broker.push({name: "/tmp/x.so"})
    line = refused(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "true"), 1)
    assert name.upper() in line
    assert "env_var" in line


def test_the_operators_manifest_may_name_such_a_variable(project: Project) -> None:
    project.register('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\nenv_var = "NODE_OPTIONS"\n')
    assert variables(project.run("exec", "env", "-0"))[b"NODE_OPTIONS"] == b"zqTokenzq"


def test_however_many_are_missing_it_is_one_line_to_read(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", *(f"S{number}" for number in range(200)))])
    broker.push({})
    line = refused(programs.run(programs.SECRET, "--socket", broker.project(), "exec", "true"), 4)
    assert "S0, S1, " in line
    assert ", S19, ... and 180 more: the manifest allows" in line


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


def test_it_means_the_same_in_every_directory(project: Project) -> None:
    expected = variables(project.run("exec", "env", "-0"))
    assert expected[b"GH_TOKEN"] == b"zqTokenzq"
    vendored = project.path / "vendor/myrepo"
    (vendored / ".remo").mkdir(parents=True)
    (vendored / ".remo/manifest.toml").write_text(MANIFEST.replace("GH_TOKEN", "LD_PRELOAD"))
    for where in (project.home, vendored, pathlib.Path("/")):
        found = variables(project.run("exec", "env", "-0", cwd=where))
        assert {**found, b"PWD": b""} == {**expected, b"PWD": b""}
    project.path.chmod(0o777)
    assert variables(project.run("exec", "env", "-0")) == expected, "whoever may write to the directory"


BARE = 'schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\n[secrets.npm]\n[secrets.aws]\n[secrets.KEY]\n'


def test_without_bindings_secrets_go_into_variables(project: Project) -> None:
    project.register(BARE)
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": {"id": "1"}, "KEY": "k"})
    found = variables(project.run("exec", "env", "-0"))
    assert (found[b"TOKEN"], found[b"NPM"], found[b"KEY"]) == (b"t", b"n", b"k")
    assert json.loads(found[b"AWS"]) == {"id": "1"}


def test_binary_in_a_variable(project: Project) -> None:
    project.register(BARE)
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": "a"}, KEY="//4=")
    assert variables(project.run("exec", "env", "-0"))[b"KEY"] == b"\xff\xfe"
    project.broker.push({"TOKEN": "t", "npm": "n", "aws": "a"}, KEY="AAE=")
    assert "KEY has a zero byte" in refused(project.run("exec", "true", cwd=project.home), 1)


def test_commands_that_cannot_be_run(project: Project) -> None:
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
def test_a_command_that_fails_at_the_last_moment(project: Project, content: str, why: str) -> None:
    script = project.path / "script"
    script.write_text(content)
    script.chmod(0o755)
    assert f"cannot be executed ({why}" in refused(project.run("exec", "./script"), 126)
    assert not list(project.home.iterdir())
    assert not os.listdir(project.rendered), "no file is left of what was not started"
    project.run("render")
    refused(project.run("exec", "./script"), 126)
    assert (project.home / "keys/app.key").read_bytes() == KEY, "but what was there before is"


def test_a_script_without_an_interpreter_runs_as_under_a_shell(project: Project) -> None:
    script = project.path / "script"
    script.write_text("echo $0 $1 $GH_TOKEN\n")
    script.chmod(0o755)
    assert project.run("exec", "./script", "a b").stdout == b"./script a b zqTokenzq\n"


def test_a_command_in_the_working_directory(project: Project) -> None:
    script = project.path / "script"
    script.write_text("#!/bin/sh\necho $0\n")
    script.chmod(0o755)
    assert project.run("exec", "script", env={"PATH": "/nowhere::/usr/bin:/bin"}).stdout == b"./script\n"


# --- bindings


def test_render_without_files(project: Project) -> None:
    project.register('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\n')
    done = project.run("render")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_manifest_by_name(project: Project) -> None:
    for path in (str(project.manifest), str(project.path), os.path.relpath(project.path, project.home)):
        done = project.run("exec", "--manifest", path, "env", "-0", cwd=project.home)
        assert variables(done)[b"GH_TOKEN"] == b"zqTokenzq"
    assert ".devcontainer/remo-broker.toml" in refused(project.run("render", "--manifest", "/usr"), 1)
    assert "No such file" in refused(project.run("render", "--manifest", "/nowhere"), 1)


SEVERAL = """
schema_version = 1
project = "myrepo"
[secrets.aws]
env = { AWS_ACCESS_KEY_ID = "id", AWS_SECRET = "key" }
[[secrets.TOKEN]]
env_var = "A"
[[secrets.TOKEN]]
fetch_as = "file"
file_path = "one"
file_mode = "0600"
template = "{{value}}"
[[secrets.TOKEN]]
fetch_as = "file"
file_path = "two"
file_mode = "0600"
template = "\ufeff{{ value | base64 }} {{value|shell}}"
[secrets.npm]
optional = true
"""


def test_several_bindings_and_fields(project: Project) -> None:
    project.register(SEVERAL)
    found = variables(project.run("exec", "env", "-0"))
    assert (found[b"AWS_ACCESS_KEY_ID"], found[b"AWS_SECRET"], found[b"A"]) == (b"zqIdzq", b"zq{{id}}zq", b"zqTokenzq")
    assert (project.home / "one").read_text() == "zqTokenzq"
    assert (project.home / "two").read_text() == "enFUb2tlbnpx 'zqTokenzq'"
    project.run("render", "--remove", "--only=TOKEN")
    assert everything_below(project.home) == []
    project.broker.push({"aws": "not a bundle", "TOKEN": "x", "npm": "x"})
    assert "is not a bundle" in refused(project.run("exec", "true"), 1)


def test_an_optional_secret_may_be_missing(project: Project) -> None:
    project.register(SEVERAL)
    project.broker.push({"aws": {"id": "1", "key": "2"}, "TOKEN": "x"})
    done = project.run("exec", "env", "-0")
    assert b"NPM" not in variables(done)
    assert done.stderr.count(b"npm") == 1
    project.broker.push({"TOKEN": "x"})
    assert "aws: " in refused(project.run("exec", "true"), 4)


IN_PROJECT = """
schema_version = 1
project = "myrepo"
[secrets.TOKEN]
fetch_as = "file"
file_path = "secrets/token"
file_mode = "0600"
template = "{{value}}"
base = "project"
"""


def test_a_file_in_the_project_unless_git_would_track_it(project: Project) -> None:
    if shutil.which("git") is None:
        unavailable("git is not installed")
    project.register(IN_PROJECT)
    assert project.run("render").returncode == 0
    assert (project.path / "secrets/token").read_text() == "zqTokenzq"
    project.run("render", "--remove")
    subprocess.run(["git", "init", "-q", project.path], check=True, env=programs.environment(project.environment))
    assert "tracked by git" in refused(project.run("render"), 1)
    (project.path / ".gitignore").write_text("/secrets/\n")
    assert project.run("render").returncode == 0
    assert "is not here" in refused(project.run("render", cwd=project.home), 1)


def test_a_copy_is_a_file_on_a_tmpfs(project: Project) -> None:
    target = project.memory / "docker/config.json"
    text = IN_PROJECT.replace('base = "project"', 'place = "copy"')
    project.register(text.replace("secrets/token", str(target)))
    assert project.run("render").returncode == 0
    assert target.read_text() == "zqTokenzq"
    assert target.stat().st_mode & 0o7777 == 0o600
    assert not target.is_symlink()
    target.unlink()
    target.write_text("rewritten by its program")
    project.broker.push({"TOKEN": "new"})
    assert project.run("render").returncode == 0
    assert target.read_text() == "new"
    project.run("render", "--remove")
    assert not target.exists()
    target.write_text("mine")
    assert "was not rendered" in refused(project.run("render"), 1)
    project.register(text)
    assert "is not on a tmpfs" in refused(project.run("render"), 1)


def test_two_secrets_for_one_place(project: Project) -> None:
    project.register(MANIFEST + '[secrets.KEY2]\nenv_var = "NPM"\n')
    project.register(MANIFEST.replace("[secrets.npm]", '[secrets.npm]\nenv_var = "GH_TOKEN"'))
    assert "same variable GH_TOKEN" in refused(project.run("exec", "true"), 1)
    project.register(MANIFEST.replace("keys/app.key", "~/.aws/../.aws/credentials"))
    assert "same file" in refused(project.run("exec", "true"), 1)


# --- files


def test_a_real_file_is_not_replaced(project: Project) -> None:
    (project.home / ".aws").mkdir()
    credentials = project.home / ".aws/credentials"
    credentials.write_text("mine")
    line = refused(project.run("render"), 1)
    assert "was not rendered by remo-secret\nHint: move it away" in line
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
    assert "belongs to another user" in refused(project.run("render"), 1)
    outer.rmdir()
    (project.memory / "elsewhere").mkdir()
    outer.symlink_to(project.memory / "elsewhere")
    refused(project.run("render"), 1)
    assert not list((project.memory / "elsewhere").iterdir())
    outer.unlink()
    outer.mkdir()
    outer.chmod(0o777)
    assert "others may write" in refused(project.run("render"), 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_a_squatted_directory_is_not_waited_for(project: Project) -> None:
    """In /dev/shm anybody can create this user's usual directory first."""
    project.memory.chmod(0o1777)
    squatted = project.rendered.parent
    squatted.mkdir()
    os.chown(squatted, NOBODY, NOBODY)
    for _ in range(2):
        assert project.run("render").returncode == 0
    assert (project.home / "keys/app.key").read_bytes() == KEY
    others = [path for path in project.memory.iterdir() if path != squatted]
    assert len(others) == 1, "the second run uses the first one's"
    assert others[0].stat().st_mode & 0o7777 == 0o700
    assert not list(squatted.iterdir())
    project.run("render", "--remove")
    assert not (project.home / "keys/app.key").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_a_link_that_another_user_left(project: Project) -> None:
    """`sudo remo-secret render` was run once: that user's file may be in use; when it is gone, the link is."""
    theirs = project.memory / "remo-secret-1234/myrepo/KEY"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("x")
    link = project.home / "keys/app.key"
    link.parent.mkdir()
    link.symlink_to(theirs)
    line = refused(project.run("render"), 1)
    assert "rendered by user 1234" in line
    assert f"rm {link}" in line
    theirs.unlink()
    assert project.run("render").returncode == 0
    assert link.read_bytes() == KEY


@pytest.fixture
def on_disk() -> Iterator[str]:
    """A directory that is not in memory; those below TMPDIR may be."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True).stdout
        if kind.strip() in ("tmpfs", "ramfs"):
            unavailable("/var/tmp is not on a disk here")
        yield directory


def test_a_disk_is_not_rendered_on(on_disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime directory on a disk is passed over; with nothing else, that is an error."""
    assert not tmpfs.is_in_memory(on_disk)
    assert not tmpfs.is_in_memory("/nowhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", on_disk)
    assert tmpfs.find_memory() in tmpfs.candidates()[1:]
    monkeypatch.setattr(tmpfs, "CANDIDATES", (on_disk,))
    with pytest.raises(Problem, match="is a writable tmpfs of yours or root's"):
        tmpfs.find_memory()
