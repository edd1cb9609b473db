"""A project's code can write its manifest: anything it would newly allow needs an operator's
approval."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import CommandLine, write_project
from tests.support.broker import ask, registration
from tests.support.machine import poll
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker


@pytest.fixture
def path(operator: CommandLine, directory: pathlib.Path) -> pathlib.Path:
    """A registered project with two names."""
    found = write_project(directory, "myrepo", "A", "B", extra="[cache]\nttl_seconds = 60\n")
    operator.says("register", found)
    return found


def allowed(operator: CommandLine) -> list[str]:
    found = operator.json("show", "myrepo")["allowlist"]
    assert isinstance(found, list)
    return found


def waits(operator: CommandLine) -> bool:
    return operator.json("list")[0].get("manifest_waits", False) is True


def test_diff_shows_names_numbers_and_bindings(
    operator: CommandLine, path: pathlib.Path, directory: pathlib.Path
) -> None:
    operator.says("diff", "myrepo")
    assert operator.json("diff", "myrepo")["changed"] is False
    extra = '[cache]\nttl_seconds = 30\n[secrets.B]\nfetch_as = "env"\nenv_var = "LD_PRELOAD"\n'
    write_project(directory, "myrepo", "B", "NEW", extra=extra)
    text = operator.says("diff", "myrepo", status=1)
    for line in ("+ NEW", "- A", "~ binding of B", "~ ttl_seconds: 60 -> 30", f"{path}/.devcontainer/remo-broker.toml"):
        assert line in text
    found = operator.json("reload", "--dry-run", "myrepo", status=1)
    assert (found["added"], found["removed"], found["changed_bindings"]) == (["NEW"], ["A"], ["B"])
    assert (found["ttl_seconds_now"], found["ttl_seconds"], found["widens"]) == (60, 30, True)
    assert allowed(operator) == ["A", "B"], "nothing was adopted"


def test_reload_of_a_narrower_manifest_does_not_ask(
    operator: CommandLine, directory: pathlib.Path, path: pathlib.Path
) -> None:
    write_project(directory, path.name, "B", extra="# a comment\n[cache]\nttl_seconds = 10\n")
    operator.says("reload", "myrepo")
    assert allowed(operator) == ["B"]


def test_diff_shows_where_secrets_would_go(operator: CommandLine, path: pathlib.Path, directory: pathlib.Path) -> None:
    """For new names too, with control characters escaped."""
    extra = """
