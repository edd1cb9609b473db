"""`remo-sidecar set`, `remove`, `list`: the host's own store, for hosts without a vault.

One file per secret below `SECRETS_DIR`, encrypted by systemd-creds with the host's key or its TPM.
Only systemd decrypts them, when it starts remo-sidecar.service, which loads the directory with
`LoadCredentialEncrypted=`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time

from remo_broker.cli import input_files
from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import NAMES, text_or_bytes
from remo_broker.client.admin import AdminClient
from remo_broker.client.errors import ClientError
from remo_broker.protocol import paths
from remo_broker.protocol.clock import monotonic, now_usec
from remo_broker.protocol.hardening import forbid_dumps
from remo_broker.protocol.names import counted, is_secret_name
from remo_broker.sidecar.commands import VALUE_FILE
from remo_broker.sidecar.push import open_output, socket_path
from remo_broker.sidecar.sizes import SHORTEN, fits
from remo_broker.sidecar.sources import CREDENTIAL_PREFIX

SERVICE = "remo-sidecar.service"
SEE_STATUS = f"see 'systemctl status {SERVICE}'"
# Settings of a drop-in by which the service has sources without a configuration file.
GIVING_SOURCES = ("ExecStart=", "LoadCredential", "SetCredential", "ImportCredential")
# From the service's start to its push, not counting the time of its other sources.
SUPPLY_SECONDS = 15.0


def set_secret(arguments: Arguments) -> None:
    forbid_dumps()
    [name] = arguments.operands
    _check_name(name)
    _require_root()
    value = _value(arguments, name)
    if not value:
        raise Problem(f"{name}: an empty value", hint="give the value on standard input, or with --file")
    if not fits(text_or_bytes(value, strip_newline=False)):
        raise Problem(f"{name}: too long", hint=SHORTEN)
    _keep(name, value)
    _end(arguments, f"{name} is stored, encrypted, in {paths.SECRETS_DIR}")


def remove_secret(arguments: Arguments) -> None:
    [name] = arguments.operands
    _check_name(name)
    _require_root()
    try:
        os.unlink(os.path.join(paths.SECRETS_DIR, name))
    except FileNotFoundError:
        raise Problem(f"{name}: not stored on this host", hint="'remo-sidecar list' shows the stored secrets") from None
    _end(arguments, f"{name} is removed")


def list_secrets(arguments: Arguments) -> None:
    from remo_broker.cli import times

    try:
        entries = sorted(
            (entry.name, entry.stat().st_mtime_ns // 1000)
            for entry in os.scandir(paths.SECRETS_DIR)
            if is_secret_name(entry.name)
        )
    except FileNotFoundError:
        entries = []
    except PermissionError:
        raise Problem(f"{paths.SECRETS_DIR}: permission denied", hint="use sudo") from None
    output = open_output(arguments)
    if output.json != "off":
        output.show_json([{"name": name, "set_at": times.iso(usec)} for name, usec in entries])
    elif entries:
        rows = [[name, times.shown_short(usec)] for name, usec in entries]
        output.table(["NAME", "SET"], rows, f"{counted(len(rows), 'secret')} listed.")
    else:
        output.line("No secret is kept here.")


def _check_name(name: str) -> None:
    if not is_secret_name(name):
        # Do not repeat it: it may be the value.
        raise Usage("not a valid name for a secret", hint=NAMES)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise Problem(f"{paths.SECRETS_DIR}: only root may change it", hint="use sudo")


def _value(arguments: Arguments, name: str) -> bytes:
    file = arguments.value(VALUE_FILE)
    if file is not None:
        return input_files.read(file)
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"Value of {name}: ").encode()
    content = input_files.read_descriptor(sys.stdin.fileno(), "standard input")
    return content[:-2] if content.endswith(b"\r\n") else content.removesuffix(b"\n")


def _keep(name: str, value: bytes) -> None:
    """Encrypt the value through a pipe to systemd-creds, and put it in place in one step."""
    os.makedirs(paths.SECRETS_DIR, mode=0o700, exist_ok=True)
    # Beside the directory, not inside: systemd loads everything in there.
    with tempfile.TemporaryDirectory(prefix=".secret-", dir=os.path.dirname(paths.SECRETS_DIR)) as scratch:
        file = os.path.join(scratch, name)
        command = ["systemd-creds", "encrypt", f"--name={CREDENTIAL_PREFIX}{name}", "-", file]
        try:
            done = subprocess.run(command, input=value, capture_output=True, check=False)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise Problem(f"systemd-creds: {why}", hint="it comes with systemd 250 and later") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise Problem(f"systemd-creds: {said[-1] if said else f'exit status {done.returncode}'}")
        os.chmod(file, 0o600)
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
        os.replace(file, os.path.join(paths.SECRETS_DIR, name))
    directory = os.open(paths.SECRETS_DIR, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _end(arguments: Arguments, what: str) -> None:
    """If systemd runs, make the broker hold the stored secrets; print the result."""
    output = open_output(arguments)
    if not os.path.isdir(paths.SYSTEMD_MARK):
        held, text = False, f"{what}. systemd does not run here: {SERVICE} pushes it when it starts."
    elif not (os.listdir(paths.SECRETS_DIR) or os.path.exists(paths.SIDECAR_CONFIG_FILE) or _drop_ins_give_sources()):
        _systemctl("disable", "--now", SERVICE)
        _clear(arguments)
        held, text = True, f"{what}, the last one; the broker holds no secrets."
    else:
        before = now_usec()
        _systemctl("enable", "--now", paths.ADMIN_UNIT)
        _systemctl("enable", SERVICE)
        # systemd counts starts by hand too, and refuses the sixth within half a minute.
        _systemctl("reset-failed", SERVICE, may_fail=True)
        _systemctl("restart", SERVICE)
        _wait_until_supplied(arguments, before, what)
        held, text = True, f"{what}; the broker is supplied."
    if output.json != "off":
        output.show_json({"supplied": held})
    else:
        output.line(text)


def _drop_ins_give_sources() -> bool:
    """Whether a drop-in of the service may give it sources, as options or as credentials."""
    command = ["systemctl", "show", "--property=DropInPaths", "--value", SERVICE]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    for path in found.split():
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            if any(line.strip().startswith(GIVING_SOURCES) for line in file):
                return True
    return False


def _systemctl(*arguments: str, may_fail: bool = False) -> None:
    done = subprocess.run(
        ["systemctl", "--quiet", "--no-ask-password", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not may_fail:
        said = done.stderr.strip().splitlines()
        why = said[0] if said else f"exit status {done.returncode}"
        raise Problem(f"systemctl {' '.join(arguments)}: {why}", hint=SEE_STATUS)


def _clear(arguments: Arguments) -> None:
    with AdminClient(socket_path(arguments)) as client:
        client.clear_creds()


def _wait_until_supplied(arguments: Arguments, since_usec: int, what: str) -> None:
    deadline = monotonic() + SUPPLY_SECONDS
    while True:
        try:
            with AdminClient(socket_path(arguments)) as client:
                if client.status().secrets_loaded_usec >= since_usec:
                    return
        except ClientError:
            pass
        if monotonic() > deadline:
            raise Problem(f"{what}, but the broker is not supplied", hint=SEE_STATUS)
        time.sleep(0.05)
