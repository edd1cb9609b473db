"""`remo-brokerctl check`: like a compiler, one line per fault."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import write_project
from tests.support import programs

if TYPE_CHECKING:
    import pathlib
    import subprocess


def check(path: pathlib.Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return programs.run(programs.BROKERCTL, "check", path, *options)


def faults(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode().splitlines()


def test_a_valid_manifest(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    file = path / ".devcontainer/remo-broker.toml"
    for given in (path, file):
        done = check(given)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: valid\n".encode(), b"")
    assert json.loads(check(path, "-j").stdout) == []


def test_a_world_writable_directory(directory: pathlib.Path) -> None:
    """Volumes of virtual machines often are. A user who can write there decides what the next
    reload reads."""
    path = write_project(directory / "$(id) of others", "myrepo", "TOKEN")
    file = path / ".devcontainer/remo-broker.toml"
    for place in (path, file.parent, file):
        before = place.stat().st_mode
        place.chmod(before | 0o002)
        done = check(path)
        assert (done.returncode, done.stdout) == (0, f"{file}: valid\n".encode())
        assert f"chmod o-w {shlex.quote(str(place))}\n".encode() in done.stderr
        assert done.stderr.count(b"Hint:") == 1
        place.chmod(before)


def test_every_fault_is_a_line(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", "TOKEN", extra="[cache]\nttl_seconds = 901\nmax_entries = 65\n")
    file = path / ".devcontainer/remo-broker.toml"
    lines = faults(check(path))
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{file}:5", "allowlist.secrets[1]"],
        [f"{file}:7", "cache.ttl_seconds"],
        [f"{file}:8", "cache.max_entries"],
    ]
    assert faults(check(file)) == lines, "the file, or the directory of its project"


def test_keys_limits_and_versions(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", extra="[cache]\nttl_seconds = 901\n")
    file = path / ".devcontainer/remo-broker.toml"
    [line] = faults(check(path))
    assert line.startswith(f"{file}:7: cache.ttl_seconds: ")
    assert "1 to 900" in line
    file.write_text('schema_version = 7\nproject = "myrepo"\n')
    [line] = faults(check(path))
    assert line.startswith(f"{file}:1: schema_version: version 7 is not supported; ")
    [found] = json.loads(check(path, "--json=short").stdout)
    assert found.pop("message").startswith("schema_version: version 7 is not supported; ")
    assert found == {"path": str(file), "line": 1, "key": "schema_version", "code": "manifest_invalid"}
    file.write_text("x = \x1b]0;zqMarkerzq\x07\n")
    [line] = faults(check(path))
    assert line.startswith(f"{file}:1: not TOML at line 1, column 5; ")
    assert "\x1b" not in line
    assert "zqMarkerzq" not in line


def test_the_name_must_be_the_directorys(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    (path / ".devcontainer").rename(directory / "loose")
    assert check(directory / "loose/remo-broker.toml").returncode == 0, "a file that lies elsewhere has no directory"
    (directory / "other").mkdir()
    (directory / "loose").rename(directory / "other/.devcontainer")
    for given in (directory / "other", directory / "other/.devcontainer/remo-broker.toml"):
        assert "project.name" in faults(check(given))[0]


def test_the_directory_must_have_a_name_that_can_be_registered(directory: pathlib.Path) -> None:
    """It reports what `register` would, before somebody adapts the manifest to an impossible
    name."""
    for name, says in (("My Project", "rename it"), ("admin", "reserved"), ("broker", "reserved")):
        path = write_project(directory, name, "TOKEN")
        lines = faults(check(path))
        assert lines[0].startswith(f"{path}/.devcontainer/remo-broker.toml: ")
        assert says in lines[0]


def test_nothing_to_check(directory: pathlib.Path) -> None:
    (directory / "empty").mkdir()
    [line] = faults(check(directory / "empty"))
    assert line.startswith(f"{directory}/empty: no manifest in the project's directory; it may be one of")
    done = check(directory / "nowhere")
    assert programs.refused(done, 1).endswith("nowhere: No such file or directory")
    done = check(directory / "empty/.remo/broker.toml")
    assert programs.refused(done, 1).endswith("/empty/.remo/broker.toml: No such file or directory")
    (directory / "large").write_bytes(b"#" * 70_000)
    assert "larger than 65536 bytes" in faults(check(directory / "large"))[0]


def test_manifests_that_the_broker_would_not_read(directory: pathlib.Path) -> None:
    """Given by directory or by file, the result is the broker's."""
    path = write_project(directory, "linked", "TOKEN")
    file = path / ".devcontainer/remo-broker.toml"
    file.rename(directory / "target")
    file.symlink_to(directory / "target")
    for given in (path, file):
        assert faults(check(given)) == [
            f"{file}: a symlink, not a regular file; put the manifest itself there, as a regular file"
        ]
    [found] = json.loads(check(file, "-j").stdout)
    assert (found["code"], found["line"]) == ("manifest_unreadable", None)
    assert check(directory / "target").returncode == 0, "what lies elsewhere is read as it is"
    file.unlink()
    file.parent.rmdir()
    (directory / "elsewhere").mkdir()
    (directory / "target").rename(directory / "elsewhere/remo-broker.toml")
    file.parent.symlink_to(directory / "elsewhere")
    for given in (path, file):
        assert faults(check(given)) == [
            f"{file.parent}: a symlink, not a directory; make it a directory, or take it away"
        ]
    file.parent.unlink()
    file.mkdir(parents=True)
    assert faults(check(file)) == faults(check(path))
    (directory / "link").symlink_to(write_project(directory, "myrepo", "TOKEN"))
    assert check(directory / "link").returncode == 0, "as register takes it"
    assert check(directory / "link/.devcontainer/remo-broker.toml").returncode == 0


