"""The report: one self-contained page, whatever the journal holds."""

from __future__ import annotations

import html.parser
import pathlib
import re
import shutil
import subprocess

import pytest

from remo_broker.cli.terminal import Output
from remo_broker.ctl.audit_reader import Record
from remo_broker.ctl.audit_report import Report, pair, write_report
from tests.process.ctl.test_audit import USEC, Entry, fetch
from tests.support.machine import unavailable

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'--><svg onload=alert(1)>",
    "a&amp;b",
    "</style>",
]
DAY = 86_400 * 1_000_000
BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def records() -> list[Record]:
    found = [
        fetch("TOKEN", usec=USEC + hour * 3_600_000_000, peer_comm="npm", peer_container="web") for hour in range(72)
    ]
    found += [
        fetch(
            f"T{number}",
            "deny",
            "denied",
            USEC + number,
            reason="not_in_manifest",
            peer_comm="postinstall",
            peer_container="web",
        )
        for number in range(2000)
    ]
    found.append(fetch("TOKEN", usec=USEC + 2 * DAY, peer_comm="curl", peer_unit="attacker.service"))
    found.append(Record(Entry(USEC, event="fetch.rate_limited", project="q", count="40")))
    return found


def hostile() -> list[Record]:
    return [
        fetch(odd, decision, outcome, project=odd, reason=odd, peer_comm=odd, peer_container=odd, peer_unit=odd)
        for odd in HOSTILE
        for decision, outcome in (("allow", "ok"), ("deny", "denied"))
    ]


def test_strings_of_the_journal_add_no_element_or_attribute() -> None:
    plain, odd = Page(Report(records()).html()), Page(Report(hostile()).html())
    assert set(odd.tags) <= set(plain.tags) | {"p"}
    assert not {"script", "img", "iframe", "object", "link", "form"} & set(odd.tags)
    assert not [name for name, _ in odd.attributes if name.startswith("on")]
    said = "".join(odd.text)
    for one in HOSTILE:
        assert one in said


def test_the_page_makes_no_request() -> None:
    page = Page(Report(records()).html())
    for name, value in page.attributes:
        if name in ("href", "src", "action", "data"):
            assert (value or "").startswith("#")
    text = Report(records()).html()
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_everything_is_accessible_by_keyboard_and_screen_reader() -> None:
    page = Page(Report(records()).html())
    attributes = dict(page.attributes)
    assert attributes["lang"] == "en"
    assert page.tags.count("h1") == 1
    # A table has the content of the drawing; scrollable areas can be focused and have names.
    assert ("aria-hidden", "true") in page.attributes
    assert page.tags.count("svg") == 1
    regions = [value for name, value in page.attributes if name == "role"]
    assert regions.count("region") == sum(1 for name, _ in page.attributes if name == "tabindex")
    identifiers = {value for name, value in page.attributes if name == "id"}
    assert {(value or "")[1:] for name, value in page.attributes if name == "href"} <= identifiers
    assert {value for name, value in page.attributes if name == "aria-labelledby"} <= identifiers


def test_counts_denials_and_first_fetches_are_shown() -> None:
    report = Report(records())
    assert (report.total.allowed, report.total.denied) == (73, 2040)
    assert report.new == {("p", "curl in attacker", "TOKEN")}
    said = " ".join(Page(report.html()).text)
    for fact in ("2,000 names: T0 … T1999", "postinstall in container web", "curl in attacker", "new", "2026-05-31"):
        assert fact in said


def test_each_denial_counts_under_its_own_reason() -> None:
    reasons = ("not_in_manifest", "rate_limited")
    report = Report([fetch("T", "deny", "denied", reason=reason) for reason in (*reasons, reasons[0])])
    assert {reason: one.count for (_, _, reason), one in report.denials.items()} == dict(
        zip(reasons, (2, 1), strict=True)
    )


def test_denials_come_first() -> None:
    page = Page(Report(records()).html())
    headings = [value for name, value in page.attributes if name == "aria-labelledby"]
    assert headings[0] == "denials"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_labels_at_the_ends_of_the_time_axis_are_not_cut(count: int) -> None:
    """Even with a single bar."""
    page = Report([fetch("TOKEN", usec=USEC + number * 900_000_000) for number in range(count)]).html()
    labels = re.findall(r'<text x="(\d+)" y="\d+" text-anchor="(\w+)">', page)
    assert ("0", "start") in labels
    assert ("900", "end") in labels
    assert not [one for one in labels if one in (("0", "middle"), ("0", "end"))]


def test_a_fetch_seen_before_the_span_is_not_new() -> None:
    known = {one for one in map(pair, records()) if one is not None}
    assert Report(records(), known).new == set()
    assert Report(records(), set()).new == known


def test_a_page_without_entries() -> None:
    assert "Nothing was recorded" in Report([]).html()


def test_the_file_is_complete_and_only_for_its_owner(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output(json_mode="off", legend=True, pager=False)
    path = tmp_path / "report.html"
    write_report(output, Report(records()), str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [path]
    capsys.readouterr()
    write_report(output, Report(records()), "-")
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")
    with pytest.raises(FileNotFoundError):
        write_report(output, Report([]), str(tmp_path / "no" / "where.html"))


@pytest.mark.parametrize("made", [records, hostile])
def test_a_browser_shows_it(tmp_path: pathlib.Path, made: object) -> None:
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        unavailable("no Chromium is installed: ./run test installs it")
    assert callable(made)
    path = tmp_path / "report.html"
    path.write_text(Report(made()).html())
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [browser, *flags, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0
    shown = Page(done.stdout)
    assert shown.tags.count("h2") == 5
    assert "img" not in shown.tags
    assert "CONSOLE" not in done.stderr  # no violation of its own policy
