"""The review of a long journal: how long a report of a hundred thousand entries takes to make
and to show."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

from tests.bench.check import Check
from tests.bench.figures import Figure
from tests.bench.generator import FetchCommand
from tests.bench.setting import Setting, say

if TYPE_CHECKING:
    from tests.bench.broker import Unit

SECOND = 1e9
ENTRIES, CONNECTIONS = 100_000, 50
ROUNDS = 3
BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")
REPORT = "/run/remo-bench-report.html"


def report(setting: Setting, unit: Unit) -> list[Check]:
    """`remo-brokerctl audit --report`, and the page in headless Chromium beside an empty one."""
    unit.settle()
    setting.generator.throughput(unit.get, ENTRIES, CONNECTIONS)
    time.sleep(1)
    subprocess.run(["journalctl", "--sync"], check=True)
    command = ["remo-brokerctl", "audit", f"--lines={ENTRIES}", f"--report={REPORT}"]
    made = setting.generator.spawn(FetchCommand(tuple(command)), ROUNDS)
    what = f"a report of {ENTRIES:,} entries"
    found = [Check("made", what, "milliseconds", 3 * SECOND, _figure(made.min_ns, made.median_ns), "the whole command")]
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        say("no Chromium is installed: the report is not shown")
        return found
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom")
        show = {
            page: setting.generator.spawn(FetchCommand((browser, *flags, page)), ROUNDS)
            for page in ("about:blank", f"file://{REPORT}")
        }
    empty, page = show.values()
    shown = _figure(page.min_ns - empty.min_ns, page.median_ns - empty.median_ns)
    detail = "beyond what an empty page takes"
    return [*found, Check("shown", f"{what}, in Chromium", "milliseconds", 1 * SECOND, shown, detail)]


def _figure(least: float, median: float) -> Figure:
    return Figure(least, least, median)
