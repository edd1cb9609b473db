"""The command line of `remo-secret`, as a table."""

from __future__ import annotations

from remo_broker.cli.options import HELP, VERSION, Command, Operand, Option, Program

EXIT_DENIED = 3
EXIT_NOT_FOUND = 4
EXIT_UNREACHABLE = 5
EXIT_RATE_LIMITED = 6
# As a shell has them.
EXIT_NOT_EXECUTABLE = 126
EXIT_NO_SUCH_PROGRAM = 127

DEFAULT_WAIT_SECONDS = 15
LONGEST_WAIT_SECONDS = 86_400

SOCKET = Option(
    "--socket",
    value="PATH",
    kind="file",
    help="The project's socket; else $REMO_BROKER_SOCKET, else the only one below /run/remo-broker",
)
FIELD = Option("-f", "--field", value="FIELD", help="Only this field of a bundle")
ONLY = Option(
    "--only",
    value="NAME,...",
    kind="secret",
    empty=True,
    help="Only these secrets, with commas or given several times",
)
MANIFEST = Option(
    "--manifest",
    value="PATH",
    kind="file",
    help="The manifest, or the project's directory; else it is looked for from the working directory upwards",
)
TIMEOUT = Option("--timeout", value="SECONDS", help=f"How long to wait; {DEFAULT_WAIT_SECONDS} by default")
HOST = Option("--host", value="HOST", help="With --secret: the host, as git names it, that the secret is for")
SECRET = Option("--secret", value="NAME", kind="secret", help="With --host: the secret that this host gets")
USERNAME = Option("--username", value="NAME", help="The user name, where neither git nor a bundle has one")
REMOVE = Option("--remove", help="Remove what an earlier render or exec has written, and the links to it")

NAME = Operand("NAME", kind="secret")

PROGRAM = Program(
    "remo-secret",
    "Fetch the secrets that this project may have from remo-broker.",
    options=[SOCKET, HELP, VERSION],
    commands=[
        Command(
            "get",
            "Write a secret to standard output",
            run="remo_broker.secret.get:get",
            operands=[NAME],
            options=[FIELD],
            details="""\
The bytes are those that were pushed; a newline is added on a terminal only. A bundle is written as JSON, a binary
secret as it is, but not to a terminal.""",
        ),
        Command("list", "List the names that may be fetched", run="remo_broker.secret.get:list_names"),
        Command(
            "exec",
            "Run a command with the project's secrets",
            run="remo_broker.secret.execute:execute",
            operands=[Operand("COMMAND", kind="command", rest=True)],
            options=[ONLY, MANIFEST],
            details="""\
The manifest's bindings say where each secret goes: into an environment variable, or into a file on a tmpfs with a link
to it at file_path. Without a manifest, each allowed secret goes into the variable of its name in upper case.
The command takes the place of remo-secret: signals and the exit status are its own. It is not started unless every
secret is there, and nothing new is left if it cannot be. The files stay when it ends: see 'render --remove'.""",
        ),
        Command(
            "render",
            "Write the manifest's files only",
            run="remo_broker.secret.execute:render",
            options=[ONLY, MANIFEST, REMOVE],
            details="""\
All are written, or none. Prints the path of each file. --remove needs no broker; the project is that of the manifest, or
the only one that has files.""",
        ),
        Command(
            "wait",
            "Wait until the broker has secrets",
            run="remo_broker.secret.wait:wait",
            options=[TIMEOUT],
            details="""\
A socket that is not there yet, that nobody listens on or that nobody answers on is waited for too. That you are not
allowed to use it, or that there are several, is told at once. With SECONDS 0 it asks once.""",
        ),
        Command(
            "git-credential",
            "Be git's credential helper",
            run="remo_broker.secret.git:git_credential",
            operands=[Operand("OPERATION", choices=("get", "store", "erase"), others=True)],
            options=[HOST, SECRET, USERNAME],
            details="""\
  git config --global credential.helper '!remo-secret git-credential'

Answers for https only, from the first of these that the project may fetch:
  github.com           GITHUB_TOKEN, GH_TOKEN
  gist.github.com      GITHUB_TOKEN, GH_TOKEN
  gitlab.com           GITLAB_TOKEN
  bitbucket.org        BITBUCKET_TOKEN
  codeberg.org         CODEBERG_TOKEN
  dev.azure.com        AZURE_DEVOPS_TOKEN
  HOST                 what --host HOST --secret NAME says
A bundle gives its fields username and password. For other hosts nothing is answered, and git asks elsewhere. Every
OPERATION but `get` is ignored, as git wants it.""",
        ),
    ],
    epilog=f"""\
Exit status:
  0    success
  1    any other failure
  2    wrong usage
  {EXIT_DENIED}    denied: not in the manifest, no project registered, or not for this user
  {EXIT_NOT_FOUND}    the broker does not hold the secret, or any yet
  {EXIT_UNREACHABLE}    the broker cannot be reached
  {EXIT_RATE_LIMITED}    more requests than the project may make
  {EXIT_NOT_EXECUTABLE}  exec: the command cannot be run
  {EXIT_NO_SUCH_PROGRAM}  exec: there is no such command
From 'exec' any other status is the command's own.""",
)
