"""Which directories for rendered files outlive the user's session."""

from __future__ import annotations

import os
import pathlib

import pytest

from remo_broker.client.unreachable import user_name
from remo_broker.protocol import mounts
from remo_broker.secret import tmpfs


def test_files_in_the_runtime_directory_end_with_the_session_unless_the_user_lingers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tmpfs, "LINGERING", str(tmp_path))
    assert tmpfs.ends_with_session("/run/user/1000/remo-secret-1000/web")
    for lasting in ("/dev/shm/remo-secret-1000/web", "/run/remo-secret-0/web", "/run/username/web"):
        assert not tmpfs.ends_with_session(lasting)
    (tmp_path / user_name(os.geteuid())).touch()
    assert not tmpfs.ends_with_session("/run/user/1000/remo-secret-1000/web")


def test_no_name_of_a_mount_hides_another(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user can mount a FUSE in a directory of any name."""
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = tmp_path / "mountinfo"
    lines = [
        "36 22 0:0 / /home/user/a\rb\rc rw - fuse.x x rw",
        f"37 22 0:0 / /home/user/\r1\x1f2\x1f{number}\x0c rw - fuse.x x rw",
        f"38 22 0:0 / /home/user/\u20281\u20032\u2003{number}\u2003\x85 rw - fuse.x x rw",
        f"39 22 {number} / /dev/shm rw - tmpfs tmpfs rw",
    ]
    table.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    monkeypatch.setattr(mounts, "PATH", str(table))
    assert tmpfs.is_in_memory(str(tmp_path))
