"""What `audit --verify` finds: gaps and duplicate serials."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.cli.terminal import Output
from remo_broker.ctl.audit_last_start import last_start
from remo_broker.ctl.audit_reader import Record
from remo_broker.ctl.audit_verify import verify
from remo_broker.ctl.journals import unit_namespace
from remo_broker.protocol import paths
from remo_broker.protocol.audit_records import JOURNAL, place
from tests.process.ctl.test_audit import USEC, Entry, fetch

if TYPE_CHECKING:
    import pathlib

SECOND = 1_000_000


def numbered(serials: list[int], start: str = "a" * 32, **fields: str) -> list[Record]:
    return [
        fetch(f"S{serial}", usec=USEC + serial * SECOND, start_id=start, serial=str(serial), **fields)
        for serial in serials
    ]


def verified(
    records: list[Record],
    capsys: pytest.CaptureFixture[str],
    *,
    from_first: bool = True,
    whole: bool = True,
    running: tuple[str, int] | None = None,
    bounded: bool = False,
    last: str | None = None,
    last_waiting: int = 0,
) -> tuple[int, dict[str, Any]]:
    output = Output(json_mode="short", legend=True, pager=False)
    named = None if last is None else (last, last_waiting)
    status = verify(output, records, from_first=from_first, whole=whole, running=running, bounded=bounded, last=named)
    return status, json.loads(capsys.readouterr().out)


def gaps(found: dict[str, Any]) -> list[tuple[int, int]]:
    return [(gap["first"], gap["last"]) for start in found["starts"] for gap in start["gaps"]]


def test_complete_starts_have_no_gap(capsys: pytest.CaptureFixture[str]) -> None:
    records = numbered([1, 2, 3]) + numbered([1, 2], start="b" * 32)
    status, found = verified(records, capsys)
    assert (status, found["missing"], found["records"], len(found["starts"])) == (0, 0, 5, 2)


def test_records_out_of_order_are_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Records that waited for journald come late."""
    assert verified(numbered([1, 5, 6, 2, 3, 4]), capsys)[0] == 0


