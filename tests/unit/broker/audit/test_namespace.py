"""The journal namespace of the broker's unit, by the mounts that it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.audit.journal import journal_namespace
from remo_broker.protocol import mounts

if TYPE_CHECKING:
    import pathlib

DEFAULT = "40 22 0:25 /systemd/journal /run/systemd/journal rw shared:5 - tmpfs tmpfs rw\n"
OWN = "41 40 0:25 /systemd/journal.audit /run/systemd/journal rw - tmpfs tmpfs rw\n"
# Any user can mount a FUSE in a directory of any name, with any text as its source.
FORGED = "42 22 0:40 / /home/user/a\rb\rc rw - fuse.forged /run/systemd/journal rw\n"


@pytest.mark.parametrize(
    ("table", "namespace"),
    [(DEFAULT, None), (DEFAULT + OWN, "audit"), (DEFAULT + OWN + FORGED, "audit"), (DEFAULT + FORGED, None)],
)
def test_no_name_of_a_mount_is_taken_for_the_journal_s(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, table: str, namespace: str | None
) -> None:
    (tmp_path / "mountinfo").write_text(table, newline="")
    monkeypatch.setattr(mounts, "PATH", str(tmp_path / "mountinfo"))
    assert journal_namespace() == namespace
