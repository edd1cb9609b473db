"""The command line of `remo-secret` as a table, and its exit statuses."""

from __future__ import annotations

from remo_broker.cli.options import HELP, VERSION, Command, Operand, Option, Program

EXIT_DENIED = 3
EXIT_NOT_FOUND = 4
EXIT_UNREACHABLE = 5
EXIT_RATE_LIMITED = 6
# The same as a shell's.
EXIT_NOT_EXECUTABLE = 126
EXIT_NO_SUCH_PROGRAM = 127

DEFAULT_WAIT_SECONDS = 15
LONGEST_WAIT_SECONDS = 86_400
# As long as docker waits before SIGKILL.
DEFAULT_GRACE_SECONDS = 10

SOCKET = Option(
    "--socket",
    value="PATH",
    kind="file",
    help="The project's socket; the default is $REMO_BROKER_SOCKET, $REMO_BROKER_PROJECT_SOCKET, "
    "/run/remo-broker/broker.sock or the only socket in /run/remo-broker, whichever comes first",
)
FIELD = Option("-f", "--field", value="FIELD", help="Only this field of a bundle")
ONLY = Option(
    "--only",
    value="NAME,...",
    kind="secret",
    empty=True,
    help="Only these secrets; separate several with commas, or repeat the option",
)
MANIFEST = Option(
    "--manifest",
    value="PATH",
    kind="file",
    help="Fail unless this manifest, or the one of this directory, is the registered one",
)
TIMEOUT = Option("--timeout", value="SECONDS", help=f"How long to wait; {DEFAULT_WAIT_SECONDS} by default")
WAIT = Option(
    "--wait",
    value="SECONDS",
    bare=str(DEFAULT_WAIT_SECONDS),
    help=f"First wait until the broker is running and has secrets, {DEFAULT_WAIT_SECONDS} s by default; 0: do not wait",
)
HOST = Option("--host", value="HOST", help="A host as git names it, with its port if the URL has one; needs --secret")
SECRET = Option("--secret", value="NAME", kind="secret", help="The secret for the --host before it")
USERNAME = Option("--username", value="NAME", help="The user name, if neither git nor the secret has one")
WATCH = Option("--watch", help="Keep running; when a secret changes, restart the command or rewrite the files")
SIGNAL = Option("--signal", value="SIGNAL", help="With --watch: send this signal at a change; SIGTERM by default")
GRACE = Option(
    "--grace",
    value="SECONDS",
    help=f"With --watch: how long the command may take to end before SIGKILL; {DEFAULT_GRACE_SECONDS} by default",
)
KEEP = Option("--keep", help="With --watch: send only the signal, and keep the command running")
FORMAT = Option("--format", value="FORMAT", choices=("dotenv", "shell", "json"), help="The format; dotenv by default")
MODE = Option(
    "--mode", value="MODE", choices=("password", "creds"), help="Print the password, or user name and password"
)
OUTPUT = Option("--output", value="OUTPUT", choices=("plain", "json"), help="Print lines, or JSON")
DRY_RUN = Option("-n", "--dry-run", help="Only show the changes")
REMOVE_FILES = Option("--remove", help="Remove the files of an earlier render or exec, and the links to them")
REVERT = Option("--remove", help="Revert the changes")

NAME = Operand("NAME", kind="secret")

