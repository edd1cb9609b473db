"""The AppArmor profiles: the parser takes them, and the units name them. No test here needs a
kernel that has AppArmor."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

from tests.support.machine import REPOSITORY, unavailable

PROFILES = sorted((REPOSITORY / "policy").glob("*.apparmor"))
UNITS = {"remo-broker": "remo-broker.service", "remo-broker-manifest": "remo-broker-manifest@.service"}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_the_parser_takes_it(profile: pathlib.Path) -> None:
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin")
    if parser is None:
        unavailable("apparmor_parser is not installed here: ./run test installs it")
    done = subprocess.run(
        [parser, "--skip-kernel-load", "--skip-cache", "--base", "/etc/apparmor.d", profile],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_its_unit_starts_with_it_and_without_it(profile: pathlib.Path) -> None:
    name = profile.stem
    text = profile.read_text()
    assert re.findall(r"^profile (\S+)", text, re.MULTILINE) == [name]
    # The minus sign: where it is not loaded, the unit still starts.
    assert f"AppArmorProfile=-{name}\n" in (REPOSITORY / "units" / UNITS[name]).read_text()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_what_was_never_enforced_refuses_nothing(profile: pathlib.Path) -> None:
    """Complain mode, and no deny rules, which hold in that mode, too."""
    text = re.sub(r"#.*", "", profile.read_text())
    assert "flags=(complain)" in text
    assert not re.search(r"\bdeny\b", text)


def test_all_are_here() -> None:
    assert {path.stem for path in PROFILES} == set(UNITS)