[secrets.A]
fetch_as = "file"
file_path = "~/.ssh/authorized_keys"
file_mode = "0644"
template = "ssh-rsa \\u001b[2J\\u202e{{value}}"
[secrets.NEW]
fetch_as = "env"
env_var = "LD_PRELOAD"
[hosts]
"git.example.org" = "B"
"""
    write_project(directory, path.name, "A", "B", "NEW", extra=extra)
    text = operator.says("diff", "myrepo", status=1)
    added = text.splitlines().index("  + NEW")
    assert text.splitlines()[added + 1].strip() == "variable LD_PRELOAD"
    assert "~/.ssh/authorized_keys, mode 0644" in text
    assert "ssh-rsa" in text
    assert "git.example.org: B" in text
    assert not {"\x1b", "\u202e"} & set(text)
    shown = operator.on_terminal("reload", "myrepo", keys=b"n\n")
    assert "variable LD_PRELOAD" in shown.text
    assert operator.json("diff", "myrepo", status=1)["new_hosts"] == {"git.example.org": "B"}


def test_bindings_too_long_to_show_are_mentioned(
    operator: CommandLine, path: pathlib.Path, directory: pathlib.Path
) -> None:
    template = "{{value}}" + '"' * 31_000
    extra = f"[secrets.A]\nfetch_as = 'file'\nfile_path = 'x'\nfile_mode = '0600'\ntemplate = '{template}'\n"
    names = [f"N{number:0100}" for number in range(40)]
    write_project(directory, path.name, "A", *names, extra=extra)
    text = operator.says("diff", "myrepo", status=1)
    assert "~ binding of A" in text
    assert "read the manifest" in text


CACHE = "[cache]\nttl_seconds = 60\nmax_entries = 5\n"


@pytest.mark.parametrize(
    ("names", "extra"),
    [
        (["A", "B", "NEW"], CACHE),
        (["A", "B"], CACHE.replace("60", "61")),
        (["A", "B"], CACHE.replace("5", "6")),
        (["A", "B"], f'{CACHE}[secrets.A]\nfetch_as = "env"\nenv_var = "LD_PRELOAD"\n'),
        (["A", "B"], f'{CACHE}[hosts]\n"git.example.org" = "A"\n'),
    ],
    ids=["name", "lease", "leases", "binding", "host"],
)
def test_any_widening_must_be_approved(
    operator: CommandLine, directory: pathlib.Path, path: pathlib.Path, names: list[str], extra: str
) -> None:
    write_project(directory, path.name, "A", "B", extra=CACHE)
    operator.says("reload", "--yes", "myrepo")
    write_project(directory, path.name, *names, extra=extra)
    before = operator.json("show", "myrepo")
    assert "--yes" in refused(operator.run("reload", "myrepo"), 1)
    operator.says("reload", "--all")
    assert operator.json("show", "myrepo") == before | {"manifest_waits": True}
    operator.says("reload", "--yes", "myrepo")
    assert operator.json("diff", "myrepo")["changed"] is False
    assert not waits(operator)


def test_a_removed_host_is_removed_at_once(operator: CommandLine, path: pathlib.Path, directory: pathlib.Path) -> None:
    """Even if the manifest also adds something, which waits for approval."""
    write_project(directory, path.name, "A", "B", extra='[hosts]\n"one.example" = "A"\n"two.example" = "B"\n')
    operator.says("reload", "--yes", "myrepo")
    write_project(directory, path.name, "A", "B", "NEW", extra='[hosts]\n"one.example" = "A"\n')
    operator.says("reload", "--all")
    assert waits(operator)
    assert ask(operator.broker.project(), {"op": "info"})["hosts"] == {"one.example": "A"}
    assert allowed(operator) == ["A", "B"]


def test_unapproved_bindings_wait(start_broker: StartBroker, directory: pathlib.Path) -> None:
    """Bindings of a project registered by an earlier version, which kept none."""
    extra = '[secrets.A]\nfetch_as = "env"\nenv_var = "LD_PRELOAD"\n[hosts]\n"git.example.org" = "A"\n'
    path = write_project(directory, "myrepo", "A", "B", extra=extra)
    projects = [registration("myrepo", "A", "B", "C", project_path=str(path))]
    operator = CommandLine(start_broker(projects=projects))
    operator.says("reload", "--all")
    assert waits(operator)
    assert allowed(operator) == ["A", "B"]
    found = operator.json("diff", "myrepo", status=1)
    assert (found["changed_bindings"], found["changed_hosts"], found["widens"]) == (["A"], ["git.example.org"], True)
    assert ask(operator.broker.project(), {"op": "bindings"})["bindings"] == {}
    assert "--yes" in refused(operator.run("reload", "myrepo"), 1)
    operator.says("reload", "--yes", "myrepo")
    assert list(ask(operator.broker.project(), {"op": "bindings"})["bindings"]) == ["A"]


def test_reload_asks_on_a_terminal(operator: CommandLine, directory: pathlib.Path, path: pathlib.Path) -> None:
    write_project(directory, path.name, "A", "B", "NEW", extra="[cache]\nttl_seconds = 60\n")
    shown = operator.on_terminal("reload", "myrepo", keys=b"n\n")
    assert shown.status == 1
    assert "+ NEW" in shown.text
    assert allowed(operator) == ["A", "B"]
    assert operator.on_terminal("reload", "myrepo", keys=b"y\n").status == 0
    assert allowed(operator) == ["A", "B", "NEW"]


def test_sighup_adopts_only_what_is_narrower(
    operator: CommandLine, directory: pathlib.Path, path: pathlib.Path
) -> None:
    write_project(directory, path.name, "NEW", "B", extra="[cache]\nttl_seconds = 900\n")

    def waits_after_a_signal() -> bool:
        # On a busy host the manifest may not be read in time; the next signal then reads it again.
        operator.broker.signal(signal.SIGHUP)
        return waits(operator)

    poll("the manifest to be read", waits_after_a_signal)
    detail = operator.json("show", "myrepo")
    assert (detail["allowlist"], detail["ttl_seconds"]) == (["B"], 60)
    [record] = operator.broker.records("manifest.waits")
    assert record["REMO_PROJECT"] == "myrepo"
    assert "remo-brokerctl diff myrepo" in operator.says("status")
    operator.says("reload", "--all")
    assert len(operator.broker.records("manifest.waits")) == 1, "said once"
    operator.says("reload", "--yes", "myrepo")
    assert allowed(operator) == ["NEW", "B"]
    assert "diff" not in operator.says("status")


def test_only_the_approved_content_is_adopted(
    operator: CommandLine, directory: pathlib.Path, path: pathlib.Path
) -> None:
    """A manifest that changes between the question and the answer is not adopted."""
    write_project(directory, path.name, "A", "B", "HARMLESS")
    shown = operator.json("diff", "myrepo", status=1)
    write_project(directory, path.name, "A", "B", "HARMLESS", "PRECIOUS")
    reply = operator.broker.ask({"op": "reload", "name": "myrepo", "sha256": shown["sha256"]})
    assert (reply["code"], reply["reason"]) == ("manifest_invalid", "manifest_changed")
    assert allowed(operator) == ["A", "B"]
    assert operator.broker.ask({"op": "reload", "name": "myrepo"})["allowlist"] == ["A", "B", "HARMLESS", "PRECIOUS"]


def test_an_unreadable_manifest_is_named_with_the_next_step(operator: CommandLine, path: pathlib.Path) -> None:
    (path / ".devcontainer/remo-broker.toml").write_text("nonsense")
    ways = (["diff", "myrepo"], ["reload", "myrepo"], ["reload", "--dry-run", "myrepo"])
    for command in ways:
        text = refused(operator.run(*command), 1)
        assert f"{path}: not TOML" in text
        assert f"'remo-brokerctl check {path}'" in text
    assert "remo-brokerctl check" in refused(operator.run("register", "--replace", path), 1)
    path.rename(path.with_name("elsewhere"))
    for command in ways:
        text = refused(operator.run(*command), 1)
        assert f"{path}: there is no such directory" in text
        assert "'remo-brokerctl unregister myrepo'" in text


# --- register


def test_a_name_chosen_by_the_operator(operator: CommandLine, directory: pathlib.Path) -> None:
    """For a directory whose name is invalid, and for a second worktree of one project."""
    path = write_project(directory / "clone", "myrepo", "A")
    odd = path.rename(directory / "My.App")
    assert "--name" in refused(operator.run("register", odd), 1)
    worktree = write_project(directory / "tree", "myrepo", "A").rename(directory / "myrepo-feature")
    assert "--name" in refused(operator.run("register", worktree), 1)
    operator.says("register", "--name=myrepo-feature", worktree)
    operator.says("register", "--name=myrepo-2", odd)
    assert operator.json("show", "myrepo-2")["project_path"] == str(odd)
    operator.says("reload", "myrepo-2")
    operator.broker.stop()
    operator.broker.start()
    assert operator.says("reload", "myrepo-2").startswith("Reloaded myrepo-2: A")
    assert "not a valid name" in refused(operator.run("register", "--name=No!", odd), 2)


def test_replace_keeps_the_sockets_of_the_same_directory(
    operator: CommandLine, path: pathlib.Path, directory: pathlib.Path
) -> None:
    socket = operator.broker.project()
    inode = socket.stat().st_ino
    operator.says("register", "--replace", "--allow-uid=0,7", path)
    assert operator.json("show", "myrepo")["allowed_uids"] == [0, 7]
    assert socket.stat().st_ino == inode
    other = write_project(directory / "other", "myrepo", "C")
    assert "--replace" in refused(operator.run("register", other), 1)
    operator.says("register", "--replace", other)
    detail = operator.json("show", "myrepo")
    assert (detail["project_path"], detail["allowlist"], detail["allowed_uids"]) == (str(other), ["C"], [])
    operator.broker.push({"C": "x"})
    assert operator.broker.get("C")["value"] == "x"
    (other / ".devcontainer/remo-broker.toml").write_text("nonsense")
    assert operator.run("register", "--replace", other).returncode == 1
    assert allowed(operator) == ["C"], "what fails changes nothing"


def test_register_replace_of_an_unknown_project_registers_it(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "fresh", "A")
    found = json.loads(operator.run("register", "--replace", "-j", path).stdout)
    assert found["allowlist"] == ["A"]
