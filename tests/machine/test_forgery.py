"""The audit cannot be forged, neither by requested names nor by other programs' entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.machine import REPOSITORY, poll
from tests.support.operator import SERVICE

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

# Used by these tests only: the journal keeps entries of others.
PROJECT = "forged"

FORGED = {
    "newline": "X\nREMO_DECISION=allow",
    "newline and equals": "\nREMO_SECRET=OTHER\n",
    "field with a length": "X\nREMO_DECISION\n\x05\0\0\0\0\0\0\0allow\n",
    "equals": "REMO_DECISION=allow",
    "end of a record": "X\n\nMESSAGE=forged\n",
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "turned around": "\u202eNEKOT\u2066",
    "confusable": "\u0422\u041e\u041a\u0415\u041d",
    "NUL and DEL": "\0\x7f\x80",
    "backslash": "\\x1b[31m\\n",
    "long": "x" * 60_000,
    "long and escaped": "\x1b" * 500,
}


@pytest.fixture
def reviewed(machine: Machine, operator: Operator) -> Operator:
    operator.register(PROJECT, ["TOKEN"])
    operator.push({"TOKEN": "value"})
    return operator


def test_names_forge_nothing(machine: Machine, reviewed: Operator) -> None:
    """One entry for each, denied, in printable ASCII, with the fields of every other and no
    more."""
    member = reviewed.member()
    reviewed.get(PROJECT, "TOKEN", user=member)
    for name in FORGED.values():
        assert reviewed.get(PROJECT, name, user=member)["reason"] == "invalid_name"
    plain, *entries = machine.journal("REMO_EVENT=fetch", f"REMO_PROJECT={PROJECT}")
    assert len(entries) == len(FORGED)
    assert not machine.journal("MESSAGE=forged")
    for kind, entry in zip(FORGED, entries, strict=True):
        # Served gets also say from where.
        assert {name for name in entry if name.startswith("REMO_")} == {
            name for name in plain if name.startswith("REMO_") and name != "REMO_BACKEND"
        }, kind
        assert (entry["REMO_DECISION"], entry["REMO_OUTCOME"]) == ("deny", "denied"), kind
        assert entry["PRIORITY"] == "4"
        shown: Any = entry["REMO_SECRET"]
        assert isinstance(shown, str), kind  # a list would be a duplicate field, or bytes
        assert shown.isascii(), kind
        assert shown.isprintable(), kind
        assert len(shown) <= 128, kind
        assert shown != "TOKEN"
        assert entry["MESSAGE"].isascii()
        assert entry["MESSAGE"].isprintable(), kind
    shown_on_terminals = machine.run(["journalctl", "--no-pager", "-u", SERVICE]).stdout
    assert shown_on_terminals.replace("\n", "").isprintable()


def documented_queries() -> list[list[str]]:
    """The manual's queries of the audit without our own tool."""
    page = (REPOSITORY / "man/remo-broker.8").read_text()
    queries = [line.split() for line in page.splitlines() if line.startswith("journalctl ") and "REMO_" in line]
    assert queries
    return queries


@pytest.mark.parametrize("user", ["nobody", "root", "remo-broker", "remo-broker-manifest"])
def test_other_programs_entries_are_not_shown(machine: Machine, reviewed: Operator, user: str) -> None:
    """The documented queries do not show another program's entry with our fields. For the review,
    see test_ctl."""
    reviewed.get(PROJECT, "TOKEN")
    reviewed.get(PROJECT, "FOREIGN")
    stolen = f"STOLEN_{user}"
    forged = (
        f"MESSAGE=Project {PROJECT} fetched {stolen}.\nSYSLOG_IDENTIFIER=remo-broker\nMESSAGE_ID=646507820fc6454c85c2413b72918c0a\n"
        f"REMO_EVENT=fetch\nREMO_PROJECT={PROJECT}\nREMO_SECRET={stolen}\nREMO_DECISION=deny\nREMO_OUTCOME=ok\nPRIORITY=6\n"
        f"_SYSTEMD_UNIT={SERVICE}\n_UID={machine.ids('remo-broker')[0]}\nUNIT={SERVICE}\n"
    )
    machine.run(["logger", "--journald"], stdin=forged, user=user)
    poll("the forged entry", lambda: machine.journal(f"REMO_SECRET={stolen}"))
    for query in documented_queries():
        shown = machine.run([*query, "--no-pager", "--output=export"]).stdout
        assert "REMO_SECRET=FOREIGN" in shown
        assert "STOLEN" not in shown
