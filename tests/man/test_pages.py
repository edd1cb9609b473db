"""The manual pages against the code: every option, default, code, reason, field, key and property stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remo_broker import audit, messages
from remo_broker.bus.interfaces import MANAGER, PROJECT
from remo_broker.config import KEYS, Number
from remo_broker.ctl.commands import PROGRAM as CTL
from remo_broker.manifest.rules import SEARCH
from remo_broker.messages import ADMIN_CODES, ADMIN_REQUESTS, EVENTS, PROJECT_CODES, PROJECT_REQUESTS, Reason
from remo_broker.secret.commands import PROGRAM as SECRET
from remo_broker.trail import WAITING_RECORDS
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    from remo_broker.cli.options import Command, Program

# What a page is set with in place of the ASCII one.
DASHES = str.maketrans({"\u2010": "-", "\u2212": "-"})
PAGES = sorted((REPOSITORY / "man").iterdir())


@cache
def page(name: str) -> str:
    """A page as its reader sees it, on one line, without the overstrikes of bold and underline."""
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        unavailable("mandoc is not installed; './run test' installs it")
    path = REPOSITORY / "man" / name
    text = subprocess.run(
        [mandoc, "-T", "utf8", "-O", "width=500", path], capture_output=True, text=True, check=True
    ).stdout
    return re.sub(r"\s+", " ", re.sub(r".\x08", "", text)).translate(DASHES)


def missing(name: str, words: list[str]) -> list[str]:
    """Which of `words` do not stand in a page as words of their own."""
    text = page(name)
    return [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]


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


def test_every_key_of_the_configuration_with_its_default() -> None:
    text = page("remo-broker.toml.5")
    for key, kind in KEYS.items():
        value = str(kind.default) if isinstance(kind, Number) else f'"{kind.default}"'
        assert f"{key} = {value}".replace('"', "") in re.sub('[“”"]', "", text), key
        if isinstance(kind, Number):
            assert f"{kind.low} to {kind.high}" in text, key
    assert missing("remo-broker.8", [f"--{key.replace('_', '-')}" for key in KEYS]) == []


def test_every_event_and_field_of_the_audit() -> None:
    assert missing("remo-broker.8", [event.word for event in audit.Event]) == []
    head = audit.fetch_head(
        "p", "S", audit.Decision.ALLOW, audit.Outcome.OK, audit.IN_MANIFEST, 1, audit.Backend.STORE
    ).decode()
    record = head + (audit.peer_fields(1, 2, 3) + audit.latency_field(1)).decode()
    assert missing("remo-broker.8", [line.partition("=")[0] for line in record.splitlines()]) == []
    words = [str(word) for kind in (audit.Decision, audit.Outcome, audit.Backend) for word in kind]
    assert missing("remo-broker.8", words) == []
    assert missing("remo-broker.8", [audit.EVENT_TIME_FIELD, f"{WAITING_RECORDS:,}"]) == []


def test_every_op_field_code_and_reason_of_the_protocol() -> None:
    name = "remo-broker-protocol.7"
    assert missing(name, [*PROJECT_REQUESTS, *ADMIN_REQUESTS, *EVENTS, "watch"]) == []
    assert missing(name, [str(code) for code in (*PROJECT_CODES, *ADMIN_CODES)]) == []
    assert missing(name, [str(reason) for reason in Reason]) == []
    requests = {**PROJECT_REQUESTS, **ADMIN_REQUESTS}.values()
    fields = {field for request in requests for cls in (request, request.REPLY) for field in cls.FIELDS}
    fields |= set(messages.BinaryValue.FIELDS) | set(messages.Failure.FIELDS) | set(messages.AuditStatus.FIELDS)
    assert missing(name, sorted(fields | set(messages.ProjectStatus.FIELDS))) == []
    assert missing(name, [str(messages.MAX_MESSAGE), str(messages.MAX_PUSH), str(messages.MAX_DEPTH)]) == []


def test_the_places_of_a_manifest_in_order() -> None:
    text = page("remo-broker-manifest.5")
    places = [text.index("/".join(place)) for place in SEARCH]
    assert places == sorted(places)


def test_every_property_of_the_bus() -> None:
    names = [one.name for interface in (MANAGER, PROJECT) for one in interface.properties]
    assert missing("remo-broker-bus.8", names) == []


def options(command: Program | Command) -> list[str]:
    return [name for option in command.options for name in option.names]


@pytest.mark.parametrize(("program", "name"), [(CTL, "remo-brokerctl.1"), (SECRET, "remo-secret.1")])
def test_every_command_and_option_of_a_program(program: Program, name: str) -> None:
    assert missing(name, list(program.commands)) == []
    assert missing(name, options(program)) == []
    assert [(word, lacking) for word, one in program.commands.items() if (lacking := missing(name, options(one)))] == []
