"""Real programs that people keep secrets in, as sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.process.sidecar.test_sources import VALUE, source
from tests.support.broker import WAIT_SECONDS, short_directory
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.process.sidecar.conftest import Supplied

SOPS = REPOSITORY / ".cache/tools/bin/sops"


class Keyring:
    """A GnuPG home with one key, which has no passphrase."""

    def __init__(self, home: pathlib.Path) -> None:
        self.env = {"GNUPGHOME": str(home), "PASSWORD_STORE_DIR": str(home / "store"), "PATH": os.environ["PATH"]}
        make = ("--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", "owner")
        self.run("gpg", *make, "default", "default", "never")
        listed = self.run("gpg", "--list-keys", "--with-colons")
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def run(self, *command: str | pathlib.Path, stdin: str = "") -> str:
        done = subprocess.run(
            command, env=self.env, input=stdin, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def keyring() -> Iterator[Keyring]:
    for program in ("gpg", "pass"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed here: ./run test installs it")
    with short_directory() as home:  # its agent listens there
        home.chmod(0o700)
        one = Keyring(home)
        yield one
        one.run("gpgconf", "--kill", "all")


def test_a_file_that_sops_has_encrypted(supplied: Supplied, keyring: Keyring) -> None:
    """The encrypted file itself is not a source; the error says what to do."""
    if not SOPS.exists():
        unavailable(f"{SOPS} is not there: ./run test fetches it")
    plain, vault = supplied.directory / "plain.json", supplied.directory / "vault.json"
    plain.write_text(json.dumps({"A": VALUE, "b": {"user": "me", "port": 5432}}))
    vault.write_text(keyring.run(SOPS, "encrypt", "--pgp", keyring.fingerprint, plain))
    assert VALUE not in vault.read_text()
    done = supplied.run("push", "--file", vault)
    assert done.returncode == 1
    assert b"sops decrypt" in done.stderr
    config = supplied.configure(source(command=[str(SOPS), "decrypt", str(vault)], watch=[str(vault)]))
    done = supplied.run(f"--config={config}", "push", env=keyring.env)
    assert done.returncode == 0, done.stderr
    assert supplied.broker.get("A")["value"] == VALUE
    assert json.loads(supplied.broker.get("b")["value"]) == {"user": "me", "port": "5432"}


def test_one_entry_of_pass(supplied: Supplied, keyring: Keyring) -> None:
    keyring.run("pass", "init", keyring.fingerprint)
    keyring.run("pass", "insert", "-m", "dev/secrets", stdin=f"A={VALUE}\nB='two words'\n")
    config = supplied.configure(source(command=["pass", "show", "dev/secrets"], format="dotenv"))
    done = supplied.run(f"--config={config}", "push", env=keyring.env)
    assert done.returncode == 0, done.stderr
    assert (supplied.broker.get("A")["value"], supplied.broker.get("B")["value"]) == (VALUE, "two words")
    keyring.run("pass", "rm", "-f", "dev/secrets")
    done = supplied.run(f"--config={config}", "push", env=keyring.env)
    assert done.returncode == 1
    assert b"is not in the password store" in done.stderr, "what the program says"
    assert b"source 1 (pass): exit status 1" in done.stderr
    assert supplied.broker.get("A")["value"] == VALUE, "the broker keeps what it has"
