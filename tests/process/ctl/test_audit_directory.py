"""Journals of several hosts, gathered by systemd-journal-remote, reviewed as one."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.ctl.audit_first_fetches import MOST_KINDS_OF_A_PROJECT
from tests.support import programs
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib

REMOTE = "/lib/systemd/systemd-journal-remote"
USEC = 1780221600 * 1_000_000
SECOND = 1_000_000
START = "a" * 32


class Gathered:
    """A directory of journals, written by systemd's own program."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    def host(self, name: str, *entries: tuple[int, dict[str, str]]) -> None:
        """The journal of a host: entries, each with the time at which it was received."""
        machine = name.encode().hex().ljust(32, "0")[:32]
        text = ""
        for place, (usec, fields) in enumerate(entries, 1):
            every = {
                "__REALTIME_TIMESTAMP": str(usec),
                "__MONOTONIC_TIMESTAMP": str(place * SECOND),
                "_BOOT_ID": machine,
                "_MACHINE_ID": machine,
                "_HOSTNAME": name,
                "_UID": "4321",
                "_SYSTEMD_UNIT": "remo-broker.service",
            }
            text += "".join(f"{key}={value}\n" for key, value in (every | fields).items() if value) + "\n"
        path = self.directory / f"remote-{name}.journal"
        subprocess.run([REMOTE, "-o", path, "-"], input=text, text=True, check=True, capture_output=True)

    def audit(self, *arguments: str) -> list[dict[str, Any]]:
        done = programs.run(programs.BROKERCTL, "audit", f"--directory={self.directory}", "-j", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def table(self, *arguments: str) -> list[str]:
        done = programs.run(programs.BROKERCTL, "audit", f"--directory={self.directory}", *arguments)
        return done.stdout.decode().splitlines()


@pytest.fixture
def gathered(tmp_path: pathlib.Path) -> Gathered:
    if not os.path.exists(REMOTE):
        unavailable("systemd-journal-remote is not installed: ./run test installs it")
    return Gathered(tmp_path)


def fetch(serial: int, secret: str, **fields: str) -> dict[str, str]:
    given = {
        "event": "fetch",
        "project": "p",
        "secret": secret,
        "decision": "allow",
        "outcome": "ok",
        "reason": "in_manifest",
    }
    peer = {"peer_pid": "7", "peer_uid": "0", "peer_gid": "0", "peer_comm": "npm", "peer_unit": "build.service"}
    number = {"start_id": START, "serial": str(serial)}
    found = {
        f"REMO_{name.upper()}": value
        for name, value in (given | peer | number | fields).items()
        if not name.startswith("_")
    }
    return (
        found
        | {"MESSAGE": "m", "PRIORITY": "6"}
        | {name: value for name, value in fields.items() if name.startswith("_")}
    )


def test_hosts_are_reviewed_as_one_in_the_order_of_time(gathered: Gathered) -> None:
    gathered.host("alpha", (USEC, fetch(1, "A")), (USEC + 20 * SECOND, fetch(2, "C")))
    gathered.host("beta", (USEC + 10 * SECOND, fetch(1, "B")))
    assert [(one["host"], one["secret"]) for one in gathered.audit()] == [("alpha", "A"), ("beta", "B"), ("alpha", "C")]
    header, first, *_ = gathered.table()
    assert header.split()[0] == "HOST"
    assert first.split()[0] == "alpha"
    assert [one["secret"] for one in gathered.audit("-n1")] == ["C"]


def test_a_uid_of_another_host_is_shown_without_a_name(gathered: Gathered) -> None:
    gathered.host("alpha", (USEC, fetch(1, "A", peer_comm="", peer_unit="")))
    [found] = gathered.audit()
    assert "peer_user" not in found
    assert "root" not in gathered.table()[1]
    assert gathered.audit("--who=root") == []
    assert gathered.audit("--who=uid 0") != []


@pytest.mark.parametrize(
    "forged",
    [
        {"_SYSTEMD_UNIT": "attacker.service"},
        {"_SYSTEMD_UNIT": "remo-broker.service.attacker"},
        {"_SYSTEMD_UNIT": ""},
        {"_SYSTEMD_UNIT": "", "UNIT": "remo-broker.service", "SYSTEMD_UNIT": "remo-broker.service"},
        {"_MACHINE_ID": ""},
        {"_MACHINE_ID": "this"},
    ],
)
def test_entries_of_other_units_are_left_out(gathered: Gathered, forged: dict[str, str]) -> None:
    gathered.host("alpha", (USEC, fetch(1, "A")), (USEC + 1, fetch(2, "FORGED", **forged)))
    assert [one["secret"] for one in gathered.audit()] == ["A"]


def test_entries_past_the_end_do_not_end_the_search(gathered: Gathered) -> None:
    """The clock was an hour ahead for a while and then set back: within a boot, the journal is not
    ordered by time."""
    ahead = 3600 * SECOND
    entries = [
        (USEC, fetch(1, "FIRST")),
        (USEC + ahead, fetch(2, "AHEAD")),
        (USEC + ahead + SECOND, fetch(3, "AHEAD")),
        (USEC + 2 * SECOND, fetch(4, "BACK")),
        (USEC + 3 * SECOND, fetch(5, "LAST", decision="deny", outcome="denied")),
    ]
    gathered.host("alpha", *entries)
    span = (f"--since=@{USEC // SECOND}", f"--until=@{USEC // SECOND + 10}")
    assert [one["secret"] for one in gathered.audit(*span)] == ["FIRST", "BACK", "LAST"]
    assert [one["secret"] for one in gathered.audit(*span, "--denied")] == ["LAST"]
    assert [one["secret"] for one in gathered.audit(*span, "-n2")] == ["BACK", "LAST"]
    assert [one["secret"] for one in gathered.audit(span[1], "-n3")] == ["FIRST", "BACK", "LAST"]


def test_serials_are_verified_over_all_hosts(gathered: Gathered) -> None:
    gathered.host("alpha", *((USEC + number * SECOND, fetch(number, f"A{number}")) for number in (1, 2, 5)))
    gathered.host("beta", (USEC, fetch(1, "B", start_id="b" * 32)))
    done = programs.run(programs.BROKERCTL, "audit", f"--directory={gathered.directory}", "--verify", "-j")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["missing"], found["records"]) == (2, 4)


