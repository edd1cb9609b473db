"""`check --credentials` and `explain --unit`: what a unit would load, and why it would not
start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import CommandLine

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker

VALUE = "zqMarkerqz"
RULES = """
[credentials."backup@*.service"]
password = "PASSWORD"
user = "aws.user"

[credentials."backup@a.service"]
password = "OTHER"
gone = "GONE"
"""
UNIT = "backup@a.service"


@pytest.fixture
def operator(start_broker: StartBroker, directory: pathlib.Path) -> CommandLine:
    config = directory / "config.toml"
    config.write_text(RULES)
    return CommandLine(start_broker(flags=("--config", str(config))))


def found(operator: CommandLine, status: int = 1) -> dict[str, tuple[str, str, str, str]]:
    shown = operator.json("check", "--credentials", UNIT, status=status)
    assert (shown["unit"], shown["rules"], shown["served"]) == (UNIT, 4, not status)
    return {
        one["credential"]: (one["secret"], one["pattern"], one["outcome"], one["reason"])
        for one in shown["credentials"]
    }


def test_check_tells_for_each_credential_whether_the_unit_would_get_it(operator: CommandLine) -> None:
    any_backup = "backup@*.service"
    assert {one[3] for one in found(operator).values()} == {"no_snapshot"}
    operator.broker.push({"PASSWORD": VALUE, "aws": {"key": VALUE}})
    assert found(operator) == {
        "password": ("PASSWORD", any_backup, "ok", "in_configuration"),
        "user": ("aws.user", any_backup, "not_found", "no_such_field"),
        "gone": ("GONE", UNIT, "not_found", "not_in_snapshot"),
    }
    text = operator.says("check", "--credentials", UNIT, status=1)
    assert VALUE not in text
    assert [line.split()[0::3] for line in text.splitlines()[1:4]] == [
        ["password", "yes"],
        ["user", "no_such_field"],
        ["gone", "not_in_snapshot"],
    ]
    operator.broker.push({"PASSWORD": VALUE, "aws": {"user": VALUE}, "GONE": VALUE})
    assert {one[2] for one in found(operator, status=0).values()} == {"ok"}
    status = operator.broker.status()
    assert (status["credentials_served"], status["credentials_refused"]) == (0, 0)
    assert not operator.broker.records("fetch"), "nothing is fetched, nothing audited"


def test_check_of_a_unit_that_no_rule_names(operator: CommandLine) -> None:
    text = operator.says("check", "--credentials", "other.service", status=1)
    assert "other.service" in text
    assert "systemctl try-reload-or-restart remo-broker.service" in text


@pytest.mark.parametrize(("length", "served"), [(83, True), (84, False), (263, False)])
def test_names_that_are_too_long_for_systemd(operator: CommandLine, length: int, *, served: bool) -> None:
    """systemd puts both into the address that it connects from."""
    operator.broker.push({"PASSWORD": VALUE, "aws": {"user": VALUE}})
    unit = f"backup@{'x' * (length - len('backup@.service') - len('password'))}.service"
    shown = operator.json("check", "--credentials", unit, status=int(not served))
    reasons = {one["credential"]: one["reason"] for one in shown["credentials"]}
    assert reasons["password"] == ("in_configuration" if served else "names_too_long")
    assert operator.json("explain", "--unit", unit, "password", status=int(not served))["served"] is served
    if not served:
        assert "shorten" in operator.says("explain", "--unit", unit, "password", status=1)


@pytest.mark.parametrize(
    ("credential", "reason", "step"),
    [
        ("password", "in_configuration", None),
        ("user", "no_such_field", "bundle"),
        ("gone", "not_in_snapshot", "sidecar"),
        ("none", "not_in_configuration", "config.toml"),
    ],
)
def test_explain_says_why_and_what_to_do(operator: CommandLine, credential: str, reason: str, step: str | None) -> None:
    operator.broker.push({"PASSWORD": VALUE, "aws": {"key": VALUE}})
    asked = ("explain", "--unit", UNIT, credential)
    text = operator.says(*asked, status=1 if step else 0)
    shown = operator.json(*asked, status=1 if step else 0)
    assert VALUE not in text
    assert f"({reason})" in text
    assert (shown["unit"], shown["credential"], shown["reason"]) == (UNIT, credential, reason)
    assert shown["served"] is (step is None)
    assert (step is None) == ("Next step" not in text)
    assert step is None or step in shown["advice"]
