"""Changes are signalled, except for properties annotated as not emitting; objects come before
references to them."""

from __future__ import annotations

from typing import Any

from remo_broker.bus.signals import differences
from tests.support.bus import MANAGER, PROJECT, ROOT
from tests.support.status import broker_event, project_event
from tests.unit.bus.test_snapshot import snapshot_of

MYREPO = f"{ROOT}/project/myrepo"


def told(*arguments: Any) -> list[tuple[str, str, Any]]:
    """Object, member and content: the property values of PropertiesChanged, the arguments of
    others."""
    shown: list[tuple[str, str, Any]] = []
    for one in differences(*arguments):
        if one.member == "PropertiesChanged":
            interface, changed, invalidated = one.values
            assert invalidated == []
            assert interface == (MANAGER if one.path == ROOT else PROJECT)
            assert isinstance(changed, dict)
            shown.append((one.path, one.member, {name: value.value for name, value in changed.items()}))
        else:
            shown.append((one.path, one.member, one.values))
    return shown


def test_without_a_change_there_is_no_signal() -> None:
    snapshot = snapshot_of(broker_event(), project_event())
    assert told(snapshot, snapshot) == []
    assert told(snapshot, snapshot_of(broker_event(), project_event())) == []


def test_counters_are_not_signalled() -> None:
    old = snapshot_of(broker_event(), project_event())
    counted = project_event(
        cache_entries=2, connections=3, fetches_allowed=99, fetches_denied=9, last_fetch_usec=1_770_000_000_000_000
    )
    assert told(old, snapshot_of(broker_event(fetches_allowed=99, fetches_denied=9, audit_dropped=1), counted)) == []


def test_a_push_is_one_signal_with_all_changes() -> None:
    old = snapshot_of(broker_event())
    new = snapshot_of(broker_event(secret_count=5, generation=8, secrets_loaded_usec=1, fetches_allowed=50))
    assert told(old, new) == [
        (ROOT, "PropertiesChanged", {"SecretCount": 5, "SecretsLoadedTimestamp": 1, "Generation": 8})
    ]


def test_the_audits_health_is_signalled() -> None:
    old, new = snapshot_of(broker_event()), snapshot_of(broker_event(audit_healthy=False))
    assert told(old, new) == [(ROOT, "PropertiesChanged", {"AuditHealthy": False})]


def test_a_registered_project_is_added() -> None:
    signals = told(snapshot_of(broker_event()), snapshot_of(broker_event(), project_event()))
    assert [(path, member) for path, member, _ in signals] == [
        (ROOT, "InterfacesAdded"),
        (ROOT, "ProjectAdded"),
        (ROOT, "PropertiesChanged"),
    ]
    path, interfaces = signals[0][2]
    assert path == MYREPO
    assert list(interfaces) == [PROJECT]
    assert interfaces[PROJECT]["AllowlistSize"].value == 2
    assert signals[1][2] == ("myrepo", MYREPO)
    assert signals[2][2] == {"ProjectCount": 1}


def test_an_unregistered_project_is_removed() -> None:
    assert told(snapshot_of(broker_event(), project_event()), snapshot_of(broker_event())) == [
        (ROOT, "InterfacesRemoved", (MYREPO, [PROJECT])),
        (ROOT, "ProjectRemoved", ("myrepo", MYREPO)),
        (ROOT, "PropertiesChanged", {"ProjectCount": 0}),
    ]


def test_a_project_changes() -> None:
    old = snapshot_of(broker_event(), project_event("a"), project_event())
    new = snapshot_of(broker_event(), project_event("a"), project_event(allowlist_size=7))
    assert told(old, new) == [(MYREPO, "PropertiesChanged", {"AllowlistSize": 7})]


def test_a_project_registered_again_is_a_new_object() -> None:
    snapshot = snapshot_of(broker_event(), project_event())
    members = [member for _, member, _ in told(snapshot, snapshot, {"myrepo"})]
    assert members == ["InterfacesRemoved", "ProjectRemoved", "InterfacesAdded", "ProjectAdded"]


def test_after_an_unknown_state_everything_is_signalled() -> None:
    new = snapshot_of(broker_event(), project_event())
    signals = told(None, new)
    assert [member for _, member, _ in signals] == ["InterfacesAdded", "ProjectAdded", "PropertiesChanged"]
    assert set(signals[2][2]) == {
        "StartTimestamp",
        "SecretCount",
        "SecretsLoadedTimestamp",
        "Generation",
        "ProjectCount",
        "MemoryProtection",
        "AuditHealthy",
    }
