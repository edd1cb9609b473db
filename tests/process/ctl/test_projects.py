"""`remo-brokerctl` for projects: from register to unregister, and explain."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.process.ctl.conftest import CommandLine, write_project
from tests.support.broker import NOBODY, listen
from tests.support.machine import poll
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib


TIME = r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+; \d+\S* ago"


def test_from_register_to_unregister(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", "aws", extra="[cache]\nttl_seconds = 60\nmax_entries = 2\n")
    socket = operator.broker.project()
    text = operator.says("register", path)
    assert str(socket) in text
    assert "TOKEN, aws" in text
    operator.broker.push({"TOKEN": "x"})
    operator.broker.get("TOKEN")
    operator.broker.get("OTHER")
    header, row, empty, count = operator.says("list").splitlines()
    assert header.split() == [
        "PROJECT",
        "NAMES",
        "LEASES",
        "CONNECTIONS",
        "ALLOWED",
        "DENIED",
        "LAST",
        "FETCH",
    ]
    assert re.fullmatch(r"myrepo +2 +1 +0 +1 +1 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row)
    assert max(map(len, (header, row))) <= 80
    assert (empty, count) == ("", "1 project listed.")
    assert operator.says("list", "--no-legend") == row + "\n"
    assert operator.json("list")[0]["allowlist_size"] == 2
    text = operator.says("show", "myrepo")
    assert re.fullmatch(
        rf"""    Project: myrepo
  Directory: {path}
     Socket: {socket}
      Users: anybody who can open the socket
     Leases: 60 s, at most 2; 1 live
Connections: 0
    Fetches: 1 handed out, 0 not there, 1 denied, last {TIME}
      Names: TOKEN
             aws
""",
        text,
    ), text
    assert operator.json("show", "myrepo")["allowlist"] == ["TOKEN", "aws"]
    write_project(directory, "myrepo", "OTHER")
    assert operator.says("reload", "--yes", "myrepo") == "Reloaded myrepo: OTHER\n"
    assert operator.json("reload", "myrepo") == {"name": "myrepo", "allowlist": ["OTHER"]}
    assert operator.says("unregister", "myrepo") == "Unregistered myrepo.\n"
    assert operator.json("list") == []


def test_register_a_relative_path_for_some_users(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    done = operator.run("register", ".", "--allow-uid", "0,nobody,0", "--allow-uid=7", "-j", cwd=path)
    assert json.loads(done.stdout) == {
        "name": "myrepo",
        "socket_path": str(operator.broker.project()),
        "allowlist": ["TOKEN"],
        "unit": None,
        "unit_enabled": False,
    }
    assert operator.json("show", "myrepo")["allowed_uids"] == [0, NOBODY, 7]
    assert re.search(r"Users: 0 \(root\), 65534 \(nobody\), 7", operator.says("show", "myrepo"))


def test_a_symlink_to_a_project_is_the_project(operator: CommandLine, directory: pathlib.Path) -> None:
    (directory / "link").symlink_to(write_project(directory, "myrepo", "TOKEN"))
    operator.says("register", directory / "link/")
    assert operator.json("show", "myrepo")["project_path"] == str(directory / "myrepo")


def test_projects_that_cannot_be_registered(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    assert "--name" in refused(operator.run("register", directory / "No Project"), 1)
    assert "there is no such directory" in refused(operator.run("register", directory / "nowhere"), 1)
    assert "unknown user: 'nemo'" in refused(operator.run("register", path, "--allow-uid", "nemo"), 2)
    assert "--allow-uid requires a user" in refused(operator.run("register", path, "--allow-uid=,"), 2)
    assert "--allow-uid requires a value" in refused(operator.run("register", path, "--allow-uid="), 2)
    assert "unknown user: '4294967295'" in refused(operator.run("register", path, "--allow-uid=4294967295"), 2)
    operator.says("register", path)
    assert "'remo-brokerctl reload myrepo'" in refused(operator.run("register", path), 1)
    write_project(directory, "broken", "NO NAME")
    line = refused(operator.run("register", directory / "broken"), 1)
    assert line.startswith(f"remo-brokerctl: {directory}/broken: allowlist.secrets[0]: ")
    (directory / "file").write_text("")
    line = refused(operator.run("register", directory / "file"), 1)
    assert line.startswith(f"remo-brokerctl: {directory}/file: a regular file, not a directory; ")
    write_project(directory / "caf\udce9", "latin", "TOKEN")
    line = refused(operator.run("register", directory / "caf\udce9/latin"), 1)
    assert r"/caf\udce9/latin: a name, path or value in the request is not UTF-8" in line
    assert "reserved" in refused(operator.run("register", directory / "status"), 1)
    for command in ("register", "check"):
        assert "PATH must not be empty" in refused(operator.run(command, "", cwd=path), 2)


def test_reload_all(operator: CommandLine, directory: pathlib.Path) -> None:
    for name in ("one", "two", "three"):
        operator.says("register", write_project(directory, name, "TOKEN"))
    write_project(directory, "three", "OTHER")
    (directory / "one/.devcontainer/remo-broker.toml").write_text("nonsense")
    done = operator.run("reload", "--all")
    assert done.returncode == 1
    assert done.stdout.startswith(b"Reloaded three: no names")
    assert done.stdout.endswith(b"Reloaded two: TOKEN\n")
    assert re.fullmatch(rb"remo-brokerctl: one: not TOML .*\n", done.stderr)
    found = json.loads(operator.run("reload", "--all", "--json=short").stdout)
    assert [(one["name"], "error" in one, one.get("widens")) for one in found] == [
        ("one", True, None),
        ("three", False, True),
        ("two", False, False),
    ]
    assert operator.json("show", "one")["allowlist"] == ["TOKEN"], "what fails leaves the old list"


def test_a_taken_name_is_refused_with_its_directory(operator: CommandLine, directory: pathlib.Path) -> None:
    """`reload`, the hint for the same directory, would read the other project's manifest."""
    first = write_project(directory / "a", "myrepo", "TOKEN")
    operator.says("register", first)
    text = refused(operator.run("register", write_project(directory / "b", "myrepo", "TOKEN")), 1)
    assert str(first) in text
    assert "reload" not in text


