"""A project's directory on a real file system."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remo_broker.manifest.constants import SEARCH

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ["/".join(parts) for parts in SEARCH]
"""The manifest's possible places, in search order."""

GOOD = b'schema_version = 1\nproject = "myrepo"\n[secrets.GITHUB_TOKEN]\n'


class ProjectDirectory:
    """The directory `path` of a project called `myrepo`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, content: bytes | str = GOOD, place: str = PLACES[0]) -> Path:
        """Write a manifest at `place`; return its path."""
        file = self.path / place
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file


@pytest.fixture
def project() -> Iterator[ProjectDirectory]:
    # Not tmp_path: only its owner may enter that, and some tests read as another user.
    base = Path(tempfile.mkdtemp(prefix="manifest-"))
    base.chmod(0o755)
    (base / "myrepo").mkdir()
    yield ProjectDirectory(base / "myrepo")
    shutil.rmtree(base)
