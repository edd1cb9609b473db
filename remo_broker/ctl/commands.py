"""The command line of `remo-brokerctl`, as a table."""

from __future__ import annotations

from remo_broker.cli.options import HELP, VERSION, Command, Operand, Option, Program
from remo_broker.cli.secrets_file import FORMATS
from remo_broker.cli.times import FORMS
from remo_broker.protocol import paths

ADMIN_SOCKET = f"{paths.SOCKET_DIR}/{paths.ADMIN_SOCKET}"

# Exit statuses of `status`, as in the Linux Standard Base for init scripts, and in systemctl.
EXIT_FAILED = 1
EXIT_IDLE = 3
EXIT_UNKNOWN = 4

# As with journalctl --follow.
DEFAULT_FOLLOW_LINES = 10
MOST_LINES = 10**9

SOCKET = Option("--socket", value="PATH", kind="file", help=f"The admin socket; {ADMIN_SOCKET} by default")
JSON_AUTO = "auto"
JSON = Option(
    "--json",
    value="MODE",
    choices=("short", "pretty", "off"),
    bare=JSON_AUTO,
    help="Print JSON on one line, or indented; without MODE like -j",
)
JSON_SHORT = Option("-j", help="Print JSON: indented on a terminal, otherwise on one line")
NO_LEGEND = Option("--no-legend", help="Omit the header and the count of tables")
NO_PAGER = Option("--no-pager", help="Do not use a pager")

ALLOW_UID = Option("--allow-uid", value="UID,...", help="Allow only these users to connect: numbers or names")
NAME = Option("--name", value="NAME", help="Register under this name, regardless of the manifest and the directory")
REPLACE = Option(
    "--replace", help="Replace a registered project of that name; if it is in this directory, its sockets stay"
)
NO_ENABLE = Option("--no-enable", help="Do not enable or disable the project's socket unit")
FIX_ACL = Option(
    "--fix-acl", help="Let the manifest reader enter closed directories and read the manifest, with setfacl"
)
NAMES = Option("--names", help="Show only the names that it may fetch, one per line")
ALL = Option("--all", help="All registered projects; adopt only what their manifests remove")
DIFF = Option("--dry-run", help="Change nothing; show what would change, like diff")
DRY_RUN = Option("--dry-run", help="Change nothing; show which projects would lack a secret that they may fetch")
FORMAT = Option("--format", value="FORMAT", choices=FORMATS, help="The format of FILE; guessed by default")
COMMAND = Option("--command", help="Run a command instead of reading FILE; push its output if it succeeds")
STRIP_NEWLINE = Option(
    "--strip-newline", help="Omit one newline at the end of each @PATH and of each file of a directory"
)
CREDENTIALS = Option("--credentials", value="UNIT", help="Check what this systemd unit loads instead of a manifest")
UNIT = Option("--unit", value="UNIT", help="Explain a credential of this systemd unit instead")
UID = Option("--uid", value="UID", help="Explain for a connection of this user: a number or a name")
PROJECT_OPTION = Option("--project", value="PROJECT", kind="project", help="Only this project")
RECORDS_OF_UNIT = Option("--unit", value="UNIT", help="Only credentials that this systemd unit loaded")
SECRET_OPTION = Option("--secret", value="NAME", help="Only this secret")
DENIED = Option("--denied", help="Only what was denied or refused")
ALL_EVENTS = Option("-a", "--all", help="Also control-plane events: pushes, registrations, starts")
SINCE = Option("-S", "--since", value="TIME", help=f"Not before this time: {FORMS}")
UNTIL = Option("-U", "--until", value="TIME", help="Not after this time")
FOLLOW = Option("-f", "--follow", help="Keep running, and show new entries as they are recorded")
LINES = Option(
    "-n",
    "--lines",
    value="N",
    help=f"Only the last N; with --follow and without --since {DEFAULT_FOLLOW_LINES} by default",
)
SUMMARY = Option("--summary", help="Counts and times by project and secret, denied names on top")
BY = Option(
    "--by",
    value="WHAT",
    choices=("who", "secret", "project", "day"),
    help="With --summary: counts by program, secret, project or day",
)
WHO = Option("--who", value="PATTERN", help="Only this container, unit, program or user; * and ? match anything")
FULL = Option("-l", "--full", help="Do not truncate columns, and show each denial of a long run")
VERIFY = Option("--verify", help="Check by the serial numbers that no record is missing")
REPORT = Option(
    "--report", value="FILE", kind="file", help="Write the review to FILE as one HTML page; - is standard output"
)
MARK_NEW = Option(
    "--mark-new", help="Write a journal entry for each first fetch since the last run; a timer does this regularly"
)
NAMESPACE = Option("--namespace", value="NAME", help="Read this journal namespace, not the one that the unit writes to")
DIRECTORY = Option(
    "-D", "--directory", value="DIR", kind="directory", help="Read the journals of other hosts in this directory"
)

