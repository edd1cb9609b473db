"""The decisions, without sockets, at times that the test sets."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remo_broker.broker.audit.journal import fields_of
from remo_broker.broker.decisions import Decisions, info_fits
from remo_broker.broker.projects import KNOWN_LINES, LONGEST_KNOWN_LINE, Grant, Project
from remo_broker.broker.secrets.memory import Arena, RegionHolder
from remo_broker.broker.secrets.store import Store
from remo_broker.broker.secrets.strict_json import finish, scan
from remo_broker.protocol.config import Config
from tests.support.broker import registration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remo_broker.broker.decisions import Answer, Reply

NOW = 1000.0


class Desk:
    """A broker with one project, asked without sockets."""

    def __init__(self, **config: Any) -> None:
        self.arena = Arena()
        self.broker = Decisions(Config(config), Store(self.arena, 900))
        self.project = self.broker.projects.register(
            registration("myrepo", "GITHUB_TOKEN", "aws", "KEYSTORE", "MISSING", max_entries=2)
        )

    def push(self, secrets: dict[str, Any] | None = None, **binary: str) -> None:
        line = json.dumps({"secrets": secrets or {}, "secrets_b64": binary}).encode()
        holder = RegionHolder(self.arena)
        region = holder.fill()
        region.view[: len(line)] = line
        region.used = len(line)
        fields = finish(scan(region.view, 0, len(line)))[3]
        finish(self.broker.store.load(holder, fields["secrets"], fields["secrets_b64"], 0))
        self.broker.projects.end_leases()

    def clear(self) -> None:
        self.broker.store.clear()
        self.broker.projects.end_leases()

    def prepare(self, step: str) -> None:
        if step == "push":
            self.push(SECRETS)
        elif step == "clear":
            self.clear()

    def get(self, name: str, now: float = NOW, project: Project | None = None) -> tuple[dict[str, Any], dict[str, str]]:
        """The reply and the fields of the record of one get."""
        reply, head = self.broker.get(project or self.project, name, now)
        assert head is not None
        return decoded(reply), fields_of(head)

    def close(self) -> None:
        self.broker.store.clear()
        self.arena.SPARES = 0
        self.arena.give_back(self.arena.take())


def line_of(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else b"".join(reply)


def decoded(reply: Reply) -> dict[str, Any]:
    line = line_of(reply)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    fields = json.loads(line)
    assert isinstance(fields, dict)
    assert line == json.dumps(fields, separators=(",", ":")).encode() + b"\n"
    return fields


@pytest.fixture
def desk() -> Iterator[Desk]:
    with contextlib.closing(Desk()) as desk:
        yield desk


SECRETS = {"GITHUB_TOKEN": "ghp_x", "aws": {"k": "v"}, "HIDDEN": "h"}


def test_string_bundle_and_binary(desk: Desk) -> None:
    desk.push(SECRETS, KEYSTORE="3q2+7w==")
    assert list(desk.get("GITHUB_TOKEN")[0].items()) == [
        ("ok", True),
        ("value", "ghp_x"),
        ("ttl_seconds", 900),
        ("generation", 1),
    ]
    assert desk.get("aws")[0]["value"] == '{"k":"v"}'
    assert list(desk.get("KEYSTORE")[0]) == ["ok", "value_b64", "ttl_seconds", "generation"]


def test_a_value_is_sent_from_secret_memory(desk: Desk) -> None:
    desk.push(SECRETS)
    reply, _ = desk.broker.get(desk.project, "GITHUB_TOKEN", NOW)
    assert isinstance(reply, list)
    head, value, tail = reply
    assert isinstance(value, memoryview)
    assert value.obj is desk.broker.store.snapshot.regions[0].map  # type: ignore[union-attr]
    assert b"ghp_x" not in bytes(head) + bytes(tail)
    value.release()


@pytest.mark.parametrize("name", ["HIDDEN", "NOWHERE", "github_token"])
def test_a_name_outside_the_manifest_gets_the_same_denial_whatever_the_store_holds(desk: Desk, name: str) -> None:
    """The reply has the same bytes even if the store is empty."""
    answers: list[Answer] = []
    answers.append(desk.broker.get(desk.project, name, NOW))
    desk.push({})
    answers.append(desk.broker.get(desk.project, name, NOW))
    desk.push(SECRETS)
    answers.append(desk.broker.get(desk.project, name, NOW))
    desk.clear()
    answers.append(desk.broker.get(desk.project, name, NOW))
    assert len({line_of(reply) for reply, _ in answers}) == 1
    reply, head = answers[0]
    fields = decoded(reply)
    assert (fields["code"], fields["reason"]) == ("denied", "not_in_manifest")
    assert head is not None
    assert fields_of(head)["REMO_REASON"] == "not_in_manifest"
    assert desk.project.fetches_denied == 4


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=200))
def test_a_denied_get_never_reaches_the_store(name: str) -> None:
    with contextlib.closing(Desk()) as desk:
        del desk.broker.store.snapshot  # any access to it would now fail
        if name not in desk.project.grants:
            fields, record = desk.get(name)
            assert fields["code"] == record["REMO_OUTCOME"] == "denied"
        desk.broker.store.snapshot = None


@pytest.mark.parametrize("name", ["", "a b", "A" * 129, "é", "A\n", "../GITHUB_TOKEN", "GITHUB_TOKEN\0"])
def test_an_invalid_secret_name_is_refused(desk: Desk, name: str) -> None:
    fields, record = desk.get(name)
    assert (fields["code"], fields["reason"]) == ("denied", "invalid_name")
    assert (record["REMO_OUTCOME"], record["REMO_REASON"]) == ("denied", "invalid_name")
    assert not name or name not in fields["message"]


def test_reasons_before_a_push_and_for_a_name_outside_it(desk: Desk) -> None:
    for prepare in ("nothing", "clear"):
        desk.prepare(prepare)
        fields, record = desk.get("MISSING")
        assert (fields["code"], fields["reason"], fields["retry_after_seconds"]) == ("not_found", "no_snapshot", 1)
        assert (record["REMO_DECISION"], record["REMO_OUTCOME"]) == ("allow", "not_found")
        desk.push(SECRETS)
        fields, record = desk.get("MISSING")
        assert (fields["code"], fields["reason"]) == ("not_found", "not_in_snapshot")
        assert "retry_after_seconds" not in fields
        assert record["REMO_REASON"] == "not_in_snapshot"
    assert desk.project.leases.until == {}


def test_a_push_without_a_name_removes_it(desk: Desk) -> None:
    desk.push(SECRETS)
    assert desk.get("GITHUB_TOKEN")[0]["ok"]
    desk.push({"aws": {}})
    assert desk.get("GITHUB_TOKEN")[0]["reason"] == "not_in_snapshot"
    assert desk.get("aws")[0]["generation"] == 2
    desk.clear()
    assert desk.get("aws")[0]["reason"] == "no_snapshot"


# --- leases


def served(desk: Desk, name: str, now: float) -> tuple[int, str]:
    fields, record = desk.get(name, now)
    return fields["ttl_seconds"], record["REMO_BACKEND"]


def test_a_lease_from_start_to_end(desk: Desk) -> None:
    desk.push(SECRETS)
    assert served(desk, "GITHUB_TOKEN", NOW) == (900, "store")
    assert served(desk, "GITHUB_TOKEN", NOW) == (900, "cache")
    assert served(desk, "GITHUB_TOKEN", NOW + 0.5) == (899, "cache")
    assert served(desk, "GITHUB_TOKEN", NOW + 899.5) == (0, "cache")
    assert served(desk, "GITHUB_TOKEN", NOW + 900) == (900, "store")
    assert served(desk, "GITHUB_TOKEN", NOW + 901) == (899, "cache")


@settings(deadline=None, max_examples=200)
@given(st.floats(0.001, 1e6))
def test_the_first_get_reports_the_whole_lease(now: float) -> None:
    with contextlib.closing(Desk()) as desk:
        desk.push(SECRETS)
        assert served(desk, "GITHUB_TOKEN", now) == (900, "store")


def test_a_push_and_a_clear_end_leases(desk: Desk) -> None:
    desk.push(SECRETS)
    served(desk, "GITHUB_TOKEN", NOW)
    desk.push(SECRETS)
    assert desk.project.leases.until == {}
    assert served(desk, "GITHUB_TOKEN", NOW + 5) == (900, "store")
    desk.clear()
    assert desk.project.leases.until == {}


def test_a_reload_keeps_leases_up_to_the_new_limit(desk: Desk) -> None:
    desk.push(SECRETS, KEYSTORE="")
    served(desk, "GITHUB_TOKEN", NOW)
    served(desk, "aws", NOW)
    desk.project.reload(registration("myrepo", "aws", "KEYSTORE", "GITHUB_TOKEN", max_entries=2, ttl_seconds=60))
    assert served(desk, "aws", NOW + 1) == (899, "cache")
    assert served(desk, "KEYSTORE", NOW + 1) == (60, "store")
    assert served(desk, "GITHUB_TOKEN", NOW + 1) == (60, "store")  # it was the oldest, and was dropped
    assert desk.project.leases.live(NOW + 1) == 2
    assert desk.project.leases.live(NOW + 100) == 0


def test_each_project_has_leases_of_its_own(desk: Desk) -> None:
    other = desk.broker.projects.register(registration("other", "aws", ttl_seconds=60))
    desk.push(SECRETS)
    served(desk, "aws", NOW)
    fields, record = desk.get("aws", NOW, other)
    assert (fields["ttl_seconds"], record["REMO_BACKEND"], record["REMO_PROJECT"]) == (60, "store", "other")
    assert desk.get("GITHUB_TOKEN", NOW, other)[0]["code"] == "denied"


def test_a_get_denied_because_it_cannot_be_recorded_starts_no_lease(desk: Desk) -> None:
    desk.push(SECRETS)
    grant = desk.project.grants["aws"]
    _, head = desk.broker.fetch(grant, NOW)
    assert head is not None
    record = fields_of(desk.broker.not_audited(grant, head))
    assert (record["REMO_DECISION"], record["REMO_REASON"]) == ("deny", "audit_unavailable")
    assert desk.project.leases.until == {}
    assert (desk.project.fetches_allowed, desk.project.fetches_denied) == (0, 1)
    served(desk, "aws", NOW)
    _, head = desk.broker.fetch(grant, NOW)
    assert head is not None
    desk.broker.not_audited(grant, head)
    assert list(desk.project.leases.until) == ["aws"]  # that one began with a get that was audited


# --- the other ops


def test_a_project_that_has_ended_gets_nothing_that_was_pushed_since(desk: Desk) -> None:
    """Nor anything else then, as it is not known which of the values are new."""
    desk.push({"GITHUB_TOKEN": "former"})
    desk.project.last_generation = desk.broker.store.generation
    reply, record = desk.get("GITHUB_TOKEN")
    assert (reply["value"], record["REMO_REASON"]) == ("former", "in_manifest")
    desk.push({"GITHUB_TOKEN": "since"})
    for name in ("GITHUB_TOKEN", "MISSING"):
        reply, record = desk.get(name)
        assert (reply["code"], reply["reason"]) == ("denied", "not_registered")
        assert (record["REMO_DECISION"], record["REMO_OUTCOME"]) == ("deny", "denied")
        assert (record["REMO_REASON"], record.get("REMO_BACKEND")) == ("not_registered", None)


def test_ping_info_ready(desk: Desk) -> None:
    broker, project = desk.broker, desk.project
    assert decoded(broker.ping(project)) == {
        "ok": True,
        "broker_version": "2.0.0",
        "protocol_version": 2,
        "project": "myrepo",
    }
    names = ["GITHUB_TOKEN", "aws", "KEYSTORE", "MISSING"]
    assert decoded(broker.info(project)) == {"ok": True, "project": "myrepo", "allowlist": names, "schema_version": 1}
    desk.project.reload(registration("myrepo", "B", "A"))
    assert decoded(broker.info(project))["allowlist"] == ["B", "A"]
    assert decoded(broker.ready()) == {"ok": True, "ready": False, "generation": 0}
    desk.push(SECRETS)
    assert decoded(broker.ready()) == {"ok": True, "ready": True, "generation": 1}
    desk.clear()
    assert decoded(broker.ready()) == {"ok": True, "ready": False, "generation": 1}


def test_an_allowlist_that_fits_an_answer(desk: Desk) -> None:
    assert info_fits(registration("p", *(f"{number:0>60}" for number in range(1000))))
    assert not info_fits(registration("p", *(f"{number:0>70}" for number in range(1000))))


def test_explain_agrees_with_get(desk: Desk) -> None:
    names = ["GITHUB_TOKEN", "aws", "MISSING", "HIDDEN", "no name", ""]
    for prepare in ("nothing", "push", "clear"):
        desk.prepare(prepare)
        for name in names:
            explained = desk.broker.explain(desk.project, name, None)
            before = desk.project.fetches_allowed, desk.project.fetches_denied, dict(desk.project.leases.until)
            desk.broker.explain(desk.project, name, None)
            assert before == (desk.project.fetches_allowed, desk.project.fetches_denied, desk.project.leases.until)
            _, record = desk.get(name)
            assert (explained.decision, explained.outcome, explained.reason, str(explained.generation)) == (
                record["REMO_DECISION"],
                record["REMO_OUTCOME"],
                record["REMO_REASON"],
                record["REMO_GENERATION"],
            )
            desk.broker.projects.end_leases()


def test_explain_considers_the_uid(desk: Desk) -> None:
    desk.push(SECRETS)
    closed = desk.broker.projects.register(registration("closed", "aws", allowed_uids=[7]))
    assert desk.broker.explain(closed, "aws", 7).outcome == "ok"
    assert desk.broker.explain(closed, "aws", None).outcome == "ok"
    assert desk.broker.explain(closed, "aws", 8).reason == "uid_not_allowed"
    assert desk.broker.explain(desk.project, "aws", 8).outcome == "ok"


# --- rates and counters


def test_a_refusal_says_when_to_try_again() -> None:
    with contextlib.closing(Desk(rate_limit_per_second=1, rate_limit_burst=1)) as desk:
        assert desk.project.bucket.take(NOW)
        assert not desk.project.bucket.take(NOW)
        assert decoded(desk.broker.rate_limited(desk.project))["retry_after_seconds"] == 1


def test_counters_never_decrease(desk: Desk) -> None:
    desk.push(SECRETS)
    desk.get("aws")
    desk.get("HIDDEN")
    assert (desk.project.fetches_allowed, desk.project.fetches_denied) == (1, 1)
    assert desk.project.last_fetch_usec(NOW + 2, 5_000_000) == 3_000_000
    assert desk.project.last_fetch_usec(NOW + 3, 6_000_007) == 3_000_000  # a time in the past does not change
    assert desk.broker.projects.unregister("myrepo") is desk.project
    assert (desk.broker.projects.fetches_allowed, desk.broker.projects.fetches_denied) == (1, 1)
    fresh = desk.broker.projects.register(registration("myrepo", "aws"))
    assert fresh.last_fetch_usec(NOW, 5_000_000) == 0


# --- lines that are known


def test_the_cache_of_known_lines_is_bounded(desk: Desk) -> None:
    grant: Grant = desk.project.grants["aws"]
    for number in range(3 * KNOWN_LINES):
        desk.project.remember_line(b'{"op":"get","name":"aws","x":%d}\n' % number, grant)
        assert len(desk.project.lines) <= KNOWN_LINES
    desk.project.remember_line(b"x" * (LONGEST_KNOWN_LINE + 1), grant)
    assert all(len(line) <= LONGEST_KNOWN_LINE for line in desk.project.lines)


def test_a_reload_forgets_the_lines(desk: Desk) -> None:
    desk.project.remember_line(b"line\n", desk.project.grants["aws"])
    desk.project.reload(registration("myrepo", "GITHUB_TOKEN"))
    assert desk.project.lines == {}
    assert list(desk.project.grants) == ["GITHUB_TOKEN"]
