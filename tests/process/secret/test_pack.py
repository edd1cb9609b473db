"""The one file for containers runs with Python and nothing else."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from remo_broker.build import pack
from tests.process.secret.conftest import KEY, SECRETS
from tests.support.machine import REPOSITORY, unavailable
from tests.support.privileges import require_tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.process.secret.conftest import Workspace

# Modules of the standard library that Python or an archive would load and no get needs.
HEAVY = {"contextlib", "enum", "functools", "importlib", "json", "re", "runpy", "site", "socket", "typing", "zlib"}
# Modules that a get loads beyond the interpreter's own: 20 of ours on the way to the broker, `os`
# with 5 that it imports, and 8 small ones of the standard library.
MOST_MODULES = 36
# The archive for its main and its compiled members, the standard library's directories, and a
# module in Python that is not frozen. Which modules in C are files depends on the build.
MOST_OPENED = 5
# Debian's next release has this version or a later one.
NEXT = "3.14"


@pytest.fixture(autouse=True)
def own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file looks for `python3` on the PATH, and the compiled modules are for the version that
    packs."""
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.defpath}")


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


@pytest.mark.parametrize(
    "shell",
    [("sh", "-s", "--", "get", "X"), ("sh",), ("bash", "-s"), ("sh", "/dev/stdin"), ("/bin/sh",), ("/bin/bash", "-s")],
)
def test_a_pipe_into_a_shell_ends_with_a_message(
    packed: pathlib.Path, tmp_path: pathlib.Path, shell: tuple[str, ...]
) -> None:
    """Whatever is in the working directory: it is not run."""
    (tmp_path / "sh").write_text("\n" * 100_000 + "print('ran')")
    done = subprocess.run(shell, input=packed.read_bytes(), cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("remo-secret: ")
    assert second.startswith("Hint: ")


def changed(packed: pathlib.Path, file: pathlib.Path, change: Callable[[str, bytes], bytes]) -> pathlib.Path:
    """A copy in which `change` has replaced every member but the main one, by its name and content.
    Members of unchanged length stay at the same offset."""
    head = packed.read_bytes().partition(b"PK\x03\x04")[0]
    file.write_bytes(head)
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(file, "a") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry, content if entry.filename == pack.MAIN_NAME else change(entry.filename, content))
    file.chmod(0o755)
    return file


def version(packed: pathlib.Path, *interpreter: str) -> subprocess.CompletedProcess[str]:
    argv = [*interpreter, str(packed), "--version"]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("interpreter", [(), (sys.executable, "-I", "-S")])
def test_the_version_that_packed_compiles_nothing(
    packed: pathlib.Path, tmp_path: pathlib.Path, interpreter: tuple[str, ...]
) -> None:
    no_source = changed(packed, tmp_path / "x", lambda place, content: b"?" if place.endswith(".py") else content)
    assert version(no_source, *interpreter).stdout.startswith("remo-secret ")


@pytest.mark.parametrize("interpreter", [(), (sys.executable, "-I", "-S")])
def test_another_version_uses_the_source(
    packed: pathlib.Path, tmp_path: pathlib.Path, interpreter: tuple[str, ...]
) -> None:
    def other(place: str, content: bytes) -> bytes:
        return b"\x01\x02\r\n" + b"?" * (len(content) - 4) if place == pack.COMPILED else content

    done = version(changed(packed, tmp_path / "x", other), *interpreter)
    assert (done.stdout.split()[:1], done.stderr) == (["remo-secret"], "")


def head(packed: pathlib.Path) -> list[str]:
    """The command line that the shell executes, without the file's own arguments."""
    _, check, command = packed.read_bytes().partition(b"PK\x03\x04")[0].decode().split("\n", 2)
    assert check.startswith("case $- in")
    words = shlex.split(command)
    assert (words[:3], words[-2:]) == (["exec", "python3", "-IS"], ["$0", "$@"])
    return words[2:-2]


