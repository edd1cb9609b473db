"""The pages of the sidecar against its table and its keys, in both directions."""

from __future__ import annotations

import re

from remo_broker.sidecar import configuration
from remo_broker.sidecar.commands import PROGRAM, SOURCES, VALUE_FILE
from remo_broker.sidecar.configuration import KEYS
from tests.contract.man.pages import flags, page, section, source

PAGE, TOML = "remo-sidecar.1", "remo-sidecar.toml.5"


def test_every_command_and_option() -> None:
    commands = set(re.findall(r"^\.It Cm (\S+)", section(PAGE, "COMMANDS"), re.MULTILINE))
    assert commands == set(PROGRAM.commands)
    assert flags(section(PAGE, "OPTIONS")) == {name for option in PROGRAM.options for name in option.names}
    assert flags(section(PAGE, "SOURCES")) == {name for option in SOURCES for name in option.names}
    assert VALUE_FILE.name in flags(section(PAGE, "COMMANDS"))


def test_every_key() -> None:
    described = set(re.findall(r"^\.It Cm (\w+)", section(TOML, "DESCRIPTION"), re.MULTILINE))
    assert described == set(KEYS)
    for key in re.findall(r"^(\w+) = ", source(TOML), re.MULTILINE):
        assert key in KEYS, key


def test_numbers() -> None:
    text = page(TOML)
    for promise in (
        f"0 to {configuration.MAX_REFRESH_SECONDS}",
        f"1 to {configuration.MAX_TIMEOUT_SECONDS}, {configuration.DEFAULT_TIMEOUT_SECONDS} by default",
    ):
        assert promise in text, promise
