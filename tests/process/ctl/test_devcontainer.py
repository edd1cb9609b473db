"""`remo-brokerctl devcontainer`: engines accept what it prints, and what it writes loses
nothing."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.ctl import devcontainer_write
from tests.process.ctl.conftest import CommandLine, write_project
from tests.support import programs
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

NOBODY = 65534
SOCKETS = "/run/remo-broker/mount/myrepo"


def show(*arguments: str | pathlib.Path, cwd: pathlib.Path | None = None) -> str:
    done = programs.run(programs.BROKERCTL, "devcontainer", *arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode()


@pytest.fixture
def project(directory: pathlib.Path) -> pathlib.Path:
    return write_project(directory, "myrepo", "TOKEN")


def test_settings(project: pathlib.Path, operator: CommandLine) -> None:
    found = json.loads(show(project))
    socket, manifest = (dict(part.partition("=")[::2] for part in one.split(",")) for one in found["mounts"])
    assert socket == {"type": "bind", "source": SOCKETS, "target": "/run/remo-broker", "readonly": ""}
    place = ".devcontainer/remo-broker.toml"
    assert manifest["source"] == f"${{localWorkspaceFolder}}/{place}"
    assert manifest["target"] == f"${{containerWorkspaceFolder}}/{place}"
    assert "readonly" in manifest
    assert found["features"] == {"./remo-broker": {}}
    assert json.loads(show(cwd=project)) == found
    operator.says("register", project)
    assert operator.json("devcontainer", "myrepo") == found


def test_a_directory_whose_name_is_registered_for_another(
    project: pathlib.Path, operator: CommandLine, directory: pathlib.Path
) -> None:
    """Its container would get the other project's secrets."""
    other = write_project(directory / "clone", "myrepo", "TOKEN")
    operator.says("register", project)
    assert str(project) in refused(operator.run("devcontainer", other), 1)
    assert operator.run("devcontainer", project).returncode == 0
    link = directory / "link"
    link.symlink_to(project.parent)
    request = {"op": "register", "name": "myrepo", "project_path": str(link / "myrepo"), "replace": True}
    assert operator.broker.ask(request)["ok"]
    assert operator.run("devcontainer", project).returncode == 0