def test_a_get_loads_only_needed_modules(project: Workspace, packed: pathlib.Path) -> None:
    """Each module delays every get; they are counted, not timed."""
    get = ("get", "TOKEN", "--socket", str(project.broker.project()))

    def loaded(*arguments: str | pathlib.Path) -> set[str]:
        argv = [sys.executable, "-X", "importtime", *arguments]
        done = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        lines = done.stderr.decode().splitlines()
        return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}

    modules = loaded(*head(packed), packed, *get) - loaded("-IS", "-c", "pass")
    assert "remo_broker.client.quick" in modules
    assert HEAVY & modules == set()
    assert len(modules) <= MOST_MODULES, sorted(modules)


def test_a_get_opens_only_needed_files(project: Workspace, packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """By strace: it does not read the archive's directory, open each module, or search for
    modules."""
    require_tracing()
    if shutil.which("strace") is None:
        unavailable("strace is not installed here: ./run test installs it")
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-q", "-e", "trace=open,openat,connect", "-o", str(trace), sys.executable, *head(packed)]
    done = subprocess.run(
        [*argv, packed, "get", "TOKEN", "--socket", project.broker.project()], capture_output=True, check=True
    )
    assert done.stdout.decode() == SECRETS["TOKEN"]
    _, first, rest = trace.read_text().partition(f'"{packed}"')
    lines = (first + rest.partition("connect(")[0]).splitlines()
    opened = [line for line in lines if " ENOENT " not in line and "/lib-dynload/" not in line]
    assert sum(str(packed) in line for line in opened) == 2, opened
    assert len(opened) <= MOST_OPENED, opened


def test_a_repacked_archive_uses_the_source(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As by `zip` and `zipfile`: without the text before the archive."""
    again = tmp_path / "x"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(again, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, old.read(entry))
    done = version(again, sys.executable)
    assert (done.stdout.split()[:1], done.stderr) == (["remo-secret"], "")


def old(main: str, directory: pathlib.Path) -> None:
    """A program for a Python that says that it is 3.6."""
    main = main.replace("OLDEST", "9").replace("PROGRAM", "remo-secret")
    main = main.replace("import sys\n", "import sys\nsys.version_info = (3, 6, 1)\n", 1)
    (directory / "__main__.py").write_text(main)


def test_a_version_that_is_too_old_ends_with_a_message(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    old(pack.MAIN, tmp_path)
    done = version(tmp_path, sys.executable, "-I", "-S")
    assert done.returncode == 1
    assert {"3.6", "3.9"} <= set(done.stderr.split())


def test_a_newer_version_on_the_path_is_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in (8, 10, 12):
        (tmp_path / f"python3.{minor}").write_text(f'#!/bin/sh\necho 3.{minor} "$@"\n')
        (tmp_path / f"python3.{minor}").chmod(0o755)
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    old(pack.MAIN, tmp_path)
    assert version(tmp_path, sys.executable, "-I", "-S").stdout == f"3.12 -IS {tmp_path} --version\n"


def test_nothing_from_the_callers_environment_is_imported(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("encodings", "json", "subprocess", "sitecustomize", "usercustomize", "remo_broker"):
        (tmp_path / f"{name}.py").write_text("import os\nos.write(2, b'imported')\n")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONINSPECT": "1", "PYTHONSTARTUP": "json.py"}
    for argv in ([str(packed)], [sys.executable, "-S", str(packed)]):
        if argv[0] == sys.executable:
            (tmp_path / "encodings.py").unlink()  # this one cannot be excluded
        done = subprocess.run(
            [*argv, "--version"], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout[:12], done.stderr) == (0, b"remo-secret ", b"")


def test_the_same_source_makes_the_same_file(packed: pathlib.Path) -> None:
    assert pack.pack() == pack.pack() == packed.read_bytes()


def test_nothing_else_is_in_it() -> None:
    places = pack.modules()
    assert "remo_broker/protocol/ops.py" in places
    for stranger in ("broker.py", "store.py", "daemon.py", "ctl/", "bus/", "client/aio.py", "manifest/keys.py"):
        assert not [place for place in places if place.startswith(f"remo_broker/{stranger}")], stranger
    assert len(pack.pack()) < 800_000