def test_the_first_fetch_of_each_kind_is_marked(gathered: Gathered) -> None:
    records = [
        fetch(1, "A"),
        fetch(2, "A"),
        fetch(3, "A", peer_comm="curl"),
        fetch(4, "A", peer_unit="other.service"),
        fetch(5, "A", outcome="not_found"),
    ]
    gathered.host("alpha", *((USEC + place * SECOND, one) for place, one in enumerate(records)))
    assert ["first_seen" in one for one in gathered.audit()] == [True, False, True, True, False]
    # Even if the first ones are not shown.
    assert ["first_seen" in one for one in gathered.audit(f"--since=@{USEC // SECOND + 1}")] == [
        False,
        True,
        True,
        False,
    ]


def test_a_project_whose_programs_have_many_names_keeps_no_other_from_being_marked(gathered: Gathered) -> None:
    loud = [fetch(number, "A", peer_comm=f"n{number}") for number in range(1, 2001)]
    records = [*loud, fetch(2001, "A", project="quiet")]
    gathered.host("alpha", *((USEC + place, one) for place, one in enumerate(records)))
    found = gathered.audit()
    assert found[-1]["first_seen"]
    assert sum("first_seen" in one for one in found[:-1]) == MOST_KINDS_OF_A_PROJECT


def test_the_next_login_of_a_user_is_not_a_first_fetch(gathered: Gathered) -> None:
    records = [
        fetch(place, "A", peer_unit=f"session-{place}.scope", peer_owner_uid=owner)
        for place, owner in enumerate(("1000", "1000", "1001"), 1)
    ]
    gathered.host("alpha", *((USEC + place * SECOND, one) for place, one in enumerate(records)))
    assert ["first_seen" in one for one in gathered.audit()] == [True, False, True]


