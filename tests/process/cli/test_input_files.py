"""Files that one user reads through another user's link, without root's rights: as the sidecar does."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import NOBODY
from tests.support.machine import REPOSITORY

if TYPE_CHECKING:
    import pathlib

READER, ANOTHER, THIRD = 1, 2, 3

READ = """
import os, sys
from remo_broker.cli.input_fault import InputFault
from remo_broker.cli import input_files
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    print(input_files.read_with_owner(sys.argv[1])[1])
except InputFault as fault:
    print(fault.what)
"""
REFUSED = "not readable by the owner of what leads to it"


@pytest.mark.takes_root("having files of several users")
@pytest.mark.parametrize(
    ("linker", "owner", "mode", "expected"),
    [
        (0, THIRD, 0o640, str(THIRD)),
        (READER, THIRD, 0o640, str(THIRD)),
        (ANOTHER, ANOTHER, 0o640, str(ANOTHER)),
        (ANOTHER, THIRD, 0o644, str(ANOTHER)),
        (ANOTHER, THIRD, 0o640, REFUSED),
        (ANOTHER, 0, 0o640, REFUSED),
        (ANOTHER, READER, 0o600, REFUSED),
        # As in a user namespace, where every other user is nobody.
        (NOBODY, NOBODY, 0o640, REFUSED),
        (NOBODY, NOBODY, 0o644, str(NOBODY)),
    ],
)
def test_a_link_of_another_user(directory: pathlib.Path, linker: int, owner: int, mode: int, expected: str) -> None:
    directory.chmod(0o755)
    file, link = directory / "file", directory / "link"
    file.write_text("secret")
    os.chown(file, owner, READER)
    file.chmod(mode)
    link.symlink_to(file)
    os.lchown(link, linker, linker)
    done = subprocess.run(
        [sys.executable, "-SP", "-c", READ, link, str(READER)],
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
