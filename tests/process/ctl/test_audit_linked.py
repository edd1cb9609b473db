"""The review takes only this machine's journals for the audit: neither those that containers link
beside them, nor users' own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests.support import programs
from tests.support.machine import REPOSITORY, unavailable
from tests.support.privileges import require_mounts

if TYPE_CHECKING:
    import pathlib

REMOTE = "/lib/systemd/systemd-journal-remote"
MACHINE, CONTAINER = "a" * 32, "b" * 32
NOBODY = 65534
UID, GID = 4242, 4343

# The host's journals and its users, for one command, which finds the code where all users may read it,
# though it may be below a closed home. $1: the directory that has them; $2: the package; $3: those that it
# takes.
_HOST = """
cp -a /etc "$1/etc" && cd "$1" && cat passwd >>etc/passwd && cat group >>etc/group && cat machine-id >etc/machine-id
mount --bind etc /etc
[ ! -d /run/log/journal ] || mount -t tmpfs none /run/log
mount -t tmpfs none /var/log && mkdir /var/log/journal && mount --bind journal /var/log/journal
mount -t tmpfs none /mnt && mkdir /mnt/remo_broker && mount --bind "$2" /mnt/remo_broker
mkdir /mnt/packages && mount --bind "$3" /mnt/packages
cd /; shift 3; exec "$@"
"""


class Host:
    """A machine with a record in its own journal, and one in that of a container."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        (directory / "passwd").write_text(f"remo-broker:x:{UID}:{UID}::/:/bin/false\n")
        (directory / "group").write_text(f"remo-broker-private:x:{GID}:\n")
        (directory / "machine-id").write_text(f"{MACHINE}\n")
        for machine, secret in ((MACHINE, "OWN"), (CONTAINER, "LINKED")):
            self.place(machine).mkdir(parents=True)
            fields = {
                "__REALTIME_TIMESTAMP": "1780221600000000",
                "__MONOTONIC_TIMESTAMP": "1000000",
                "_BOOT_ID": machine,
                "_MACHINE_ID": machine,
                "_UID": str(UID),
                "_GID": str(GID),
                "MESSAGE": f"Project p fetched {secret}.",
                "REMO_EVENT": "fetch",
                "REMO_PROJECT": "p",
                "REMO_SECRET": secret,
                "REMO_DECISION": "allow",
                "REMO_OUTCOME": "ok",
                "REMO_START_ID": machine,
                "REMO_SERIAL": "1",
            }
            text = "".join(f"{key}={value}\n" for key, value in fields.items()) + "\n"
            to = self.place(machine) / "system.journal"
            subprocess.run([REMOTE, "-o", to, "-"], input=text, text=True, check=True, capture_output=True)

    def place(self, machine: str) -> pathlib.Path:
        return self._directory / "journal" / machine

    def audit(self, *options: str, user: int = 0) -> subprocess.CompletedProcess[bytes]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command = [*become, *programs.command(programs.BROKERCTL, "audit", *options)]
        inside = [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            _HOST,
            "sh",
            str(self._directory),
            f"{REPOSITORY}/remo_broker",
            sysconfig.get_path("platlib"),
            *command,
        ]
        code = programs.environment({"PYTHONPATH": "/mnt:/mnt/packages"})
        return subprocess.run(inside, capture_output=True, env=code, check=False)


@pytest.fixture
def host(directory: pathlib.Path) -> Host:
    require_mounts()
    if not os.path.exists(REMOTE):
        unavailable("systemd-journal-remote is not installed: ./run test installs it")
    return Host(directory)


@pytest.mark.parametrize("options", [("-j",), ("-j", "-n5"), ("--summary", "-j"), ("--by=secret", "-j")])
def test_the_journal_that_a_container_links_is_not_reviewed(host: Host, options: tuple[str, ...]) -> None:
    """As systemd-nspawn links it: the container's root decides there on every field, also on those
    that only journald writes."""
    done = host.audit(*options)
    assert done.returncode == 0, done.stderr
    assert b"OWN" in done.stdout
    assert b"LINKED" not in done.stdout


def test_the_journal_that_a_container_links_is_not_verified(host: Host) -> None:
    done = host.audit("--verify", "--json=short")
    assert [one["start_id"] for one in json.loads(done.stdout)["starts"]] == [MACHINE]


@pytest.mark.parametrize("closed", ["an older file", "one that journald closed uncleanly", "the directory"])
@pytest.mark.parametrize("namespace", [False, True])
def test_a_user_who_may_read_a_part_of_the_journal_is_told_so(host: Host, closed: str, namespace: bool) -> None:
    """The review would lack records, and say that none is missing."""
    options = ("--namespace=own",) if namespace else ()
    place = host.place(MACHINE)
    if namespace:
        place = place.rename(place.with_name(f"{MACHINE}.own"))
    (place / "system.journal").chmod(0o644)
    shutil.copy(place / "system.journal", place / "user-1001.journal")
    (place / "user-1001.journal").chmod(0o600)  # the broker has none there
    assert b"OWN" in host.audit(*options, user=NOBODY).stdout
    if closed == "the directory":
        place.chmod(0o711)
    else:
        other = place / ("system@0-0-0.journal" if closed == "an older file" else "system@0-0.journal~")
        shutil.copy(place / "system.journal", other)
        other.chmod(0o640)
    done = host.audit(*options, user=NOBODY)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"cannot read the journal: permission denied" in done.stderr


def test_a_user_who_may_read_other_journals_only_is_told_so(host: Host) -> None:
    """Not that there are no records: journald lets each user read the user's own journal."""
    (host.place(MACHINE) / "system.journal").chmod(0o600)
    (host.place(CONTAINER) / "system.journal").chmod(0o644)
    shutil.copy(host.place(CONTAINER) / "system.journal", host.place(MACHINE) / f"user-{NOBODY}.journal")
    done = host.audit(user=NOBODY)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"cannot read the journal: permission denied" in done.stderr
