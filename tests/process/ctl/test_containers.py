"""Names of containers, from the state of docker and podman."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from remo_broker.ctl import audit_requester, containers
from tests.process.ctl.test_audit import fetch

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

A, B = "a" * 64, "b" * 64


@pytest.fixture
def state(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The places of docker's, podman's and the user's state: `docker`, `podman.json`, `home`."""
    monkeypatch.setattr(containers, "DOCKER", str(tmp_path / "docker"))
    monkeypatch.setattr(containers, "PODMAN", str(tmp_path / "podman.json"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    containers._docker_name.cache_clear()
    containers._podman_names.cache_clear()


def docker(state: pathlib.Path, container: str, name: object) -> pathlib.Path:
    file = state / "docker" / container / "config.v2.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"ID": container, "Name": name}))
    return file


def podman(file: pathlib.Path, names: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([{"id": container, "names": [name]} for container, name in names.items()]))


def link(file: pathlib.Path) -> None:
    file.unlink()
    file.symlink_to(file.parent.parent / B / file.name)


def pipe(file: pathlib.Path) -> None:
    file.unlink()
    os.mkfifo(file)


def test_a_container_has_the_name_that_its_engine_knows(state: pathlib.Path) -> None:
    docker(state, A, "/web-1")
    podman(state / "podman.json", {B: "db-1"})
    podman(state / "home" / containers.PODMAN_HOME, {B: "another", "c" * 64: "own"})
    assert [containers.container_name(one * 64) for one in "abcd"] == ["web-1", "db-1", "own", "d" * 12]
    assert containers.container_name("web") == "web"


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 500, 7, None, ["x"], ""])
def test_a_name_may_be_anything(state: pathlib.Path, name: object) -> None:
    docker(state, A, name)
    shown = containers.container_name(A)
    assert shown.isprintable()
    assert 0 < len(shown) <= containers.LONGEST_NAME


@pytest.mark.parametrize(
    "replace",
    [
        link,
        pipe,
        lambda file: file.write_text("[" * 100_000),
        lambda file: file.write_text("[7, null, {}]"),
        lambda file: file.write_bytes(file.read_bytes() + b" " * containers.LARGEST_STATE),
    ],
    ids=["a link", "a pipe", "deep", "another form", "too large"],
)
def test_other_content_names_no_container(state: pathlib.Path, replace: Callable[[pathlib.Path], object]) -> None:
    docker(state, B, "/elsewhere")
    replace(docker(state, A, "/web-1"))
    assert containers.container_name(A) == A[:12]


def test_another_users_name_for_a_container_is_not_shown(state: pathlib.Path) -> None:
    """That user's state may claim the ids of the reader's own containers."""
    podman(state / "home" / containers.PODMAN_HOME, {A: "web-1"})
    for uid, name in ((os.geteuid(), "web-1"), (os.geteuid() + 1, A[:12])):
        record = fetch("S", peer_comm="npm", peer_container=A, peer_unit=f"user@{uid}.service")
        assert audit_requester.who(record) == f"npm in container {name} of user@{uid}"


@pytest.mark.parametrize(
    ("unit", "container", "shown"),
    [
        (f"docker-{A}.scope", A, f"container {A[:12]}"),
        (f"libpod-payload-{A}.scope", A, f"container {A[:12]}"),
        ("machine-web.scope", "web", "container web"),
        ("machine-my\\x2dbox.scope", "my-box", "container my-box"),
        ("machine-my\\\\x2dbox.scope", "my-box", "container my-box"),  # as the record has it
        ("systemd-nspawn@web.service", "web", "container web"),
        # A user's or a service's claim: both may name control groups below their own.
        ("user@1000.service", "1000", "container 1000 of user@1000"),
        ("user@1000.service", "user", "container user of user@1000"),
        ("web-1.service", "web", "container web of web-1"),
        ("machine-web-2.scope", "web", "container web of machine-web-2.scope"),
    ],
)
def test_a_container_is_shown_with_the_unit_that_claims_to_have_it(
    state: pathlib.Path, unit: str, container: str, shown: str
) -> None:
    record = fetch("A", peer_comm="npm", peer_unit=unit, peer_container=container)
    assert audit_requester.place(record) == shown
