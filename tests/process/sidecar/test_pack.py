"""`remo-sidecar.pyz`, the one file for containers that have Python and no systemd."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from tests.support.broker import inside
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib

    from tests.process.sidecar.conftest import Supplied


def packed(directory: pathlib.Path) -> pathlib.Path:
    file = directory / "remo-sidecar.pyz"
    subprocess.run([sys.executable, "-m", "remo_broker.build.pack", file], check=True)
    return file


def test_every_command_but_those_for_the_host(supplied: Supplied) -> None:
    """`-I` and `-S` keep out whatever else is installed; a configuration file needs no package
    either."""
    file = packed(supplied.directory)
    (supplied.directory / "vault.env").write_text("A=1\nB=2\nKEY=3\nb=4\n")
    config = supplied.configure(f'[[source]]\nfile = "{supplied.directory}/vault.env"\n')
    for command in (["check"], ["push"], ["--help"], ["set", "--help"], ["list"]):
        argv = [
            sys.executable,
            "-I",
            "-S",
            str(file),
            f"--socket={supplied.broker.admin}",
            f"--config={config}",
            *command,
        ]
        done = subprocess.run(argv, capture_output=True, cwd="/", check=False)
        assert (done.returncode, done.stderr) == (0, b""), command
    assert supplied.broker.get("A")["value"] == "1"


def test_it_supplies_a_broker_with_the_settings_of_the_allocator_in_force(supplied: Supplied) -> None:
    file = packed(supplied.directory)
    (supplied.directory / "vault.env").write_text("A=1\n")
    argv = [str(file), f"--socket={supplied.broker.admin}", "run", "--file", f"{supplied.directory}/vault.env"]
    environment = {"PATH": f"{os.path.dirname(sys.executable)}:{os.defpath}", "PYTHONPATH": "/nowhere"}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            poll("the value", lambda: supplied.broker.get("A").get("value") == "1")
            found = inside(process.pid, "environ").read_bytes().decode().split("\0")
            for name, value in MEMORY_ENVIRONMENT.items():
                # Some versions of glibc split a value at its colons.
                assert not {f"{name}={value}", f"{name}={value.partition(':')[0]}"}.isdisjoint(found)
            assert "PYTHONPATH=/nowhere" not in found, "it decides what is imported"
            assert "-I" not in inside(process.pid, "cmdline").read_bytes().decode().split("\0"), (
                "it would void the rest"
            )
        finally:
            process.terminate()
    assert process.returncode == 0