def test_a_manifest_behind_another(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    (path / ".remo").mkdir()
    second = path / ".remo/manifest.toml"
    second.write_text('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\nx = 1\n')
    [line] = faults(check(second))
    assert line.startswith(f"{second}:4: secrets.TOKEN.x: unknown key")
    second.write_text('schema_version = 1\nproject = "myrepo"\n[secrets.TOKEN]\n')
    assert check(second).stdout.decode() == (
        f"{second}: valid, but not read: .devcontainer/remo-broker.toml comes first\n"
    )
    assert check(path).stdout.decode() == f"{path}/.devcontainer/remo-broker.toml: valid\n"


@pytest.mark.parametrize(
    "content",
    [" " * 65_000, "\n" * 65_000, "".join(f"[secrets.A{number}]\nx=1\n" for number in range(3_000))],
    ids=["spaces", "lines", "faults"],
)
def test_a_file_that_is_expensive_to_search(directory: pathlib.Path, content: str) -> None:
    """The search takes a second or two."""
    (directory / "app/.remo").mkdir(parents=True)
    (directory / "app/.remo/manifest.toml").write_text(content)
    done = programs.run(programs.BROKERCTL, "check", directory / "app", processor_seconds=10)
    assert done.returncode == 1
    assert b"schema_version" in done.stderr


def test_from_a_pipe(directory: pathlib.Path) -> None:
    text = b'schema_version = 1\nproject = "any"\n'
    done = programs.run(programs.BROKERCTL, "check", "/dev/stdin", stdin=text)
    assert (done.returncode, done.stdout) == (0, b"/dev/stdin: valid\n")


def test_a_fifo_does_not_keep_it_waiting(directory: pathlib.Path) -> None:
    os.mkfifo(directory / "fifo.toml")
    assert "is a FIFO" in programs.refused(check(directory / "fifo.toml"), 1)
    path = write_project(directory, "myrepo", "TOKEN")
    (path / ".devcontainer/remo-broker.toml").unlink()
    os.mkfifo(path / ".devcontainer/remo-broker.toml")
    assert "FIFO" in faults(check(path))[0]
