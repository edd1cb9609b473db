"""The one file for containers runs with Python and nothing else."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.secret import pack
from tests.secret.conftest import KEY

if TYPE_CHECKING:
    from tests.secret.conftest import Project


@pytest.fixture
def packed(directory: pathlib.Path) -> pathlib.Path:
    file = directory / "remo-secret"
    subprocess.run([sys.executable, "-m", "remo_broker.secret.pack", file], check=True)
    return file


def test_every_command(project: Project, packed: pathlib.Path) -> None:
    """`-I` and `-S` keep out whatever else is installed; the working directory has nothing of ours."""

    def run(*arguments: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            [sys.executable, "-I", "-S", packed, *arguments],
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


def test_it_is_a_program(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = subprocess.run([packed, "get", "TOKEN", "--socket=/nowhere/x.sock"], capture_output=True, check=False)
    assert done.returncode == 5
    assert b"/nowhere/x.sock does not exist (nor does /nowhere)" in done.stderr


def test_the_same_source_makes_the_same_file() -> None:
    assert pack.pack() == pack.pack()


def test_nothing_else_is_in_it() -> None:
    places = pack.modules()
    assert "remo_broker/messages.py" in places
    for stranger in ("broker.py", "store.py", "daemon.py", "ctl/", "bus/", "client/aio.py", "manifest/models.py"):
        assert not [place for place in places if place.startswith(f"remo_broker/{stranger}")], stranger
    assert len(pack.pack()) < 100_000
