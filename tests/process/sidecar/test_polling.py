"""`run` with more files than inotify can watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.process.sidecar.test_sources import script

if TYPE_CHECKING:
    from tests.process.sidecar.conftest import Supplied

POLLING = """
import sys
from remo_broker.sidecar import inotify, source_watch
source_watch.POLL_SECONDS = 0.3
inotify.MAX_DIRECTORIES = source_watch.MAX_DIRECTORIES = 3
from remo_broker.sidecar.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_more_directories_than_are_watched_are_polled(supplied: Supplied) -> None:
    """This is logged once. Limit and time are reduced here."""
    deep = supplied.directory / "store/a/b/c/d"
    deep.mkdir(parents=True)
    (deep / "A").write_text("1")
    command = script(supplied, f"print('A=' + open({str(deep / 'A')!r}).read())")
    supplied.start("--command", command, "--watch", supplied.directory / "store", program=("-c", POLLING))
    for value in ("1", "2", "3"):
        (deep / "A").write_text(value)
        supplied.serves(value)
    assert supplied.logged().count("more than 3 directories") == 1