PROGRAM = Program(
    "remo-secret",
    "Fetch this project's secrets from remo-broker.",
    options=[SOCKET, HELP, VERSION],
    commands=[
        Command(
            "get",
            "Write a secret to standard output",
            run="remo_broker.secret.get:get",
            operands=[NAME],
            options=[FIELD, WAIT],
            details="""\
Writes exactly the bytes that were pushed; on a terminal, adds a newline. A bundle is written as
JSON. A binary secret, or one with control characters, is not written to a terminal.""",
        ),
        Command("list", "List the names that the project may fetch", run="remo_broker.secret.get:list_names"),
        Command(
            "exec",
            "Run a command with the project's secrets",
            run="remo_broker.secret.execute:execute",
            operands=[Operand("COMMAND", kind="command", rest=True)],
            options=[ONLY, MANIFEST, WAIT, WATCH, SIGNAL, GRACE, KEEP],
            details=f"""\
The bindings of the registered manifest say where each secret goes: into environment variables, or
into a file on a tmpfs with a link to it at file_path. A secret without a binding goes into the
variable of its name in upper case. The bindings are the same in every directory; an edited manifest
takes effect once an operator has reloaded it.

The command replaces remo-secret: it receives signals directly, and its exit status is the one
returned. It is started only if every secret that is not optional is available; otherwise no new
files are left behind. The files remain when it ends: see 'render --remove'. Waits up to
{DEFAULT_WAIT_SECONDS} seconds if the broker has no secrets yet.

With --watch, remo-secret stays as the command's parent, and restarts it when a secret that it uses
changes.""",
        ),
        Command(
            "render",
            "Write only the files of the manifest's bindings",
            run="remo_broker.secret.execute:render",
            options=[ONLY, MANIFEST, WAIT, WATCH, REMOVE_FILES],
            details="""\
Writes either all files or none, and prints the path of each. --remove needs no broker; the project
is that of the manifest in this directory or above, or the only one that has files.""",
        ),
        Command(
            "wait",
            "Wait until the broker has secrets",
            run="remo_broker.secret.wait:wait",
            options=[TIMEOUT],
            details="""\
Also waits while the socket does not exist, nothing listens on it or there is no reply. Fails at
once if permission is denied or if there are several sockets. With SECONDS 0, tries once.""",
        ),
        Command(
            "check",
            "Show which secrets could be fetched, without fetching them",
            run="remo_broker.secret.check:check",
            operands=[Operand("NAME", kind="secret", optional=True, many=True)],
            options=[WAIT],
            details="""\
Prints present, absent, denied or expired for each NAME, by default for each name of the manifest.
No value is fetched, and nothing is recorded in the audit. The exit status is 0 if all secrets that
are not optional are present.""",
        ),
        Command(
            "env",
            "Print the variables that 'exec' would set",
            run="remo_broker.secret.env:env",
            options=[FORMAT, ONLY, MANIFEST, WAIT],
            details="""\
For direnv and compose files. The output contains the secrets: do not write it to disk.""",
        ),
        Command(
            "setup",
            "Configure tools to fetch credentials when they need them",
            run="remo_broker.secret.setup:setup",
            operands=[Operand("TOOL", optional=True, many=True)],
            options=[DRY_RUN, REVERT],
            details="""\
TOOL is git, aws, docker, pip, uv, npm, cargo or kubectl; by default those that are installed.
TOOL=NAME names the secret for aws, npm, cargo and kubectl. Shows each change to a file, then makes
it; can be run again. The changes contain no secrets. See remo-secret-tools(7).""",
        ),
        Command(
            "doctor",
            "Find what bypasses the broker in this container",
            run="remo_broker.secret.doctor:doctor",
            details="""\
Looks for tokens in well-known dot files, a forwarded SSH agent, other credential helpers of git and
docker, and problems with the socket, the manifest, the clock and this client. Prints each finding
with the next step and without values. The exit status is 1 if there are findings.""",
        ),
        Command(
            "aws-credentials",
            "Act as credential_process of the AWS CLI and SDKs",
            run="remo_broker.secret.aws:aws_credentials",
            operands=[NAME],
            options=[WAIT],
            details="NAME is a bundle with aws_access_key_id, aws_secret_access_key and, if needed, aws_session_token.",
        ),
        Command(
            "docker-credential",
            "Act as credential helper of docker and podman",
            run="remo_broker.secret.docker:docker_credential",
            operands=[Operand("OPERATION", choices=("get", "list", "version", "store", "erase"), others=True)],
            options=[WAIT],
            details="""\
docker runs it as docker-credential-remo: 'setup docker' adds a script of that name.""",
        ),
        Command(
            "keyring",
            "Act as the keyring program that pip and uv run",
            run="remo_broker.secret.keyring:keyring",
            operands=[Operand("OPERATION", choices=("get",), others=True), Operand("URL", optional=True, many=True)],
            options=[MODE, OUTPUT, WAIT],
            details="""\
'get URL [USER]' prints the password. pip and uv run it as keyring: 'setup pip' adds a script of that name.""",
        ),
        Command(
            "kubernetes",
            "Act as credential plugin of kubectl",
            run="remo_broker.secret.kubernetes:kubernetes",
            operands=[NAME],
            options=[WAIT],
            details="NAME is a token, or a bundle with the fields token, or certificate and key.",
        ),
        Command(
            "git-credential",
            "Act as git's credential helper",
            run="remo_broker.secret.git:git_credential",
            operands=[Operand("OPERATION", choices=("get", "store", "erase"), others=True)],
            options=[HOST, SECRET, USERNAME, WAIT],
            details=f"""\
  git config --global credential.helper ''
  git config --global --add credential.helper '!remo-secret git-credential'

The first line resets the list of helpers: git offers a password that worked to every helper in the
list, and another one might write it to a file.

Answers for https only. The secret for a host is the one that [hosts] in the manifest names,
otherwise the first of these that the project may fetch:
  github.com           GITHUB_TOKEN, GH_TOKEN
  gist.github.com      GITHUB_TOKEN, GH_TOKEN
  gitlab.com           GITLAB_TOKEN
  bitbucket.org        BITBUCKET_TOKEN
  codeberg.org         CODEBERG_TOKEN
  dev.azure.com        AZURE_DEVOPS_TOKEN
With --host and --secret, which can be repeated, it answers for these hosts only. From a bundle, it
uses the fields username and password. For other hosts it prints nothing, and git asks its next
helper. Waits up to {DEFAULT_WAIT_SECONDS} seconds if the broker has no secrets yet. Operations other than 'get' are
ignored.""",
        ),
    ],
    epilog=f"""\
Exit status:
  0    success
  1    any other failure
  2    wrong usage
  {EXIT_DENIED}    denied: not in the manifest, project not registered, or user not allowed
  {EXIT_NOT_FOUND}    the broker does not hold the secret, or has no secrets yet
  {EXIT_UNREACHABLE}    the broker cannot be reached
  {EXIT_RATE_LIMITED}    the project exceeded its rate limit
  {EXIT_NOT_EXECUTABLE}  exec: the command cannot be executed
  {EXIT_NO_SUCH_PROGRAM}  exec: the command was not found
Any other status of 'exec' is that of the command.""",
)
