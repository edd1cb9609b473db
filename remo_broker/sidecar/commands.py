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

COMMAND = Option(
    "--command", value="COMMAND", help="Read the output of this command, which is executed without a shell"
)
FILE = Option("--file", value="PATH", kind="file", help="Read this file, JSON or dotenv")
DIRECTORY = Option("--directory", value="DIR", kind="directory", help="Read this directory, one secret per file")
WATCH = Option("--watch", value="PATH,...", kind="file", help="With --command: run it again when one of these changes")
REFRESH = Option("--refresh-seconds", value="N", help="Read the sources again at least this often; never by default")
SOURCES = (COMMAND, FILE, DIRECTORY, WATCH, REFRESH)

VALUE_FILE = Option("--file", value="PATH", kind="file", help="Store the content of this file, byte for byte")

_SOURCES_HELP = f"""\
{paths.SIDECAR_CONFIG_FILE} defines the sources, see remo-sidecar.toml(5), unless the command line
gives others. Credentials that systemd passes to the process, in $CREDENTIALS_DIRECTORY, are pushed
too."""

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
Pushes at start, when a source changes, when refresh_seconds have passed, when the broker has
restarted, and on SIGHUP, which also reloads the configuration. If a source fails, nothing is
pushed, and the source is tried again. After a push or clear of another client, pushes nothing until
a watched source changes, the broker restarts, or SIGHUP arrives.

{_SOURCES_HELP}""",
        ),
        Command(
            "push",
            "Read all sources and push once",
            run="remo_broker.sidecar.push:push",
            options=SOURCES,
            details=f"""\
Replaces everything that the broker holds. If a source fails, nothing is pushed and the exit status
is 1.

{_SOURCES_HELP}""",
        ),
        Command(
            "check",
            "Read all sources and show what would be pushed",
            run="remo_broker.sidecar.check:check",
            options=SOURCES,
            details=f"""\
Shows names, kinds, sources and size classes, never values, and the projects that would still lack a
secret. Pushes nothing. The exit status is 1 if a source fails, a project would lack a secret, or
the broker cannot be reached.

{_SOURCES_HELP}""",
        ),
        Command(
            "set",
            "Store a secret on this host, encrypted",
            run="remo_broker.sidecar.store:set_secret",
            operands=[Operand("NAME", kind="secret")],
            options=[VALUE_FILE],
            details=f"""\
Prompts for the value on a terminal; otherwise reads standard input, without one newline at the end.
systemd-creds encrypts the value, with the host's key or its TPM, into {paths.SECRETS_DIR}. If
systemd is running, remo-sidecar.service is then enabled and restarted, and the broker has the
secret when the command ends.""",
        ),
        Command(
            "remove",
            "Remove a secret that 'set' has stored",
            run="remo_broker.sidecar.store:remove_secret",
            operands=[Operand("NAME", kind="secret")],
            details="When the command ends, the broker no longer has it.",
        ),
        Command(
            "list",
            "List the secrets that 'set' has stored",
            run="remo_broker.sidecar.store:list_secrets",
            details="Prints names and times; decrypts nothing.",
        ),
    ],
    epilog="Exit status: 0 on success, 1 on failure, 2 on wrong usage.",
)