def test_the_container_does_not_start_if_the_project_is_not_served(project: pathlib.Path) -> None:
    *command, folder = json.loads(show(project))["initializeCommand"]
    assert folder == "${localWorkspaceFolder}", "a colleague's is elsewhere"
    done = subprocess.run([*command, project], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"remo-brokerctl register {project}" in done.stderr


def test_other_engines(project: pathlib.Path) -> None:
    manifest = f"{project}/.devcontainer/remo-broker.toml"
    for engine in ("docker", "podman"):
        echoed = subprocess.run(
            ["sh", "-c", f'{engine}() {{ printf "%s\\n" "$@"; }}; {show(project, f"--{engine}")}'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert echoed[:3] == ["run", "--mount", f"type=bind,source={SOCKETS},target=/run/remo-broker,readonly"]
        assert f"source={manifest}," in echoed[4]
        # The container cannot replace it by a link, which the engine would follow at the next start.
        folder = f"source={project}/.devcontainer,target=/workspaces/myrepo/.devcontainer,readonly"
        assert echoed[5:7] == ["--mount", f"type=bind,{folder}"]
        assert ("--group-add=keep-groups" in echoed) == (engine == "podman"), "rootless, it needs its user's group"
    for option in ("--compose", "--nspawn"):
        text = show(project, option)
        assert SOCKETS in text
        assert manifest in text
    assert "create_host_path: false" in show(project, "--compose")
    assert "cannot be combined" in refused(programs.run(programs.BROKERCTL, "devcontainer", "--docker", "--podman"), 2)


@pytest.mark.parametrize("odd", ["a,b", 'c"d', "e:f", "g h", "it's", "i\nj", "k=l", "$HOME", "\u00e9", "\U0001f600"])
def test_each_engine_gets_the_projects_path_unchanged(directory: pathlib.Path, odd: str) -> None:
    (directory / odd).mkdir()
    project = write_project(directory / odd, "myrepo", "TOKEN")
    for engine in ("docker", "podman"):
        script = f"{engine}() {{ printf '%s\\0' \"$@\"; }}; {show(project, f'--{engine}')}"
        echoed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
        # Both parse it with Go's CSV reader, which reads these like Python's.
        (fields,) = csv.reader(io.StringIO(echoed[4], newline=""))
        assert fields[1] == f"source={project}/.devcontainer/remo-broker.toml"
    lines = show(project, "--compose").splitlines()
    # A double-quoted string of YAML is one of Python's, as far as it is used.
    written = [ast.literal_eval(line.partition(": ")[2]) for line in lines if line.startswith("        source: ")]
    assert written[1] == f"{project}/.devcontainer/remo-broker.toml".replace("$", "$$")
    if "\n" in odd:  # would be lines of the project's own in root's file
        assert "line break" in refused(programs.run(programs.BROKERCTL, "devcontainer", "--nspawn", project), 1)
    else:
        assert "/myrepo/.devcontainer/remo-broker.toml:/workspaces/myrepo/" in show(project, "--nspawn")
    if any(sign in odd for sign in ',"\n'):
        assert "Hint: " in refused(programs.run(programs.BROKERCTL, "devcontainer", project), 1)
    else:
        assert str(directory) not in show(project)


@pytest.mark.parametrize("option", ["--docker", "--podman", "--compose", "--nspawn"])
def test_no_path_that_a_terminal_obeys_is_written_to_one(directory: pathlib.Path, option: str) -> None:
    project = write_project(directory / "\x1b]0;title\x07\x9b31m", "myrepo", "A")
    shown = programs.answer_on_terminal(
        programs.command(programs.BROKERCTL, "devcontainer", option, project), b"", {}, directory
    )
    assert not {"\x1b", "\x07", "\x9b"} & set(shown.decode())


def test_the_question_shows_what_the_repository_names_as_text(project: pathlib.Path) -> None:
    folder = project / ".devcontainer/\x1b]0;title\x07\x9b31m"
    folder.mkdir()
    (folder / "devcontainer.json").write_text("{}")
    found = programs.on_terminal(programs.BROKERCTL, "devcontainer", "--write", str(project), keys=b"n\n")
    assert "[y/N]" in found.text
    assert not [one for one in ("\x1b]", "\x07", "\x9b") if one in found.text]


@pytest.mark.parametrize("linked", [".devcontainer", ".devcontainer/remo-broker.toml"])
def test_no_engine_follows_a_link_in_place_of_the_manifest(project: pathlib.Path, linked: str) -> None:
    (project / linked).rename(project / "moved")
    (project / linked).symlink_to(project / "moved")
    for option in ("--docker", "--podman", "--compose", "--nspawn", "--json=short"):
        assert f"{linked}: a symlink" in refused(programs.run(programs.BROKERCTL, "devcontainer", option, project), 1)


def test_a_path_that_is_not_a_project(directory: pathlib.Path) -> None:
    (directory / "empty").mkdir()
    (directory / "No Project").mkdir()
    for path, says in (("empty", "no manifest"), ("none/x", "no such directory"), ("No Project", "valid name")):
        assert says in refused(programs.run(programs.BROKERCTL, "devcontainer", directory / path), 1)


# --- --write


@pytest.fixture
def feature(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The Feature as installed."""
    place = directory / "feature"
    place.mkdir()
    (place / "devcontainer-feature.json").write_text("{}")
    (place / "install.sh").write_text("#!/bin/sh\n")
    (place / "install.sh").chmod(0o755)
    monkeypatch.setattr(devcontainer_write, "FEATURE_FILES", str(place))
    return place


def written(project: pathlib.Path, *options: str) -> int:
    from remo_broker.ctl import main

    return main.main(["devcontainer", "--write", *options, str(project)])


def document(project: pathlib.Path) -> Any:
    return json.loads((project / ".devcontainer/devcontainer.json").read_text("utf-8-sig"))


@pytest.mark.usefixtures("feature")
def test_writing_again_changes_nothing(project: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(project) == 0
    assert document(project) == json.loads(show(project))
    assert os.access(project / ".devcontainer/remo-broker/install.sh", os.X_OK)
    assert "+" in capsys.readouterr().out
    before = sorted((path, path.stat().st_ino) for path in project.rglob("*"))
    assert written(project) == 0
    assert sorted((path, path.stat().st_ino) for path in project.rglob("*")) == before


@pytest.mark.usefixtures("feature")
def test_existing_settings_stay(project: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project / ".devcontainer/devcontainer.json"
    old = {"image": "debiän", "mounts": ["source=a,target=b"], "features": {"x": {"y": 1}}, "runArgs": []}
    file.write_text("\ufeff" + json.dumps(old, indent="\t", ensure_ascii=False))
    assert written(project) == 0
    new = document(project)
    assert new["mounts"][0] == "source=a,target=b"
    assert len(new["mounts"]) == 3
    assert new["features"] == {"./remo-broker": {}, "x": {"y": 1}}
    assert list(new)[:4] == list(old)
    assert file.read_text().startswith('\ufeff{\n\t"image": "debiän"')
    assert '"initializeCommand": [' in capsys.readouterr().out


@pytest.mark.usefixtures("feature")
def test_it_contains_nothing_specific_to_this_host(project: pathlib.Path, directory: pathlib.Path) -> None:
    assert written(project) == 0
    assert str(directory) not in (project / ".devcontainer/devcontainer.json").read_text()


@pytest.mark.usefixtures("feature")
def test_a_file_above_names_the_feature_from_there(project: pathlib.Path) -> None:
    """The reference tool resolves the path from the file, and refuses what is not in
    .devcontainer."""
    file = project / ".devcontainer.json"
    file.write_text("{}")
    assert written(project) == 0
    (feature,) = json.loads(file.read_text())["features"]
    assert (project / feature).samefile(project / ".devcontainer/remo-broker")


@pytest.mark.usefixtures("feature")
def test_a_file_in_a_folder_of_its_own(project: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Projects with several containers have them. If there are several, the user must choose."""
    one, two = (project / f".devcontainer/{name}/devcontainer.json" for name in ("one", "two"))
    one.parent.mkdir()
    one.write_text('{"image": "x"}')
    assert written(project) == 0
    assert not (project / ".devcontainer/devcontainer.json").exists()
    (feature,) = json.loads(one.read_text())["features"]
    assert (one.parent / feature).samefile(project / ".devcontainer/remo-broker")
    before = one.read_text()
    two.parent.mkdir()
    two.write_text("{}")
    assert written(project) == 1
    error = capsys.readouterr().err
    assert "one, two" in error
    assert feature in error
    assert (one.read_text(), two.read_text()) == (before, "{}")


@pytest.mark.usefixtures("feature")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_mode_and_line_ends_stay(project: pathlib.Path, mode: int) -> None:
    file = project / ".devcontainer/devcontainer.json"
    file.write_bytes(b'{\r\n  "image": "x"\r\n}\r\n')
    file.chmod(mode)
    assert written(project) == 0
    assert file.stat().st_mode & 0o7777 == mode
    assert file.read_bytes().count(b"\n") == file.read_bytes().count(b"\r\n") > 3


@pytest.mark.usefixtures("feature")
def test_a_complete_file_is_not_reformatted(project: pathlib.Path) -> None:
    text = json.dumps(json.loads(show(project)) | {"ports": [1, 2]})
    file = project / ".devcontainer/devcontainer.json"
    file.write_text(text)
    assert written(project) == 0
    assert file.read_text() == text


@pytest.mark.usefixtures("feature")
def test_anything_but_a_regular_file_is_left_alone(project: pathlib.Path) -> None:
    os.mkfifo(project / ".devcontainer/devcontainer.json")
    assert written(project) == 1
    assert (project / ".devcontainer/devcontainer.json").is_fifo()


def test_a_file_that_is_expensive_to_compare(project: pathlib.Path) -> None:
    """Lines that recur, of which each other one changes."""
    listed = ",\n".join(f'{" " * (8 if number % 2 else 6)}"{number % 400}"' for number in range(20_000))
    (project / ".devcontainer/devcontainer.json").write_text(f'{{\n    "x": [\n{listed}\n    ]\n}}\n')
    words = ["devcontainer", "--write", "--yes", str(project)]
    done = programs.run(programs.BROKERCTL, *words, processor_seconds=20)
    assert done.returncode >= 0, "killed"
    assert b'+    "mounts"' in done.stdout


@pytest.mark.usefixtures("feature")
def test_a_fifo_in_place_of_a_file_is_not_waited_for(project: pathlib.Path) -> None:
    inside = project / ".devcontainer/remo-broker"
    inside.mkdir()
    fifos = (project / ".devcontainer/devcontainer.json.new", inside / "install.sh", inside / "install.sh.new")
    for fifo in fifos:
        os.mkfifo(fifo)
    assert written(project) == 0
    assert (inside / "install.sh").is_file()
    assert not [fifo for fifo in fifos if fifo.exists() and fifo.is_fifo()]


@pytest.mark.usefixtures("feature")
@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1e999}',
        '{"x": NaN}',
        r'{"x": "\ud800"}',
        '{"image": "a", "image": "b"}',
        '{ // why\n"image": "x"}',
        '{"image": "x",}',
        "[]",
        '{"mounts": {}}',
        '{"initializeCommand": "true"}',
    ],
)
def test_a_file_that_a_rewrite_would_damage_is_left_alone(
    project: pathlib.Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / ".devcontainer/devcontainer.json"
    file.write_text(text)
    assert written(project) == 1
    assert "Hint: " in capsys.readouterr().err
    assert file.read_text() == text


@pytest.mark.usefixtures("feature")
@pytest.mark.takes_root("what root may do")
def test_root_follows_no_link_of_a_user_in_a_directory_of_its_own(
    project: pathlib.Path, directory: pathlib.Path
) -> None:
    (directory / "elsewhere").mkdir()
    (project / ".devcontainer/remo-broker").symlink_to(directory / "elsewhere")
    os.chown(project / ".devcontainer", NOBODY, NOBODY)
    assert written(project) == 1
    assert not list((directory / "elsewhere").iterdir())


@pytest.mark.usefixtures("feature")
@pytest.mark.takes_root("what root may do")
def test_root_follows_no_link_above_the_project(
    project: pathlib.Path, operator: CommandLine, directory: pathlib.Path
) -> None:
    """Its owner moves it, and leads its path to a project of root's."""
    home = directory / "home"
    home.mkdir()
    moved = project.rename(home / project.name)
    operator.says("register", moved)
    (directory / "own").mkdir()
    own = write_project(directory / "own", "myrepo", "TOKEN")
    home.rename(directory / "moved")
    home.symlink_to(directory / "own")
    for path in (directory / "moved", directory / "moved/myrepo"):
        os.chown(path, NOBODY, NOBODY)
    assert "leads to" in refused(operator.run("devcontainer", "--write", "--yes", "myrepo"), 1)
    assert not (own / ".devcontainer/devcontainer.json").exists()


@pytest.mark.usefixtures("feature")
@pytest.mark.takes_root("what root may do")
def test_root_writes_only_where_the_projects_owner_can(project: pathlib.Path, directory: pathlib.Path) -> None:
    directory.chmod(0o755)
    for path in (project, project / ".devcontainer"):
        os.chown(path, NOBODY, NOBODY)
    (directory / "elsewhere").mkdir()
    (project / ".devcontainer/remo-broker").symlink_to(directory / "elsewhere")
    assert written(project) == 1
    assert not list((directory / "elsewhere").iterdir())
    (project / ".devcontainer/remo-broker").unlink()
    assert written(project) == 0
    assert (project / ".devcontainer/devcontainer.json").stat().st_uid == NOBODY