def test_a_gap_is_shown_with_the_times_around_it(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = verified(numbered([1, 2, 6, 8]), capsys)
    assert (status, found["missing"], gaps(found)) == (1, 4, [(3, 5), (7, 7)])
    assert found["starts"][0]["gaps"][0] == {
        "first": 3,
        "last": 5,
        "after": "2026-05-31T10:00:02.000000Z",
        "before": "2026-05-31T10:00:06.000000Z",
    }


def test_records_displaced_at_the_beginning_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert gaps(verified(numbered([4, 5]), capsys)[1]) == [(1, 3)]
    assert verified(numbered([4, 5]), capsys, from_first=False)[0] == 0


@pytest.mark.parametrize(
    ("seen", "waiting", "missing"),
    [([1, 2], 0, []), ([1, 2], 2, [(3, 3)]), ([1, 2], 5, [(3, 5)]), ([1, 2, 9], 4, [(3, 8), (10, 10)])],
)
def test_records_that_waited_when_a_start_ended_are_missing(
    capsys: pytest.CaptureFixture[str], seen: list[int], waiting: int, missing: list[tuple[int, int]]
) -> None:
    """At least one of them is: no later record is left to show a gap."""
    records = numbered(seen)
    assert gaps(verified(records, capsys, last=A, last_waiting=waiting)[1]) == missing
    # The same if the next start has said so.
    said = {"previous_start_id": A} | ({"previous_serial": str(waiting)} if waiting else {})
    after = fetch("S", usec=USEC + 99 * SECOND, event="broker.started", start_id=B, serial="1", **said)
    status, found = verified([*records, after], capsys, running=(B, 1), last=B, last_waiting=1)
    assert (gaps(found), status) == (missing, bool(missing))
    # Later records were not requested.
    within = [gap for gap in missing if gap[1] < seen[-1]]
    assert gaps(verified(records, capsys, last=A, last_waiting=waiting, bounded=True)[1]) == within


A, B, C, D = "a" * 32, "b" * 32, "c" * 32, "d" * 32


def started(start: str, previous: str | None, usec: int) -> Record:
    named = {} if previous is None else {"previous_start_id": previous}
    return fetch("S", usec=usec, event="broker.started", start_id=start, serial="1", **named)


@pytest.mark.parametrize(
    ("records", "whole", "last", "lost"),
    [
        ([started(A, None, 1), started(B, A, 2), started(C, B, 3)], True, C, []),
        ([started(B, A, 2), started(C, B, 3)], True, C, [A]),
        ([started(A, None, 1), started(C, B, 3)], True, C, [B]),
        ([started(A, None, 1), started(B, A, 2)], True, C, [C]),
        ([], True, C, [C]),
        ([], True, None, []),
        # What a search from some time on may leave out.
        ([started(B, A, 2), started(C, B, 3)], False, C, []),
        ([started(A, None, 1), started(C, B, 3)], False, C, [B]),
        ([*numbered([1], start=D, reason="not_started"), started(B, A, USEC + 9 * SECOND)], False, None, []),
        ([*numbered([2], start=D), started(B, A, USEC + 9 * SECOND)], False, None, [A]),
    ],
)
def test_a_start_of_which_every_record_is_gone_is_missed(
    capsys: pytest.CaptureFixture[str], records: list[Record], whole: bool, last: str | None, lost: list[str]
) -> None:
    status, found = verified(records, capsys, whole=whole, last=last)
    assert [one["start_id"] for one in found["missing_starts"]] == lost
    assert status == bool(lost)


def test_a_last_start_is_read_only_from_a_file_of_its_own(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's user may put anything there, and root reads it."""
    monkeypatch.setattr(paths, "STATE_DIR", str(tmp_path))
    file = tmp_path / paths.LAST_START_FILE
    assert last_start() is None
    where = place(JOURNAL, unit_namespace())
    file.write_text(f"{A} {where}\n")
    assert last_start() == (A, 0)
    file.write_text(f"{A} {where}\n17\n")
    assert last_start() == (A, 17)
    file.write_text(f"{A} {where}\n{'1' * 30}\n")
    assert last_start() == (A, 0)
    for other in (f"{A} {where}x\n", f"{A}\n", f"{A[1:]} {where}\n", "\xff", ""):
        file.write_text(other, "latin-1")
        assert last_start() is None
    file.unlink()
    (tmp_path / "elsewhere").write_text(f"{A} {where}\n")
    file.symlink_to(tmp_path / "elsewhere")
    assert last_start() is None
    file.unlink()
    os.mkfifo(file)
    assert last_start() is None


def test_the_running_broker_reveals_records_missing_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    running = ("a" * 32, 9)
    assert gaps(verified(numbered([1, 2]), capsys, running=running)[1]) == [(3, 9)]
    assert gaps(verified(numbered([1, 2]), capsys, running=("a" * 32, 3))[1]) == [(3, 3)]
    assert verified(numbered([1, 2]), capsys, running=("a" * 32, 2))[0] == 0
    assert verified(numbered([1, 2]), capsys, running=running, bounded=True)[0] == 0
    # All of its records are missing.
    assert gaps(verified(numbered([1], start="b" * 32), capsys, running=running)[1]) == [(1, 9)]


def test_a_record_that_journald_wrote_twice_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = verified(numbered([1, 2, 2, 3]), capsys)
    assert (status, found["starts"][0]["written_twice"], found["starts"][0]["conflicting_serials"]) == (0, 1, [])


def test_a_serial_with_two_contents_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = verified(numbered([1, 2, 3]) + numbered([2], decision="deny"), capsys)
    assert (status, found["starts"][0]["conflicting_serials"]) == (1, [2])


def test_records_without_serials_are_counted_separately(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = verified([fetch("A"), *numbered([1])], capsys)
    assert (status, found["unnumbered"], found["missing"]) == (0, 1, 0)


@pytest.mark.parametrize("may_run", [False, True])
def test_a_start_that_may_still_run_is_not_said_to_have_crashed(
    capsys: pytest.CaptureFixture[str], may_run: bool
) -> None:
    """Of a broker that does not tell this user, or of another host."""
    later = [fetch("S", usec=USEC + 60 * SECOND, start_id=B, serial="1")]
    output = Output(json_mode="off", legend=True, pager=False)
    records = [*numbered([1]), *later]
    verify(output, records, from_first=True, whole=True, running=None, bounded=False, may_run=may_run)
    said = capsys.readouterr().out.splitlines()
    assert "did not end cleanly" in said[0]
    assert ("may be running" in said[1], "did not end cleanly" in said[1]) == (may_run, not may_run)


def test_table_and_json_agree(capsys: pytest.CaptureFixture[str]) -> None:
    end = Record(Entry(USEC, event="broker.stopped", start_id="a" * 32, serial="9"))
    recovered = Record(Entry(USEC, event="audit.recovered", start_id="a" * 32, serial="8", dropped="5"))
    records = [*numbered([1, 2]), recovered, end]
    output = Output(json_mode="off", legend=True, pager=False)
    assert verify(output, records, from_first=True, whole=True, running=None, bounded=False) == 1
    said = capsys.readouterr().out
    for fact in ("aaaaaaaaaaaa", "serials 3 to 7", "ended cleanly", "counted at most 5", "5 missing"):
        assert fact in said
