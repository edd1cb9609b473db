"""`remo-brokerctl setup-journal`: give the audit its own journal.

In the default journal any local user can delay the audit by keeping journald busy, and displace it
by filling the journal. With its own namespace, a second journald runs for the broker alone, behind
a socket that only the broker's process can write to: systemd starts nothing else in its group. Only
root may have it sync or rotate: newer versions of systemd open that socket to all users, who could
keep it busy there, too.
"""

from __future__ import annotations

import contextlib
import grp
import os
import tempfile
from typing import TYPE_CHECKING

from remo_broker.cli.program import Problem
from remo_broker.ctl.commands import NOW, REMOVE
from remo_broker.ctl.journals import GROUP, unit_namespace
from remo_broker.ctl.session import open_output
from remo_broker.ctl.units import SERVICE, is_systemd_there, systemctl

if TYPE_CHECKING:
    from remo_broker.cli.options import Arguments

NAMESPACE = "remo-broker"
JOURNALD = f"systemd-journald@{NAMESPACE}"
VARLINK = f"systemd-journald-varlink@{NAMESPACE}"
# What each of their units listens on.
SOCKETS = {f"{JOURNALD}.socket": ("socket", "stdout", "dev-log"), f"{VARLINK}.socket": ("io.systemd.journal",)}
# A get takes some 800 bytes of journal: enough for a million gets, with a margin.
ROOM = "1G"

# Written in this order, and removed in the opposite one: if either fails in between, the broker does not
# write to a journal that others can write to.
FILES = {
    f"/etc/systemd/system/{JOURNALD}.socket.d/50-remo-broker.conf": f"""\
# Written by remo-brokerctl setup-journal. Only the broker writes to its audit.
[Socket]
SocketGroup={GROUP}
SocketMode=0660
""",
    # In systemd 262, anybody may connect to this one by default.
    f"/etc/systemd/system/{VARLINK}.socket.d/50-remo-broker.conf": """\
# Written by remo-brokerctl setup-journal. Only root tells this journald to rotate or synchronize.
[Socket]
SocketMode=0600
""",
    # systemd gives everything in a RuntimeDirectory= to the service's group, which is that of all who may
    # read journals. To take the sockets back after that would be too late: who has connected stays so.
    f"/etc/systemd/system/{JOURNALD}.service.d/50-remo-broker.conf": """\
# Written by remo-brokerctl setup-journal. Its start must not give the broker's sockets to its own group.
[Service]
RuntimeDirectory=
""",
    f"/etc/systemd/journald@{NAMESPACE}.conf": f"""\
# Written by remo-brokerctl setup-journal. See journald.conf(5); the oldest entries go when there are more than SystemMaxUse=.
[Journal]
Storage=persistent
SystemMaxUse={ROOM}
# By default, journald deletes old entries for new ones as soon as others leave less than 4G of the disk.
SystemKeepFree=0
# The broker limits what its clients can cause.
RateLimitIntervalSec=0
MaxLevelStore=debug
ForwardToSyslog=no
ForwardToWall=no
""",
    f"/etc/systemd/system/{SERVICE}.d/50-journal.conf": f"""\
# Written by remo-brokerctl setup-journal.
[Service]
LogNamespace={NAMESPACE}
""",
}


def setup_journal(arguments: Arguments) -> None:
    output = open_output(arguments)
    if not is_systemd_there():
        raise Problem(
            "this host does not run systemd", hint="without systemd, the broker writes its records to standard error"
        )
    if os.geteuid() != 0:
        raise Problem("cannot change units: permission denied", hint="run this with sudo")
    if arguments.flag(REMOVE):
        remove_files()
        said = "The broker writes to the default journal again"
        kept = f"The namespace keeps its records; to see them, run 'remo-brokerctl audit --namespace={NAMESPACE}'."
    else:
        present = unit_namespace()
        if present not in (None, NAMESPACE):
            raise Problem(
                f"{SERVICE} already writes to the journal namespace {present}",
                hint=f"remove LogNamespace= with 'systemctl edit {SERVICE}' first, or keep that namespace",
            )
        write_files()
        said = f"The broker writes to the journal namespace {NAMESPACE}"
        kept = f"See it with 'journalctl --namespace={NAMESPACE}'; 'remo-brokerctl audit' reads both journals."
    _systemctl("daemon-reload")
    running = _systemctl("is-active", "--quiet", SERVICE, check=False) == 0
    waits = running and not arguments.flag(NOW)
    if not waits:
        _settle(removed=arguments.flag(REMOVE), running=running)
    output.line(f"{said} {'after its next start' if waits else 'from now on'}.")
    output.line(kept)
    if waits:
        output.line(f"Run 'systemctl restart {SERVICE}'; a sidecar then has to push the secrets again.")


def _settle(*, removed: bool, running: bool) -> None:
    """Bring the broker and its journald in line with the files.

    The broker requires its journald's socket: stopping that first would stop the broker and lose
    its sockets.
    """
    if running:
        _systemctl("restart", SERVICE)
    if removed:
        _systemctl("stop", *SOCKETS, f"{JOURNALD}.service", check=False)
        # systemd does not remove the sockets: they belong to the broker's group.
        _systemctl("clean", "--what=runtime", f"{JOURNALD}.service", check=False)
        return
    for unit, names in SOCKETS.items():
        if any(map(_is_open, names)):  # it was listening before, with its old mode
            _systemctl("restart", unit)


def _is_open(name: str) -> bool:
    """Whether others than root and the broker may connect to that socket."""
    try:
        socket = os.stat(f"/run/systemd/journal.{NAMESPACE}/{name}")
    except OSError:
        return False
    return bool(socket.st_mode & 0o007 or (socket.st_mode & 0o070 and socket.st_gid != grp.getgrnam(GROUP).gr_gid))


def write_files() -> None:
    for path, text in FILES.items():
        _write(path, text)


def remove_files() -> None:
    for path in reversed(FILES):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if path.endswith(".d/" + os.path.basename(path)):
            with contextlib.suppress(OSError):  # contains files of other owners, or does not exist
                os.rmdir(os.path.dirname(path))


def _write(path: str, text: str) -> None:
    """Written in one step, so that systemd never reads a partial file."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".remo-", dir=directory)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            os.fchmod(descriptor, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _systemctl(*arguments: str, check: bool = True) -> int:
    done = systemctl(*arguments)
    if check and done.returncode != 0:
        raise Problem(f"systemctl {arguments[0]}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.returncode
