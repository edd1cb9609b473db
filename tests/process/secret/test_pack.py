"""The one file for containers runs with Python and nothing else."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from remo_broker.build import pack
from tests.process.secret.conftest import KEY
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.process.secret.conftest import Workspace

# Debian's next release has it, or already a later one.
NEXT = "3.14"


@pytest.fixture
def packed(directory: pathlib.Path) -> pathlib.Path:
    file = directory / "remo-secret"
    subprocess.run([sys.executable, "-m", "remo_broker.build.pack", file], check=True)
    return file


def interpreter(version: str) -> list[str]:
    """This Python, or another that `./run test` unpacks from the Debian release that has it."""
    if version == "this":
        return [sys.executable]
    root = REPOSITORY / f".cache/python{version}"
    found = root / f"usr/bin/python{version}"
    if not found.exists():
        why = f"there is no Python {version}: ./run test fetches it"
        pytest.skip(why) if version == NEXT else unavailable(why)
    linker = next(root.glob("usr/lib*/ld-linux-*.so.*"), None)
    if linker is None:
        return [str(found)]
    libraries = ":".join(str(one.parent) for one in root.glob("usr/lib/*/libc.so.6"))
    return [str(linker), "--library-path", libraries, str(found)]


@pytest.mark.parametrize("version", ["this", "3.9", "3.13", NEXT])
def test_every_command(project: Workspace, packed: pathlib.Path, version: str) -> None:
    """`-I` and `-S` keep out whatever else is installed; the working directory has nothing of
    ours."""
    python = interpreter(version)

    def run(*arguments: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            [*python, "-I", "-S", packed, *arguments],
            input=stdin,
            capture_output=True,
            env=project.environment,
            cwd=project.path,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), arguments
        return done.stdout

    assert run("get", "KEY") == KEY
    assert run("list").startswith(b"TOKEN\n")
    assert run("render").count(b"\n") == 2
    assert run("exec", "/bin/echo", "done") == b"done\n"
    run("wait")
    assert b"password=zqTokenzq" in run(
        *("git-credential", "--host", "h", "--secret", "TOKEN", "get"), stdin=b"protocol=https\nhost=h\n"
    )
    run("--help")
    run("exec", "--help")
    assert run("check").count(b"present") == 4
    assert b"GH_TOKEN=" in run("env", "--only=TOKEN")
    assert json.loads(run("docker-credential", "list")) == {}
    run("render", "--remove")
    run("doctor")


def test_it_is_a_program(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = subprocess.run([packed, "get", "TOKEN", "--socket=/nowhere/x.sock"], capture_output=True, check=False)
    assert done.returncode == 5
    assert b"/nowhere/x.sock does not exist (nor does /nowhere)" in done.stderr


def changed(packed: pathlib.Path, file: pathlib.Path, change: Callable[[str, bytes], bytes]) -> pathlib.Path:
    """A copy in which every module is what `change` makes of its place and content."""
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry, content if entry.filename == "__main__.py" else change(entry.filename, content))
    return file


def version(packed: pathlib.Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", str(packed), "--version"]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_version_that_packed_compiles_nothing(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    no_source = changed(packed, tmp_path / "x", lambda place, content: b"?" if place.endswith(".py") else content)
    assert version(no_source).stdout.startswith("remo-secret ")


def test_another_version_takes_the_source(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = changed(
        packed, tmp_path / "x", lambda place, content: b"\x01\x02\r\n" + content[4:] if place.endswith("c") else content
    )
    done = version(other)
    assert (done.stdout.split()[0], done.stderr) == ("remo-secret", "")


def old(main: str, directory: pathlib.Path) -> None:
    """A program for a Python that says that it is 3.6."""
    main = main.replace("OLDEST", "9").replace("PROGRAM", "remo-secret")
    main = main.replace("import os, sys\n", "import os, sys\nsys.version_info = (3, 6, 1)\n", 1)
    (directory / "__main__.py").write_text(main)


def test_a_version_that_is_too_old_ends_with_a_message(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    old(pack.MAIN, tmp_path)
    done = version(tmp_path)
    assert done.returncode == 1
    assert {"3.6", "3.9"} <= set(done.stderr.split())


def test_a_newer_version_on_the_path_is_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in (8, 10, 12):
        (tmp_path / f"python3.{minor}").write_text(f'#!/bin/sh\necho 3.{minor} "$@"\n')
        (tmp_path / f"python3.{minor}").chmod(0o755)
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    old(pack.MAIN, tmp_path)
    assert version(tmp_path).stdout == f"3.12 -IS {tmp_path} --version\n"


def test_nothing_of_the_callers_surroundings_is_imported(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("encodings", "json", "subprocess", "sitecustomize", "usercustomize", "remo_broker"):
        (tmp_path / f"{name}.py").write_text("import os\nos.write(2, b'imported')\n")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONINSPECT": "1", "PYTHONSTARTUP": "json.py"}
    for argv in ([str(packed)], [sys.executable, "-S", str(packed)]):
        if argv[0] == sys.executable:
            (tmp_path / "encodings.py").unlink()  # nobody could keep that one away
        done = subprocess.run(
            [*argv, "--version"], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout[:12], done.stderr) == (0, b"remo-secret ", b"")


def test_the_same_source_makes_the_same_file(packed: pathlib.Path) -> None:
    assert pack.pack() == pack.pack() == packed.read_bytes()


def test_nothing_else_is_in_it() -> None:
    places = pack.modules()
    assert "remo_broker/protocol/ops.py" in places
    for stranger in ("broker.py", "store.py", "daemon.py", "ctl/", "bus/", "client/aio.py", "manifest/models.py"):
        assert not [place for place in places if place.startswith(f"remo_broker/{stranger}")], stranger
    assert len(pack.pack()) < 800_000
