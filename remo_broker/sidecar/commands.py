"""The command line of `remo-sidecar`, as a table."""

from __future__ import annotations

from remo_broker.cli.options import HELP, VERSION, Command, Operand, Option, Program
from remo_broker.protocol import paths

ADMIN_SOCKET = f"{paths.SOCKET_DIR}/{paths.ADMIN_SOCKET}"

CONFIG = Option(
    "--config", value="PATH", kind="file", help=f"The configuration file; {paths.SIDECAR_CONFIG_FILE} by default"
)
SOCKET = Option("--socket", value="PATH", kind="file", help=f"The admin socket; {ADMIN_SOCKET} by default")
JSON = Option("--json", value="MODE", choices=("short", "pretty", "off"), help="Print JSON on one line, or indented")

COMMAND = Option("--command", value="COMMAND", help="Read what this command prints; it is split into words, no shell")
FILE = Option("--file", value="PATH", kind="file", help="Read this file, JSON or dotenv")
DIRECTORY = Option("--directory", value="DIR", kind="directory", help="Read this directory: each file is a secret")
WATCH = Option("--watch", value="PATH,...", kind="file", help="With --command: run it again when one of these changes")
REFRESH = Option("--refresh-seconds", value="N", help="Read again at least this often; never by default")
SOURCES = (COMMAND, FILE, DIRECTORY, WATCH, REFRESH)

VALUE_FILE = Option("--file", value="PATH", kind="file", help="Keep the bytes of this file")

_SOURCES_HELP = f"""\
The sources are those of {paths.SIDECAR_CONFIG_FILE}, see remo-sidecar.toml(5), or those on the command line instead.
Credentials that systemd passes to the process, in $CREDENTIALS_DIRECTORY, are pushed too."""

PROGRAM = Program(
    "remo-sidecar",
    "Read secrets from where you keep them, and keep remo-broker supplied.",
    options=[CONFIG, SOCKET, JSON, HELP, VERSION],
    commands=[
        Command(
            "run",
            "Keep the broker supplied until stopped",
            run="remo_broker.sidecar.run:run",
            options=SOURCES,
            details=f"""\
Pushes at its start, when a source changes, when a broker has started again, and on SIGHUP, which also reads the
configuration again. A source that fails leaves the broker as it is, and is tried again. After another process's push or
clear it waits for one of the above.

{_SOURCES_HELP}""",
        ),
        Command(
            "push",
            "Read all sources and push once",
            run="remo_broker.sidecar.push:push",
            options=SOURCES,
            details=f"""\
Replaces whatever the broker holds. If one source fails, nothing is pushed and the exit status is 1.

{_SOURCES_HELP}""",
        ),
        Command(
            "check",
            "Read all sources and show what would be pushed",
            run="remo_broker.sidecar.check:check",
            options=SOURCES,
            details=f"""\
Shows names, kinds, sources and classes of size, never a value, and the projects that would still lack a secret. Pushes
nothing. The exit status is 1 if a source fails or a project would lack something.

{_SOURCES_HELP}""",
        ),
        Command(
            "set",
            "Keep a secret on this host, encrypted",
            run="remo_broker.sidecar.store:set_secret",
            operands=[Operand("NAME", kind="secret")],
            options=[VALUE_FILE],
            details=f"""\
Asks for the value on a terminal, otherwise reads standard input; one newline at the end is not part of the value. It is
encrypted by systemd-creds, with the host's key or its TPM, and kept below {paths.SECRETS_DIR}. Where systemd runs,
remo-sidecar.service is then enabled and restarted, and the broker has the secret when the command ends.""",
        ),
        Command(
            "remove",
            "Remove a secret that 'set' has kept",
            run="remo_broker.sidecar.store:remove_secret",
            operands=[Operand("NAME", kind="secret")],
            details="The broker no longer has it when the command ends.",
        ),
        Command(
            "list",
            "List the secrets that 'set' has kept",
            run="remo_broker.sidecar.store:list_secrets",
            details="Names and times; nothing is decrypted.",
        ),
    ],
    epilog="Exit status: 0 on success, 1 on failure, 2 on wrong usage.",
)
