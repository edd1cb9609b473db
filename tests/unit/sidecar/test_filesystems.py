"""Which paths are on file systems that inotify does not cover, by the mount table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.protocol import mounts
from remo_broker.sidecar import filesystems
from remo_broker.sidecar.check import unwatched
from remo_broker.sidecar.configuration import Source

if TYPE_CHECKING:
    import pathlib

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /nowhere/nfs rw shared:9 master:3 - nfs4 server:/x rw
31 22 0:31 / /nowhere/a\\040b rw - virtiofs tag rw
32 22 0:32 / /nowhere/ä rw - 9p tag rw
33 30 0:33 / /nowhere/nfs/local rw - tmpfs tmpfs rw
34 22 0:34 / /nowhere/twice rw - tmpfs tmpfs rw
35 34 0:35 / /nowhere/twice rw - cifs //server/x rw
36 22 0:36 / /nowhere/back\\134slash rw - nfs server:/y rw
37 22 0:37 / /home/user/\r\rof\x1fa\x0buser\x85 rw - fuse.x x rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/nowhere/vault.env", None),
        ("/nowhere/nfs/vault.env", "nfs4"),
        ("/nowhere/nfs", "nfs4"),
        ("/nowhere/nfs-is-another/vault.env", None),
        ("/nowhere/nfs/local/vault.env", None),
        ("/nowhere/a b/vault.env", "virtiofs"),
        ("/nowhere/ä/vault.env", "9p"),
        ("/nowhere/back\\slash/vault.env", "nfs"),
        ("/nowhere/twice/vault.env", "cifs"),
    ],
)
def test_the_mount_that_a_path_is_on_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, path: str, kind: str | None
) -> None:
    use(monkeypatch, tmp_path)
    assert filesystems.remote(path) == kind


def test_check_names_unwatched_paths_without_refresh_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    use(monkeypatch, tmp_path)
    unseen, refreshed, local, command = (
        Source("one", {"file": "/nowhere/nfs/vault.env"}),
        Source("two", {"file": "/nowhere/nfs/vault.env", "refresh_seconds": 60}),
        Source("three", {"file": "/nowhere/vault.env"}),
        Source("four", {"command": ("vault",), "watch": ("/nowhere/a b/vault", "/nowhere/vault")}),
    )
    assert unwatched([unseen, refreshed, local, command]) == [
        ("one", "/nowhere/nfs/vault.env", "nfs4"),
        ("four", "/nowhere/a b/vault", "virtiofs"),
    ]


def use(monkeypatch: pytest.MonkeyPatch, directory: pathlib.Path) -> None:
    """Let the process see these mounts."""
    table = directory / "mountinfo"
    table.write_text(MOUNTS, newline="")
    monkeypatch.setattr(mounts, "PATH", str(table))
