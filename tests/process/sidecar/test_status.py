"""What the sidecar tells systemd, which shows it to every user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.process.sidecar.test_sources import script, source
from tests.support.links import chain
from tests.support.machine import poll

if TYPE_CHECKING:
    from tests.process.sidecar.conftest import Supplied


def test_no_file_s_name_tells_the_manager_anything(supplied: Supplied) -> None:
    """Another user may own a source's directory."""
    source = supplied.directory / "source\nMAINPID=1"
    source.mkdir()
    (source / "x\nMAINPID=1\nSTOPPING=1").write_text("1")
    (source / os.fsdecode(b"y\xff")).write_text("1")
    supplied.start("--directory", source)
    (source / "x\nMAINPID=1\nSTOPPING=1").unlink()
    poll("the next error", lambda: supplied.alive() and "y\\udcff" in supplied.logged())
    said = supplied.notified.read()
    assert {key for one in said for key in one} == {"READY", "STATUS"}
    assert "source\\nMAINPID=1" in supplied.status()
    assert "x\\nMAINPID=1\\nSTOPPING=1" in supplied.logged()
    assert "Traceback" not in supplied.logged()


def test_no_chain_of_links_ends_it(supplied: Supplied) -> None:
    """Longer than Python can follow."""
    source = supplied.directory / "source"
    source.mkdir()
    (source / "A").write_text("1")
    chain(source / ".hidden", 2000)
    supplied.start("--directory", source)
    supplied.serves("1")
    (source / "A").write_text("2")
    supplied.serves("2")
    assert "Traceback" not in supplied.logged()


@pytest.mark.parametrize("kind", ["empty", "lacking", "too long"])
def test_no_secret_s_name_is_in_the_status_which_any_user_can_read(supplied: Supplied, kind: str) -> None:
    file = supplied.directory / "vault.env"
    file.write_text("A=1\n")
    (supplied.directory / "held").mkdir()
    (supplied.directory / "held" / "CLASSIFIED").touch()
    options: dict[str, dict[str, Any]] = {
        "empty": {"directory": str(supplied.directory / "held")},
        "lacking": {"file": str(file), "only": ["CLASSIFIED"]},
        "too long": {"command": [script(supplied, "print('CLASSIFIED=' + 'x' * 65536)")]},
    }
    supplied.start(f"--config={supplied.configure(source(**options[kind]))}")
    poll("the error", lambda: "CLASSIFIED" in supplied.logged())
    poll("the status", lambda: "failed: " in supplied.status())
    assert "CLASSIFIED" not in "".join(one.get("STATUS", "") for one in supplied.notified.read())
