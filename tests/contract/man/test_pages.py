"""The manual pages against the code: every option, default, code, reason, field, key and property
is documented."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from remo_broker.broker.audit.waiting import WAITING_RECORDS
from remo_broker.bus.interfaces import MANAGER, PROJECT
from remo_broker.ctl.status import PROTECTION
from remo_broker.manifest.constants import SEARCH
from remo_broker.protocol import audit_records
from remo_broker.protocol.config import KEYS, Number
from tests.contract.man.pages import missing, page
from tests.support.machine import REPOSITORY

PAGES = sorted((REPOSITORY / "man").iterdir())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_clean(path: Path) -> None:
    page(path.name)
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True, check=False)
    assert lint.stdout == ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_names_only_pages_of_ours_that_exist(path: Path) -> None:
    ours = re.findall(r"^\.Xr (remo-\S+) (\d)", path.read_text(), re.MULTILINE)
    assert ours
    assert [f"{name}.{section}" for name, section in ours if not (path.parent / f"{name}.{section}").exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_apropos_finds_a_page_by_the_project(path: Path) -> None:
    """It searches the section NAME alone."""
    name = path.read_text().partition(".Sh NAME\n")[2].partition(".Sh ")[0]
    assert "remo-broker" in name


def test_how_to_get_memory_that_root_cannot_read() -> None:
    """Where the protection is less, the page that `status` names says what to change."""
    text = page("remo-broker.8")
    assert "secretmem.enable=1" in text
    assert "447" in text
    assert "remo-broker(8)" in PROTECTION["mlock"][1]
    assert "kernel" not in PROTECTION["mlock"][1], "a container's filter can be the reason as well"


def test_every_key_of_the_configuration_with_its_default() -> None:
    text = page("remo-broker.toml.5")
    for key, kind in KEYS.items():
        value = str(kind.default) if isinstance(kind, Number) else f'"{kind.default}"'
        assert f"{key} = {value}".replace('"', "") in re.sub('[“”"]', "", text), key
        if isinstance(kind, Number):
            assert f"{kind.low} to {kind.high}" in text, key
    assert missing("remo-broker.8", [f"--{key.replace('_', '-')}" for key in KEYS]) == []


def test_every_event_and_field_of_the_audit() -> None:
    assert missing("remo-broker.8", [event.word for event in audit_records.Event]) == []
    head = audit_records.fetch_head(
        "p",
        "S",
        audit_records.Decision.ALLOW,
        audit_records.Outcome.OK,
        audit_records.IN_MANIFEST,
        1,
        audit_records.Backend.STORE,
    ).decode()
    record = head + (audit_records.peer_fields(1, 2, 3) + audit_records.latency_field(1)).decode()
    assert missing("remo-broker.8", [line.partition("=")[0] for line in record.splitlines()]) == []
    words = [
        str(word) for kind in (audit_records.Decision, audit_records.Outcome, audit_records.Backend) for word in kind
    ]
    assert missing("remo-broker.8", words) == []
    assert missing("remo-broker.8", [audit_records.EVENT_TIME_FIELD, f"{WAITING_RECORDS:,}"]) == []


def test_the_places_of_a_manifest_in_order() -> None:
    text = page("remo-broker-manifest.5")
    places = [text.index("/".join(place)) for place in SEARCH]
    assert places == sorted(places)


def test_every_property_of_the_bus() -> None:
    names = [one.name for interface in (MANAGER, PROJECT) for one in interface.properties]
    assert missing("remo-broker-bus.8", names) == []