def test_the_same_program_on_two_hosts_counts_as_two(gathered: Gathered) -> None:
    for place, name in enumerate(("alpha", "beta")):
        gathered.host(name, *((USEC + (2 * number + place) * SECOND, fetch(number, "A")) for number in (1, 2)))
    assert [(one["host"], "first_seen" in one) for one in gathered.audit()] == [
        *(("alpha", True), ("beta", True), ("alpha", False), ("beta", False)),
    ]
    counted = programs.run(programs.BROKERCTL, "audit", f"--directory={gathered.directory}", "--by=who", "--json=short")
    assert [(one["who"], one["allowed"]) for one in json.loads(counted.stdout)] == [
        ("npm in build on alpha", 2),
        ("npm in build on beta", 2),
    ]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--denied",),
        ("-n3",),
        ("-n0",),
        ("--project=q",),
        ("--secret=A",),
        (f"--since=@{USEC // SECOND + 2}",),
        (f"--until=@{USEC // SECOND + 2}",),
        (f"--until=@{USEC // SECOND + 2}", "-n2"),
        ("--who=*curl*",),
    ],
    ids=" ".join,
)
def test_counts_agree_with_the_listed_records(gathered: Gathered, options: tuple[str, ...]) -> None:
    """Counts are read through another library."""
    denied = {"decision": "deny", "outcome": "denied"}
    records = [
        fetch(1, "A"),
        fetch(2, "A", peer_comm="curl"),
        fetch(3, "B", **denied),
        fetch(4, "A", project="q", **denied),
        fetch(5, "", event="fetch.rate_limited", count="3", decision="", outcome=""),
        fetch(6, "A", _SYSTEMD_UNIT="attacker.service"),
        fetch(7, "A", event="secrets.pushed"),
        fetch(8, "\N{SNOWMAN}", event_usec=str(USEC - 5)),
    ]
    gathered.host("alpha", *((USEC + place * SECOND, one) for place, one in enumerate(records)))
    gathered.host("beta", (USEC + 3 * SECOND, fetch(1, "B")), (USEC + 4 * SECOND, fetch(2, "B")))
    listed: dict[str | None, list[str]] = {}
    for one in gathered.audit(*options):
        listed.setdefault(one.get("secret"), []).extend([one["time"]] * one.get("count", 1))
    counted = programs.run(
        programs.BROKERCTL, "audit", f"--directory={gathered.directory}", "--by=secret", "--json=short", *options
    )
    found = json.loads(counted.stdout)
    assert {one["secret"]: (one["allowed"] + one["denied"], one["first"], one["last"]) for one in found} == {
        secret: (len(times), min(times), max(times)) for secret, times in listed.items()
    }


def test_counts_of_the_last_records(gathered: Gathered) -> None:
    """These are read backwards."""
    gathered.host("alpha", *((USEC + number * SECOND, fetch(number, "A")) for number in range(1, 5)))
    gathered.host("beta", (USEC, fetch(1, "B")), (USEC + 9 * SECOND, fetch(2, "B")))
    counted = programs.run(
        programs.BROKERCTL, "audit", f"--directory={gathered.directory}", "--by=secret", "-n3", "--json=short"
    )
    assert {one["secret"]: (one["allowed"], one["first"], one["last"]) for one in json.loads(counted.stdout)} == {
        "A": (2, "2026-05-31T10:00:03.000000Z", "2026-05-31T10:00:04.000000Z"),
        "B": (1, "2026-05-31T10:00:09.000000Z", "2026-05-31T10:00:09.000000Z"),
    }
    done = programs.run(programs.BROKERCTL, "audit", f"--directory={gathered.directory}", "--report=-", "-n3")
    page = done.stdout.decode()
    assert "<dt>Handed out</dt><dd>3</dd>" in page
    assert "10:00:03" in page
    assert "10:00:02" not in page


def test_an_unknown_project_is_an_error(gathered: Gathered) -> None:
    gathered.host("alpha", (USEC, fetch(1, "A")))
    done = programs.run(programs.BROKERCTL, "audit", f"--directory={gathered.directory}", "--project=typo")
    assert done.returncode == 1
    assert b"no project typo" in done.stderr
    assert gathered.audit("--project=p", "--until=2020-01-01") == []
