"""`remo-brokerctl check`: as a compiler, one line a fault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.ctl.conftest import write_project
from tests.support import programs

if TYPE_CHECKING:
    import pathlib
    import subprocess


def check(path: pathlib.Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return programs.run(programs.BROKERCTL, "check", path, *options)


def faults(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert (done.returncode, done.stdout) == (1, b"")
    return [line.removeprefix("remo-brokerctl: ") for line in done.stderr.decode().splitlines()]


def test_a_good_one(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    file = path / ".devcontainer/remo-broker.toml"
    for given in (path, file):
        done = check(given)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: valid\n".encode(), b"")
    assert json.loads(check(path, "-j").stdout) == []


def test_every_fault_is_a_line(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", "TOKEN", extra="[cache]\nttl_seconds = 901\nmax_entries = 65\n")
    file = path / ".devcontainer/remo-broker.toml"
    lines = faults(check(path))
    assert [line.split(": ")[:2] for line in lines] == [
        [str(file), "allowlist.secrets[1]"],
        [str(file), "cache.ttl_seconds"],
        [str(file), "cache.max_entries"],
    ]
    assert faults(check(file)) == lines, "the file, or the directory of its project"


def test_keys_limits_and_versions(directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", extra="[cache]\nttl_seconds = 901\n")
    file = path / ".devcontainer/remo-broker.toml"
    [line] = faults(check(path))
    assert line.startswith(f"{file}: cache.ttl_seconds: ")
    assert "1 to 900" in line
    file.write_text('schema_version = 7\nproject = "myrepo"\n')
    [line] = faults(check(path))
    assert line.startswith(f"{file}: schema_version: version 7 is not supported; ")
    [found] = json.loads(check(path, "--json=short").stdout)
    assert (found["path"], found["key"], found["code"]) == (str(file), "schema_version", "manifest_invalid")
    file.write_text("x = \x1b]0;zqMarkerzq\x07\n")
    [line] = faults(check(path))
    assert "not TOML at line 1" in line
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


def test_nothing_to_check(directory: pathlib.Path) -> None:
    (directory / "empty").mkdir()
    [line] = faults(check(directory / "empty"))
    assert line.startswith(f"{directory}/empty: no manifest in the project's directory; it may be one of")
    done = check(directory / "nowhere")
    assert programs.refused(done, 1).endswith("nowhere: No such file or directory")
    (directory / "empty/.remo").mkdir()
    (directory / "empty/.remo/broker.toml").symlink_to("/etc/passwd")
    assert "a symlink, not a regular file" in faults(check(directory / "empty"))[0]
    (directory / "large").write_bytes(b"#" * 70_000)
    assert "larger than 65536 bytes" in faults(check(directory / "large"))[0]
