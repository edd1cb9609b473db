"""A get by the library makes no more system calls than a client in C, counted by strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import REPOSITORY, unavailable
from tests.support.privileges import require_tracing
from tests.support.system_calls import read_trace

if TYPE_CHECKING:
    import pathlib

    from tests.support.broker import Broker

# Those of `load.c` of the bench, with the check of the listener instead of its time limits.
ONCE = {"socket": 1, "connect": 1, "getsockopt": 1, "sendto": 1, "poll": 1, "recvfrom": 1, "close": 1}
# The replies to `ping` and to the request may arrive separately.
TWICE = ("poll", "recvfrom")

_SCRIPT = """
import os, sys
sys.path.append({root!r})
from remo_broker import client
from remo_broker.client import quick
def get():
    with {opened} as opened:
        opened.get("GITHUB_TOKEN")
get()
os.getppid()
get()
os.getppid()
"""


@pytest.mark.parametrize("opened", ["client.Client({path!r})", "quick.open_project({path!r})"])
def test_system_calls_of_a_get(broker: Broker, tmp_path: pathlib.Path, opened: str) -> None:
    require_tracing()
    if shutil.which("strace") is None:
        unavailable("strace is not installed here: ./run test installs it")
    script = _SCRIPT.format(root=str(REPOSITORY), opened=opened.format(path=str(broker.project())))
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-q", "-o", str(trace), sys.executable, "-ISc", script]
    subprocess.run(argv, check=True, capture_output=True)
    _, _, between = trace.read_text().partition("getppid()")
    made = read_trace(between.partition("\n")[2].rpartition("getppid()")[0].rpartition("\n")[0])
    assert {name: count for name, count in made.items() if name not in TWICE} == {
        name: count for name, count in ONCE.items() if name not in TWICE
    }
    assert all(made[name] <= 2 for name in TWICE)
