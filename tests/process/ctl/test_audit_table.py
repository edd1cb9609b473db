"""The table of the review: its width, its rows, and long runs of one denial."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.cli.terminal import Output
from remo_broker.ctl import audit_requester, audit_table
from remo_broker.ctl.audit_summary import summarise
from remo_broker.ctl.audit_table import collapsed, show
from tests.process.ctl.test_audit import USEC, fetch

if TYPE_CHECKING:
    from remo_broker.ctl.audit_reader import Record

SECOND = 1_000_000
CONTAINER = "0123456789ab" + "c" * 52


def denial(name: str, usec: int = USEC, **fields: str) -> Record:
    return fetch(name, "deny", "denied", usec, reason="not_in_manifest", **fields)


def scan(count: int, **fields: str) -> list[Record]:
    return [denial(f"T{number}", USEC + number * SECOND // 10, **fields) for number in range(count)]


def lines(records: list[Record], capsys: pytest.CaptureFixture[str], **options: Any) -> list[str]:
    show(Output(json_mode="off", legend=True, pager=False), iter(records), **({"live": False} | options))
    return capsys.readouterr().out.splitlines()


def test_a_scan_is_one_row(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_table, "table_width", lambda: 200)
    who = {"peer_comm": "npm", "peer_container": CONTAINER}
    header, row = lines(scan(1000, **who), capsys)
    assert header.split() == ["TIME", "PROJECT", "SECRET", "OUTCOME", "REASON", "WHO"]
    assert "1,000 x T0 ... T999" in row
    assert "not_in_manifest" in row
    assert row.endswith("npm in 0123456789ab")
    assert " to " in row.split("  ")[0]
    assert len(lines(scan(1000, **who), capsys, full=True)) == 1001
    assert len(lines(scan(9), capsys)) == 10


def test_what_comes_in_between_does_not_split_a_run() -> None:
    records = []
    for one in scan(30):
        records += [one, fetch("A", usec=one.usec + 1)]
    counts = [run.count for run in collapsed(records)]
    assert sorted(counts) == [1] * 30 + [30]
    assert counts[0] == 30  # at the place of the first of them


def test_runs_are_of_one_project_program_and_reason_and_end_with_a_pause() -> None:
    first, second = scan(20, peer_comm="npm"), scan(20, peer_comm="pip")
    other = [denial(f"X{number}", USEC, project="q", peer_comm="npm") for number in range(20)]
    mixed = [one for three in zip(first, second, other, strict=True) for one in three]
    assert [run.count for run in collapsed(mixed)] == [20, 20, 20]
    later = [denial(f"L{number}", USEC + 3600 * SECOND, peer_comm="npm") for number in range(20)]
    assert [run.count for run in collapsed(first + later)] == [20, 20]


def test_a_clock_set_back_loses_no_row() -> None:
    records = scan(30) + [denial(f"B{number}", USEC - 7200 * SECOND + number) for number in range(30)] + scan(5)
    assert sum(run.count for run in collapsed(records)) == len(records)


def test_an_endless_run_holds_back_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_table, "HELD_ROWS", 50)
    records = []
    for number in range(1000):
        records += [denial(f"T{number}"), fetch("A")]
    found = collapsed(iter(records))
    assert next(found).count < 1000
    assert 1 + sum(1 for _ in found) >= 1000


@pytest.mark.parametrize("hosts", [False, True])
def test_rows_fit_a_hundred_columns(capsys: pytest.CaptureFixture[str], *, hosts: bool) -> None:
    long: dict[str, Any] = {
        "project": "a-project-with-a-name-of-some-length",
        "peer_comm": "a-long-program",
        "peer_container": CONTAINER,
        "_HOSTNAME": "build-host-17.example.com",
    }
    records = [*scan(40, **long), fetch("A_SECRET_WITH_A_RATHER_LONG_NAME_99", **long)]
    for live in (False, True):
        found = lines(records, capsys, live=live, hosts=hosts)
        assert max(map(len, found)) <= 100
        assert any("99 " in line for line in found)  # the names differ at their ends
    assert max(map(len, lines(records, capsys, full=True))) > 100


def test_program_and_container_are_not_shortened_in_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    records = scan(1000, peer_comm="postinstall", peer_container=CONTAINER, project="a-project-of-some-length")
    [_, row] = lines(records, capsys)
    assert "postinstall in 0123456789ab" in row
    assert "1,000 x" in row
    assert "T999 " in row
    assert "denied" in row


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines([], capsys) == ["-- No entries --"]


@pytest.mark.parametrize(
    ("fields", "who"),
    [
        ({"peer_comm": "npm", "peer_container": CONTAINER}, "npm in container 0123456789ab"),
        ({"peer_comm": "npm", "peer_container": "web"}, "npm in container web"),
        ({"peer_comm": "git", "peer_unit": "build.service"}, "git in build"),
        (
            {"peer_comm": "npm", "peer_container": CONTAINER, "peer_unit": f"docker-{CONTAINER}.scope"},
            "npm in container 0123456789ab",
        ),
        (
            {"peer_comm": "sh", "peer_container": "web-1", "peer_unit": "machine-web\\x2d1.scope"},
            "sh in container web-1",
        ),
        (
            {"peer_comm": "sh", "peer_container": "web", "peer_unit": "systemd-nspawn@web.service"},
            "sh in container web",
        ),
        # A container name given by a unit or user below its own control group.
        (
            {"peer_comm": "npm", "peer_container": CONTAINER, "peer_unit": "attacker.service"},
            "npm in container 0123456789ab of attacker",
        ),
        (
            {"peer_comm": "npm", "peer_container": CONTAINER, "peer_unit": "user@1000.service"},
            "npm in container 0123456789ab of user@1000",
        ),
        # A user's own container has the name that the user gave it.
        (
            {"peer_comm": "npm", "peer_container": "web", "peer_unit": f"user@{os.geteuid()}.service"},
            f"npm in container web of user@{os.geteuid()}",
        ),
        (
            {"peer_comm": "git", "peer_unit": "user@1000.service", "peer_user_unit": "editor.service"},
            "git in editor of user@1000",
        ),
        (
            {"peer_comm": "git", "peer_unit": "session-3.scope", "peer_owner_uid": "0"},
            "git in session of uid 0 (root)",
        ),
        ({"peer_comm": "git"}, "git, uid 0 (root)"),
        ({"peer_unit": "build.service"}, "build, uid 0 (root)"),
        ({}, "pid 7, uid 0 (root)"),
        ({"peer_gone": "1"}, "pid 7 (ended), uid 0 (root)"),
        ({"peer_comm": ""}, "pid 7, uid 0 (root)"),  # a program may set its name to nothing
        ({"peer_comm": "a\x1b[31m", "peer_container": "b\nc"}, "a\\x1b[31m in container b\\nc"),
    ],
)
def test_how_a_requester_is_shown(fields: dict[str, Any], who: str) -> None:
    assert audit_requester.who(fetch("A", **fields)) == who


def test_requesters_that_differ_share_no_row_and_no_count(capsys: pytest.CaptureFixture[str]) -> None:
    user = {"peer_comm": "sh", "peer_unit": "user@1000.service"}
    for one, other in (
        ({"peer_pid": "7"}, {"peer_pid": "8"}),
        ({"peer_pid": "7", "peer_comm": ""}, {"peer_pid": "8", "peer_comm": ""}),
        ({"peer_user_unit": "a.service"} | user, {"peer_user_unit": "b.service"} | user),
    ):
        records = [*scan(20, **one), *scan(20, **other)]
        assert len([row for row in lines(records, capsys) if "20 x" in row]) == 2
        assert [count.denied for count in summarise(records, "who")] == [20, 20]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        *(("npm", True), ("n?m", True), ("*web*", False), ("container 0123456789ab", True), ("0123456789ab", True)),
        *(
            (CONTAINER, True),
            ("0123456789abcc", True),
            ("0123", False),
            ("root", True),
            ("uid 0", True),
            ("uid 1", False),
        ),
        *(("pid 7", True), ("NPM", False), ("docker-*.scope", True), ("/usr/bin/node", True)),
    ],
)
def test_requesters_are_selected_by_pattern(pattern: str, *, matches: bool) -> None:
    record = fetch(
        "A", peer_comm="npm", peer_container=CONTAINER, peer_unit=f"docker-{CONTAINER}.scope", peer_exe="/usr/bin/node"
    )
    assert audit_requester.matches(record, pattern) is matches


def test_summaries_by_each_key() -> None:
    records = [
        *scan(3, peer_comm="npm", peer_container="web"),
        fetch("A", peer_comm="git", peer_unit="build.service"),
        fetch("A", peer_comm="git", peer_unit="build.service", usec=USEC + 86_400 * SECOND),
        fetch("A", outcome="not_found", peer_comm="npm", peer_container="web"),
    ]
    found = {
        by: [(one.key, one.denied, one.allowed, one.missing) for one in summarise(records, by)]
        for by in ("who", "secret", "project", "day")
    }
    assert found["who"] == [(("npm in container web",), 3, 0, 1), (("git in build",), 0, 2, 0)]
    assert found["project"] == [(("p",), 3, 2, 1)]
    assert found["secret"][-1] == (("A",), 0, 2, 1)
    assert [key for key, *_ in found["day"]] == [("2026-05-31",), ("2026-06-01",)]
    assert [one.most() for one in summarise(records, "project")] == ["npm in container web and 1 more"]
