"""Links that lead to one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pathlib


def chain(directory: pathlib.Path, length: int) -> None:
    """Make `directory` with links from 0 to `length` - 1, each but the first to the one before."""
    directory.mkdir()
    for number in range(length):
        (directory / str(number)).symlink_to(str(number - 1) if number else "/etc/passwd")
