"""`register --fix-acl` gives the reader's user what it lacks, and no other user anything."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from remo_broker.ctl import reader_access
from tests.process.ctl.conftest import write_project
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib

READER, OTHER = "nobody", "daemon"

# argv: an open file or directory.
TRY = """
import os, sys
path = f"/proc/self/fd/{sys.argv[1]}"
print(*[name for name, how in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if os.access(path, how)], sep="")
"""


def rights(user: str, path: pathlib.Path) -> str:
    """What `user` may do with it, whatever the directories above say."""
    entry = pwd.getpwnam(user)
    opened = os.open(path, os.O_PATH)
    try:
        done = subprocess.run(
            ["/usr/bin/python3", "-ISc", TRY, str(opened)],  # .venv may be below a closed home
            stdout=subprocess.PIPE,
            text=True,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            pass_fds=(opened,),
            check=True,
        )
    finally:
        os.close(opened)
    return done.stdout.strip()


def acl(*arguments: str | pathlib.Path) -> None:
    subprocess.run(["setfacl", *arguments], check=True)


@pytest.fixture
def closed(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A project whose directory, and the one above, are closed to all but their owner."""
    if shutil.which("setfacl") is None:
        unavailable("setfacl is not installed here: ./run test installs it")
    monkeypatch.setattr(reader_access, "READER", READER)
    project = write_project(directory / "home", "app", "TOKEN")
    for path in (project.parent, project, project / ".devcontainer", project / ".devcontainer/remo-broker.toml"):
        path.chmod(path.stat().st_mode & 0o700)
    return project


@pytest.mark.takes_root("another user's rights")
def test_what_the_mode_withholds_from_others_stays_withheld(closed: pathlib.Path) -> None:
    folder = closed / ".devcontainer"
    manifest = folder / "remo-broker.toml"
    for path in (closed, folder, manifest):
        mode = path.stat().st_mode
        acl("-m", f"u:{OTHER}:rwx,g:{OTHER}:rwx,g::rx,u:{READER}:rwx", path)
        path.chmod(mode)
    acl("-m", f"d:u:{OTHER}:rwx,d:g::rx,d:m::-", folder)
    reader_access.grant(str(closed))
    (folder / "new").write_text("made since")
    for path, expected in ((closed, "x"), (folder, "x"), (manifest, "r"), (folder / "new", "r")):
        assert (rights(OTHER, path), rights(READER, path)) == ("", expected)
    assert reader_access.grant(str(closed)) == []


@pytest.mark.takes_root("another user's rights")
def test_new_files_beside_the_manifest_allow_others_no_more_than_it_does(closed: pathlib.Path) -> None:
    """The umask of a user who keeps files closed in an open directory has no effect any more."""
    folder = closed / ".devcontainer"
    folder.chmod(0o755)
    reader_access.grant(str(closed))
    before = os.umask(0o077)
    try:
        (folder / "new").write_text("made since")
    finally:
        os.umask(before)
    assert (rights(OTHER, folder / "new"), rights(READER, folder / "new")) == ("", "r")


@pytest.mark.takes_root("another user's rights")
def test_the_mask_of_a_manifest_is_not_taken_for_its_groups_rights(closed: pathlib.Path) -> None:
    folder = closed / ".devcontainer"
    group = pwd.getpwnam(OTHER).pw_gid
    acl("-m", "u:1234:r,g::-", folder / "remo-broker.toml")
    os.chown(folder, 0, group)
    folder.chmod(0o2755)  # new files are of its group
    reader_access.grant(str(closed))
    (folder / "new").write_text("made since")
    assert (folder / "new").stat().st_gid == group
    assert (rights(OTHER, folder / "new"), rights(READER, folder / "new")) == ("", "r")
