"""`remo-brokerctl push`: secrets come from files and standard input, never from the command line,
and go nowhere else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import CommandLine, write_project
from tests.support import programs
from tests.support.broker import registration
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker

VALUE = "zqMarkerqz"
NOBODY = 65534


@pytest.fixture
def served(start_broker: StartBroker) -> CommandLine:
    projects = [registration("myrepo", "A", "B", "KEY", "aws")]
    return CommandLine(start_broker(projects=projects, rate_limit_per_second=0))


def generation(operator: CommandLine) -> int:
    found = operator.broker.status()["generation"]
    assert isinstance(found, int)
    return found


def test_a_file_that_takes_long_to_search(served: CommandLine, directory: pathlib.Path) -> None:
    (directory / "a.env").write_text("A=x" + " " * 500_000 + "y\n")
    socket = f"--socket={served.broker.admin}"
    done = programs.run(programs.BROKERCTL, "push", socket, directory / "a.env", processor_seconds=10)
    assert "contains a blank" in refused(done, 1)


def test_from_standard_input(served: CommandLine) -> None:
    served.says("push", stdin=b'{"A":"x","aws":{"id":"1"}}')
    assert served.broker.get("aws")["value"] == '{"id":"1"}'
    served.says("push", "-", stdin=b"A=only\n")
    assert served.broker.get("A")["value"] == "only"
    assert served.broker.get("aws")["reason"] == "not_in_snapshot"
    assert served.json("push", stdin=b"{}")["secret_count"] == 0


def test_from_files(served: CommandLine, directory: pathlib.Path) -> None:
    (directory / "sub").mkdir()
    (directory / "sub/key.bin").write_bytes(b"\0\xff")
    (directory / "sub/s.env").write_text("A=x\nKEY=@key.bin\n")
    (directory / "b.json").write_text('{"B":"y"}')
    served.says("push", directory / "sub/s.env", directory / "b.json", f"aws=@{directory}/sub/key.bin")
    assert served.broker.get("KEY")["value_b64"] == served.broker.get("aws")["value_b64"] == "AP8="
    assert [served.broker.get(name)["value"] for name in "AB"] == ["x", "y"]
    done = served.run("push", "KEY=@sub/key.bin", stdin=b"A=x", cwd=directory)
    assert done.returncode == 0
    assert served.broker.status()["secret_count"] == 1, "with an operand, standard input is not read"
    assert "B is also given by" in refused(served.run("push", directory / "b.json", directory / "b.json"), 1)
    assert served.says("push", "--format=dotenv", "-", stdin=b"{A=x\n".replace(b"{", b"")).startswith("Pushed 1")
    assert refused(served.run("push", directory / "none"), 1).endswith(f"{directory}/none: No such file or directory")


def test_text_is_pushed_as_a_string(served: CommandLine, directory: pathlib.Path) -> None:
    (directory / "a").write_bytes("tökn\n".encode())
    (directory / "s.env").write_text("B=@a\n")
    served.says("push", f"A=@{directory}/a", directory / "s.env")
    assert [served.broker.get(name)["value"] for name in "AB"] == ["tökn\n"] * 2
    served.says("push", "--strip-newline", f"A=@{directory}/a")
    assert served.broker.get("A")["value"] == "tökn"


def test_each_file_of_a_directory_is_a_secret(served: CommandLine, directory: pathlib.Path) -> None:
    """Engines mount secrets like that; Kubernetes adds links and hidden directories."""
    where = directory / "mounted"
    (where / "..data").mkdir(parents=True)
    (where / "..data/A").write_text("x\n")
    (where / "A").symlink_to("..data/A")
    (where / "KEY").write_bytes(b"\0")
    served.says("push", "--strip-newline", where)
    assert (served.broker.get("A")["value"], served.broker.get("KEY")["value_b64"]) == ("x", "AA==")
    before = generation(served)
    (directory / "outside").write_text(VALUE)
    (where / "B").symlink_to("../outside")
    assert f"{where}/B: " in refused(served.run("push", where), 1)
    (where / "B").unlink()
    (where / "B").mkdir()
    assert "is a directory" in refused(served.run("push", where), 1)
    (where / "B").rmdir()
    (where / "db-password").write_text("x")
    assert "db_password" in refused(served.run("push", where), 1)
    (directory / "nothing").mkdir()
    assert "clear" in refused(served.run("push", directory / "nothing"), 1)
    assert generation(served) == before


def test_a_dotenv_file_reads_nothing_outside_its_directory(served: CommandLine, directory: pathlib.Path) -> None:
    where = directory / "project"
    where.mkdir()
    (directory / "outside").write_text(VALUE)
    (where / "link").symlink_to("../outside")
    (where / "up").symlink_to("..")
    os.mkfifo(where / "fifo")
    for path in ("/etc/shadow", "../outside", "link", "up/outside", "fifo", ".", "none", f"{where}/../outside"):
        (where / ".env").write_text(f"A=@{path}\n")
        text = refused(served.run("push", where / ".env"), 1)
        assert text.startswith(f"remo-brokerctl: {where}/.env:1: the file for A: "), text
        assert VALUE not in text
    (where / "inside").write_text("x")
    for path in ("inside", f"{where}/inside", "../project/inside"):
        (where / ".env").write_text(f"A=@{path}\n")
        served.says("push", where / ".env")
        assert served.broker.get("A")["value"] == "x"


def test_a_dotenv_on_standard_input_reads_no_file(served: CommandLine, directory: pathlib.Path) -> None:
    """Its author and its origin are unknown."""
    (directory / "a").write_text(VALUE)
    text = refused(served.run("push", stdin=b"A=@a\n", cwd=directory), 1)
    assert "standard input:1: " in text
    assert "NAME=@PATH" in text.splitlines()[1]


@pytest.mark.takes_root("having files of two users")
def test_root_reads_what_a_dotenv_names_with_the_rights_of_its_owner(
    served: CommandLine, directory: pathlib.Path
) -> None:
    directory.chmod(0o755)
    where = directory / "project"
    where.mkdir()
    for name, owner in ((".env", NOBODY), ("theirs", NOBODY), ("roots", 0)):
        (where / name).write_text(VALUE if name != ".env" else "")
        (where / name).chmod(0o600)
        os.chown(where / name, owner, owner)
    os.chown(where, NOBODY, NOBODY)
    (where / ".env").write_text("A=@theirs\n")
    served.says("push", where / ".env")
    (where / ".env").write_text("A=@roots\n")
    text = refused(served.run("push", where / ".env"), 1)
    assert "Permission denied" in text
    (where / ".env").unlink()
    assert "roots: Permission denied" in refused(served.run("push", where), 1)


@pytest.mark.takes_root("having files of two users")
def test_root_follows_another_users_link_only_to_what_that_user_may_read(
    served: CommandLine, directory: pathlib.Path
) -> None:
    """Whoever owns a directory decides what a path through it leads to."""
    directory.chmod(0o755)
    theirs, roots = directory / "theirs", directory / "roots"
    for where, owner in ((theirs, NOBODY), (roots, 0)):
        (where / "files").mkdir(parents=True)
        (where / "files/A").write_text(VALUE)
        (where / ".env").write_text(f"A={VALUE}\n")
        for path in (where / "files/A", where / ".env"):
            path.chmod(0o600)
            os.chown(path, owner, owner)
        os.chown(where / "files", owner, owner)
        os.chown(where, owner, owner)
    for name in ("env", "dir", "value"):
        for target, where in (("theirs", theirs), ("roots", roots)):
            link = theirs / f"{name}-{target}"
            link.symlink_to(where / {"env": ".env", "dir": "files", "value": "files/A"}[name])
            os.lchown(link, NOBODY, NOBODY)
    (theirs / "up").symlink_to("..")
    os.lchown(theirs / "up", NOBODY, NOBODY)
    for operand in (theirs / "env-{}", theirs / "dir-{}", f"A=@{theirs}/value-{{}}", theirs / "up/{}/.env"):
        served.says("push", str(operand).format("theirs"))
        assert "ermission denied" in refused(served.run("push", str(operand).format("roots")), 1)
    assert "another user's link" in refused(served.run("push", theirs / "env-roots"), 1)
    served.says("push", roots / ".env")


def test_a_fifo_is_refused_and_a_pipe_is_read(served: CommandLine, directory: pathlib.Path) -> None:
    """A FIFO without a writer would keep an operator waiting; a shell passes <(COMMAND) as a
    pipe."""
    os.mkfifo(directory / "fifo")
    assert "is a FIFO" in refused(served.run("push", directory / "fifo"), 1)
    assert "is a FIFO" in refused(served.run("push", f"A=@{directory}/fifo"), 1)
    words = shlex.join(programs.command(programs.BROKERCTL, f"--socket={served.broker.admin}", "push"))
    script = f"{words} <(sleep 0.2; echo A=one) B=@<(printf two) && echo C=3 | {words} /dev/stdin"
    done = subprocess.run(["bash", "-c", script], env=programs.environment(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert generation(served) == 2


def test_a_command_is_pushed_if_it_succeeds(served: CommandLine) -> None:
    served.says("push", "--command", "--", "sh", "-c", "echo A=x; cat", stdin=b"B=y\n")
    assert [served.broker.get(name)["value"] for name in "AB"] == ["x", "y"]
    before = generation(served)
    for script, says in (
        ("echo A=z; exit 3", "status 3"),
        ("echo A=z; kill -TERM $$", "signal 15"),
        ("exit 0", "empty"),
        ("yes A=z", "limit"),
    ):
        assert says in refused(served.run("push", "--command", "--", "sh", "-c", script), 1)
    assert "none-such" in refused(served.run("push", "--command", "--", "none-such"), 1)
    assert "requires a command" in refused(served.run("push", "--command"), 2)
    assert generation(served) == before


def test_projects_that_lack_a_secret_are_named(served: CommandLine) -> None:
    assert "myrepo now lacks KEY, aws.\n" in served.says("push", stdin=b"A=x\nB=y\n")
    assert served.json("push", stdin=b"A=x\nB=y\n")["unsatisfied"] == [{"name": "myrepo", "missing": ["KEY", "aws"]}]
    assert "lacks" not in served.says("push", stdin=b"A=x\nB=y\nKEY=z\naws=z\n")


def test_added_removed_and_changed_names_are_shown(served: CommandLine) -> None:
    assert "Added 3, removed 0, changed 0.\n" in served.says("push", stdin=b'{"A":"1","B":"2","C":{"x":"y"}}')
    text = served.says("push", stdin=b'{"A":"1","B":"3","D":"4","C":{"x":"z"}}')
    assert "Added 1, removed 0, changed 2.\n" in text
    assert "  + D" not in text, "names belong on a terminal, not in a log"
    found = served.json("push", stdin=b"A=1\nB=3\n")["changes"]
    assert found == {
        "added_count": 0,
        "removed_count": 2,
        "changed_count": 0,
        "added_names": [],
        "removed_names": ["D", "C"],
        "changed_names": [],
    }
    shown = served.on_terminal("push", "--command", "--", "echo", "B=4\nE=5")
    assert all(line in shown.text for line in ("  + E", "  - A", "  ~ B"))


def test_no_value_on_the_command_line(served: CommandLine, directory: pathlib.Path) -> None:
    text = refused(served.run("push", f"A={VALUE}"), 2)
    assert "A=@PATH" in text
    assert VALUE not in text
    assert served.broker.status()["secrets_loaded_at"] is None
    # Not even if the text before the sign is not a name: it may be the beginning of a value.
    for operand in (f"{VALUE}-a={VALUE}", f"{VALUE}-a=@{VALUE}"):
        text = refused(served.run("push", operand), 2)
        assert "Hint: " in text
        assert VALUE not in text
    assert "A=@PATH" in refused(served.run("push", "A=@"), 2)
    (directory / "A=x").write_text("B=from-a-file-with-an-odd-name")
    assert served.run("push", "A=x", cwd=directory).returncode == 0


def test_no_value_is_typed(served: CommandLine) -> None:
    shown = served.on_terminal("push")
    assert shown.status == 2
    assert "is a terminal" in shown.text


def test_empty_input_does_not_clear_the_store(served: CommandLine, directory: pathlib.Path) -> None:
    """A failed program at the start of a pipeline leaves empty input."""
    served.broker.push({"A": "kept"})
    (directory / "empty").write_bytes(b" \n\t\r\n")
    for arguments, source in (([], "standard input"), (["-"], "standard input"), ([directory / "empty"], "empty")):
        line = refused(served.run("push", *arguments), 1)
        assert f"{source}: empty\n" in line
        assert "remo-brokerctl clear" in line
    refused(served.run("push", "--dry-run"), 1)
    for nothing in (
        b"\xef\xbb\xbf\r\n",
        b"# none for now\n",
        b"[]",
        b'[{"name": "A"}]',
        b'[{"label": "A", "value": null}]',
    ):
        assert "remo-brokerctl clear" in refused(served.run("push", stdin=nothing), 1)
    assert served.broker.get("A")["value"] == "kept"
    served.says("push", stdin=b"{}")
    assert served.broker.get("A")["reason"] == "not_in_snapshot"


def test_a_fault_changes_nothing(served: CommandLine) -> None:
    served.broker.push({"A": "kept"})
    refused(served.run("push", stdin=b'{"A":null}'), 1)
    refused(served.run("push", stdin=b"x" * (2 << 20)), 1)
    line = refused(served.run("push", stdin=json.dumps({"A": "x" * 70_000}).encode()), 1)
    assert "A" in line
    assert served.broker.get("A")["value"] == "kept"


def test_a_push_that_is_too_large(served: CommandLine, directory: pathlib.Path) -> None:
    many = {f"N{number}": "x" * 60_000 for number in range(17)}
    text = json.dumps(many | {"LAST": "y" * 50_000}).encode()
    assert "standard input: larger than 1048576 bytes" in refused(served.run("push", stdin=text), 1)
    text = json.dumps(many | {"LAST": "\n" * 10_000}).encode()
    (directory / "large").write_bytes(bytes(20_000))
    line = refused(served.run("push", "-", f"KEY=@{directory}/large", stdin=text), 1)
    assert "the limit is 1048576" in line


def test_clear(served: CommandLine) -> None:
    served.broker.push({"A": "x"})
    assert served.says("clear") == "Cleared: the broker holds no secrets.\n"
    assert served.broker.status()["secret_count"] == 0
    assert served.json("clear") == {"secret_count": 0}


def test_dry_run(operator: CommandLine, directory: pathlib.Path) -> None:
    for name, *secrets in (("one", "A", "B"), ("two", "A"), ("three", "C", "B", "A")):
        operator.says("register", write_project(directory, name, *secrets))
    assert operator.says("push", "--dry-run", stdin=b"A=x\n", status=1).splitlines() == [
        "PROJECT  WOULD LACK",
        "one      B",
        "three    C, B",
        "",
        "2 of 3 projects would lack something. Nothing was changed.",
    ]
    assert operator.json("push", "--dry-run", stdin=b"A=x\nB=y\n", status=1) == {
        "secret_count": 2,
        "project_count": 3,
        "unsatisfied": [{"name": "three", "missing": ["C"]}],
    }
    text = operator.says("push", "--dry-run", stdin=b"A=x\nB=y\nC=z\n")
    assert text == "3 secrets would satisfy all 3 projects. Nothing was changed.\n"
    assert operator.broker.status()["secrets_loaded_at"] is None


def test_no_value_anywhere_else(served: CommandLine) -> None:
    for arguments in (["push"], ["push", "--dry-run"], ["push", "-j"]):
        done = served.run(*arguments, stdin=f"A={VALUE}\nB={VALUE}\n".encode())
        assert VALUE.encode() not in done.stdout + done.stderr
    assert VALUE not in served.broker.log.read_text()
