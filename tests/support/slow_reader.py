"""A slow manifest reader, so that a test can act while it runs."""

from __future__ import annotations

import contextlib
import pathlib
import signal
from typing import TYPE_CHECKING

from tests.support.machine import REPOSITORY
from tests.support.processes import children

if TYPE_CHECKING:
    from tests.support.broker import Broker

# Replaces the reader's TOML parser. It is slow for input that contains SLOW, and blocks a signal to
# show that it has begun.
_SLOW_PARSER = """
import importlib.machinery, os, signal, sys, time
spec = importlib.machinery.PathFinder.find_spec("tomllib", [os.path.dirname(os.__file__)])
real = importlib.util.module_from_spec(spec)
sys.modules["tomllib"] = real
spec.loader.exec_module(real)
def loads(text, parse=real.loads):
    if "SLOW" in text:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        time.sleep(0.6)
    return parse(text)
real.loads = loads
"""


def slow_parser(directory: pathlib.Path) -> dict[str, str]:
    """Write the parser to `directory`; return the environment of a broker whose readers use it."""
    place = directory / "slow"
    place.mkdir()
    (place / "tomllib.py").write_text(_SLOW_PARSER)
    return {"PYTHONPATH": f"{place}:{REPOSITORY}"}


def a_reader_is_slow(broker: Broker) -> bool:
    blocked = 1 << (signal.SIGUSR1 - 1)
    for child in children(broker.pid):
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{child}/status").read_text()
            if int(status.partition("SigBlk:")[2].split()[0], 16) & blocked:
                return True
    return False