NOW = Option("--now", help="Restart the broker if it runs; the secrets must then be pushed again")
REMOVE = Option("--remove", help="Return to the default journal; existing records stay where they are")
DOCKER = Option("--docker", help="For docker run")
PODMAN = Option("--podman", help="For podman run")
COMPOSE = Option("--compose", help="For a compose file")
NSPAWN = Option("--nspawn", help="For a .nspawn file")
WRITE = Option("--write", help="Write it into the project's .devcontainer directory, after showing the changes")
YES = Option("-y", "--yes", help="Do not ask")

PROJECT = Operand("PROJECT", kind="project")

PROGRAM = Program(
    "remo-brokerctl",
    "Control remo-broker and review its audit.",
    options=[SOCKET, JSON, JSON_SHORT, NO_LEGEND, NO_PAGER, HELP, VERSION],
    commands=[
        Command(
            "status",
            "Show broker status",
            run="remo_broker.ctl.status:status",
            details=f"""\
Does not start an idle broker. The exit status is 0 when the broker runs and serves all projects,
{EXIT_FAILED} when it has failed, cannot start or does not serve a project, {EXIT_IDLE} when it is idle or stopped, and {EXIT_UNKNOWN} when
its state is unknown.""",
        ),
        Command("list", "List the registered projects", run="remo_broker.ctl.projects:list_projects"),
        Command(
            "show",
            "Show one project in full",
            run="remo_broker.ctl.projects:show",
            operands=[PROJECT],
            options=[NAMES],
        ),
        Command(
            "register",
            "Serve the project in a directory",
            run="remo_broker.ctl.register:register",
            operands=[Operand("PATH", kind="directory")],
            options=[NAME, REPLACE, ALLOW_UID, FIX_ACL, NO_ENABLE],
            details="""\
The project has the directory's name unless --name gives another. If systemd is running, its socket
unit, remo-broker-client@PROJECT.socket, is enabled too, so that systemd opens the socket at each
boot.""",
        ),
        Command(
            "unregister",
            "Stop serving a project",
            run="remo_broker.ctl.register:unregister",
            operands=[PROJECT],
            options=[NO_ENABLE],
            details="""\
If systemd is running, the project's socket unit is disabled and stopped too, even if the project is
not (or no longer) registered.""",
        ),
        Command(
            "reload",
            "Read a manifest again",
            run="remo_broker.ctl.reload:reload",
            operands=[Operand("PROJECT", kind="project", optional=True)],
            options=[ALL, DIFF, YES],
            details="""\
If the manifest would allow more than before, the command shows the change and adopts it only after
confirmation on the terminal, or with --yes. With --all, as with SIGHUP, only what the manifests
remove is adopted. A manifest that is not valid changes nothing.""",
        ),
        Command(
            "diff",
            "Show what reload would change",
            run="remo_broker.ctl.reload:diff",
            operands=[PROJECT],
            details="The exit status is 1 if anything would change.",
        ),
        Command(
            "push",
            "Replace all secrets",
            run="remo_broker.ctl.push:push",
            operands=[Operand("FILE", kind="file", optional=True, many=True)],
            options=[FORMAT, STRIP_NEWLINE, COMMAND, DRY_RUN],
            details="""\
FILE is JSON or dotenv; - or no FILE is standard input. A directory in place of FILE adds each of
its files as the secret of that name; NAME=@PATH adds one file. A text file becomes a string, any
other file a binary secret. Together they replace everything that the broker holds. Values are never
given on the command line.

  JSON    {"TOKEN": "...", "aws": {"key_id": "...", "secret": "..."}}; also
          {"secrets": {...}, "secrets_b64": {...}}, with or without the
          protocol's "op", and {"secrets": {...}, "metadata": {...}}.
          Numbers, true and false are pushed as they are written
  dotenv  NAME=value lines. 'Single' quotes are literal; in "double" quotes,
          the escapes are \\n \\t \\r \\" \\\\ \\$. Quoted values may span several
          lines. Nothing is expanded. A value that bash, python-dotenv and
          node's dotenv would read differently is an error. NAME=@PATH reads
          a file below FILE's directory that FILE's owner can read

A pipe would hide a failure: (echo X=x; exit 1) | remo-brokerctl push replaces all secrets with X.
With --command, the operands are a command, and its output is pushed only if its exit status is 0:
remo-brokerctl push --command -- fnox export -f json

With --dry-run, the exit status is 1 if a project would lack a secret.""",
        ),
        Command("clear", "Remove all secrets", run="remo_broker.ctl.push:clear"),
        Command(
            "check",
            "Validate a manifest, without the broker",
            run="remo_broker.ctl.check:check",
            operands=[Operand("PATH", kind="file", optional=True)],
            options=[CREDENTIALS],
            details="""\
PATH is a project's directory or a manifest. Each error is one line: the file, the line, the key,
what is wrong, and what is allowed. The exit status is 1 if there are errors.

With --credentials, show which credentials the broker's configuration gives a unit, and whether the
unit would get each of them now. The exit status is 1 if it would not, or if no rule names the
unit.""",
        ),
        Command(
            "explain",
            "Explain whether a project would get a secret",
            run="remo_broker.ctl.explain:explain",
            operands=[PROJECT, Operand("NAME", kind="allowed", optional=True)],
            options=[UID, UNIT],
            details="""\
Nothing is fetched or audited. The exit status is 1 if the project would not get it. With --unit,
the only operand is the name of a credential:
remo-brokerctl explain --unit backup.service restic-password""",
        ),
        Command(
            "devcontainer",
            "Show how a container gets its project's secrets",
            run="remo_broker.ctl.devcontainer:devcontainer",
            operands=[Operand("PROJECT|DIR", kind="project", optional=True)],
            options=[DOCKER, PODMAN, COMPOSE, NSPAWN, WRITE, YES],
            details="""\
Prints the keys for devcontainer.json: the mounts of the project's socket directory and of its
manifest, the Feature that installs remo-secret, and a command that aborts the container's start if
the project is not served. The default is the project of the working directory.

With --write, puts the Feature's files below .devcontainer/remo-broker/ and merges the keys into
devcontainer.json, unless that has comments, which would be lost.""",
        ),
        Command(
            "audit",
            "Show which secrets were served and which requests were refused",
            run="remo_broker.ctl.audit:audit",
            options=[
                *(PROJECT_OPTION, RECORDS_OF_UNIT, SECRET_OPTION, WHO, DENIED, ALL_EVENTS, SINCE, UNTIL),
                *(FOLLOW, LINES, FULL, SUMMARY, BY, REPORT, VERIFY, MARK_NEW, NAMESPACE, DIRECTORY),
            ],
            details="""\
Shows only records of the broker's process: entries that others wrote with the same fields are
omitted. JSON is one object per entry. --since and --until refer to the time at which the journal
received an entry. The exit status is 1 if --verify finds that a record is missing.""",
        ),
        Command(
            "setup-journal",
            "Give the audit its own journal",
            run="remo_broker.ctl.setup_journal:setup_journal",
            options=[NOW, REMOVE],
            details="""\
In the default journal, any local user can delay audit records by keeping journald busy, and
displace them by filling the journal. This command creates a journal namespace remo-broker: a second
journald for the broker alone, whose socket accepts entries only from the broker's process.
'remo-brokerctl audit' reads both journals; 'journalctl --namespace=remo-broker' shows the new
one.""",
        ),
    ],
    epilog="""\
Exit status: 0 on success, 1 on failure, 2 on wrong usage; 'status --help' gives those of 'status'.""",
)