def test_a_project_that_is_not_served_is_marked(operator: CommandLine, directory: pathlib.Path) -> None:
    for name in ("myrepo", "other"):
        operator.says("register", write_project(directory, name, "TOKEN"))
    socket = operator.broker.project()
    assert operator.json("list")[0]["served"] is True
    socket.unlink()
    for kind in ("nothing", "a directory", "a file"):
        if kind == "a directory":
            socket.mkdir()
        elif kind == "a file":
            socket.rmdir()
            socket.touch()
        assert f"{socket}" in operator.says("status", status=1)
        assert list(operator.json("status", status=1)["unserved"]) == ["myrepo"]
        rows = operator.says("list").splitlines()
        assert str(socket) in rows[1]
        assert rows[2].endswith("served")
        assert operator.json("show", "myrepo")["served"] is False
        assert [one["served"] for one in operator.json("list")] == [False, True]
    socket.unlink()
    operator.says("reload", "myrepo")
    operator.says("status")


def test_a_project_whose_containers_are_not_served_is_marked(operator: CommandLine, directory: pathlib.Path) -> None:
    """Its other socket, for the host, exists."""
    operator.says("register", write_project(directory, "myrepo", "TOKEN"))
    operator.broker.push({"TOKEN": "x"})
    operator.says("explain", "myrepo", "TOKEN")
    socket = operator.broker.project().parent / "mount/myrepo/broker.sock"
    socket.unlink()
    for kind in ("nothing", "a directory", "another socket"):
        if kind == "a directory":
            socket.mkdir()
        elif kind == "another socket":
            listen(socket).close()
        assert str(socket) in operator.says("status", status=1)
        assert str(socket) in operator.says("list").splitlines()[1]
        assert str(socket) in operator.says("show", "myrepo")
        assert f"not served: {socket}" in operator.says("explain", "myrepo", "TOKEN", status=1)
        found = operator.json("explain", "myrepo", "TOKEN", status=1)
        assert str(socket) in found["unserved_reason"]
        assert (found["decision"], found["served"]) == ("allow", False)
        assert "remo-brokerctl reload myrepo" in found["unserved_reason"]
        if socket.is_dir():
            socket.rmdir()
    socket.unlink()
    operator.says("reload", "myrepo")
    operator.says("status")
    operator.says("explain", "myrepo", "TOKEN")


def test_unknown_projects(operator: CommandLine) -> None:
    for command in ("show", "unregister", "reload"):
        assert "'remo-brokerctl list' shows" in refused(operator.run(command, "nowhere"), 1)


# --- explain


def test_explain(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", "OTHER")
    operator.says("register", path, "--allow-uid=nobody")

    def no(*arguments: str) -> list[str]:
        return operator.says("explain", *arguments, status=1).splitlines()

    lines = no("myrepo", "TOKEN")
    assert lines[0] == "myrepo would not be given TOKEN: no_snapshot"
    assert lines[-2:] == ["  ✗ secrets have been pushed", "Have the sidecar push, or: remo-brokerctl push FILE."]
    operator.broker.push({"TOKEN": "x"})
    assert operator.says("explain", "myrepo", "TOKEN").splitlines() == [
        "myrepo would be given TOKEN",
        "  ✓ the project is registered",
        "  ✓ the user may connect: one of 65534 (nobody)",
        "  ✓ the name is one that a secret can have",
        "  ✓ the manifest, as last loaded, lists the name",
        "  ✓ secrets have been pushed",
        "  ✓ the last push contained it",
        "  ✓ it has not expired",
    ]
    assert no("myrepo", "OTHER")[-2:] == ["  ✗ the last push contained it", "Add it to what the sidecar pushes."]
    assert no("myrepo", "TOKEN", "--uid=root")[2] == "  ✗ the user may connect: 0 (root)"
    assert no("myrepo", "NEW")[-1] == "Add it to the manifest, then: remo-brokerctl reload myrepo."
    write_project(directory, "myrepo", "TOKEN", "OTHER", "NEW")
    assert no("myrepo", "NEW")[-1] == "The manifest on disk has it by now: remo-brokerctl reload myrepo."
    assert no("myrepo", "a\x1b[31mb")[0] == r"myrepo would not be given a\x1b[31mb: invalid_name"
    assert no("nowhere", "TOKEN")[1:] == [
        "  ✗ the project is registered",
        "Register its directory: remo-brokerctl register PATH.",
    ]
    found = operator.json("explain", "myrepo", "OTHER", status=1)
    assert (found["served"], found["reason"], found["uid"]) == (False, "not_in_snapshot", None)
    assert operator.json("explain", "myrepo", "TOKEN")["served"] is True
    at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat(timespec="milliseconds")
    assert operator.broker.ask({"op": "push-creds", "secrets": {"TOKEN": "x"}, "expires": {"TOKEN": at}})["ok"]
    poll("it to expire", lambda: operator.run("explain", "myrepo", "TOKEN").returncode)
    assert no("myrepo", "TOKEN")[-2] == "  ✗ it has not expired"
    assert not operator.broker.records("fetch"), "nothing is fetched"
