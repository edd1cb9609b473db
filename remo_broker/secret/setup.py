"""`remo-secret setup`: configure tools to fetch credentials with a helper, and undo that.

These files contain no secrets. `setup` puts a comment before each line that it adds, by which
`--remove` finds it.
"""

from __future__ import annotations

import difflib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.client.errors import ClientError
from remo_broker.secret.commands import DRY_RUN, REMOVE
from remo_broker.secret.config_lines import MARK, AlreadySet, add_line, remove_lines
from remo_broker.secret.get import write_lines
from remo_broker.secret.hosts import REGISTRIES, secret_for
from remo_broker.secret.locate import open_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GIT_HELPER = "!remo-secret git-credential"
# The default secret of tools that take one by name; TOOL=NAME overrides it.
DEFAULT_SECRETS = {"aws": "aws", "cargo": "CARGO_REGISTRY_TOKEN", "kubectl": "KUBE_TOKEN", "npm": "NPM_TOKEN"}
KUBERNETES_API = "client.authentication.k8s.io/v1"


class ConfigChange:
    """A file and its new text; None removes the file."""

    def __init__(self, path: str, after: str | None) -> None:
        self.path = path
        self.after = after
        self.before = read(path)


def setup(arguments: Arguments) -> int:
    """Show each change, then make it."""
    wanted = [word.partition("=")[::2] for word in arguments.operands] or [(tool, "") for tool in _installed()]
    for tool, _ in wanted:
        if tool not in TOOLS:
            raise Usage(f"unknown tool: {tool!r}; known are {', '.join(TOOLS)}")
    for tool, name in wanted:
        try:
            changes = TOOLS[tool](name or DEFAULT_SECRETS.get(tool, ""), arguments.flag(REMOVE))
        except AlreadySet as error:
            raise Problem(
                f"{tool}: {error.path} already sets {error.key}", hint="remove that setting, then run this again"
            ) from None
        for change in changes:
            if change.before == (change.after or ""):
                continue
            show(change)
            if not arguments.flag(DRY_RUN):
                write(change)
        _add_program(tool, arguments)
    return 0


def show(change: ConfigChange) -> None:
    before, after = change.before.splitlines(), (change.after or "").splitlines()
    write_lines(list(difflib.unified_diff(before, after, change.path, change.path, lineterm="")))


def write(change: ConfigChange) -> None:
    """Replace the file atomically; keep its mode. Follows symlinks, as dot files often are."""
    path = os.path.realpath(change.path)
    if not change.after:
        if os.path.exists(path):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o600
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(change.after)
        os.fchmod(descriptor, mode)
    os.rename(temporary, path)


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _home(*parts: str) -> str:
    return os.path.join(os.path.expanduser("~"), *parts)


def _config(*parts: str) -> str:
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or _home(".config"), *parts)


def _installed() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool)]


def _lines(path: str, remove: bool, *lines: tuple[str | None, str]) -> list[ConfigChange]:
    """Add lines to sections of a file; with `remove`, remove the added ones."""
    text = remove_lines(read(path))
    if not remove:
        for section, line in lines:
            text = add_line(path, text, section, line)
    return [ConfigChange(path, text)]


def _git(_name: str, remove: bool) -> list[ConfigChange]:
    """Edit a copy with `git config`: the file may have any form."""
    path = os.environ.get("GIT_CONFIG_GLOBAL") or _home(".gitconfig")
    if not os.path.exists(path) and os.path.exists(_config("git", "config")):
        path = _config("git", "config")
    with tempfile.NamedTemporaryFile("w+", suffix=".gitconfig", errors="surrogateescape") as copy:
        copy.write(read(path))
        copy.flush()

        def edit(*words: str) -> bool:
            argv = ["git", "config", "--file", copy.name, *words]
            return subprocess.run(argv, capture_output=True, check=False).returncode == 0

        if edit("--get-all", "credential.helper", "^!remo-secret git-credential$"):
            edit("--unset-all", "credential.helper", "^!remo-secret git-credential$")
            edit("--unset", "credential.helper", "^$")
        if not remove:
            # The empty value resets the list: git then hands no other helper the password to store.
            if not (edit("--add", "credential.helper", "") and edit("--add", "credential.helper", GIT_HELPER)):
                raise Problem("git: 'git config' failed", hint=f"check {path}, and that git is installed")
        elif not subprocess.run(
            ["git", "config", "--file", copy.name, "--list"], capture_output=True, check=False
        ).stdout:
            return [ConfigChange(path, "")]
        return [ConfigChange(path, read(copy.name))]


def _aws(name: str, remove: bool) -> list[ConfigChange]:
    path = os.environ.get("AWS_CONFIG_FILE") or _home(".aws", "config")
    return _lines(path, remove, ("default", f"credential_process = remo-secret aws-credentials {name}"))


def _docker(_name: str, remove: bool) -> list[ConfigChange]:
    path = os.path.join(os.environ.get("DOCKER_CONFIG") or _home(".docker"), "config.json")
    try:
        settings = json.loads(read(path) or "{}")
        helpers = {host: helper for host, helper in settings.get("credHelpers", {}).items() if helper != "remo"}
    except (ValueError, AttributeError):
        raise Problem(f"docker: {path} is not JSON as docker writes it", hint="correct it first") from None
    if not remove:
        for host in _registries():
            if host in helpers:
                raise AlreadySet(path, f"credHelpers for {host}")
            helpers[host] = "remo"
    settings["credHelpers"] = helpers
    if not helpers:
        del settings["credHelpers"]
    return [ConfigChange(path, json.dumps(settings, indent="\t") + "\n" if settings else "")]


def _registries() -> list[str]:
    """The registries that this project has secrets for; without a broker, the well-known ones."""
    from remo_broker.cli.options import Arguments as NoArguments

    try:
        with open_client(NoArguments()) as client:
            info = client.info()
    except (ClientError, Problem):
        return list(REGISTRIES)
    known = [host for host in REGISTRIES if secret_for(host, info, REGISTRIES)]
    return [*known, *(host for host in info.hosts or {} if host not in known)]


def _pip(_name: str, remove: bool) -> list[ConfigChange]:
    path = os.environ.get("PIP_CONFIG_FILE") or _config("pip", "pip.conf")
    return _lines(path, remove, ("global", "keyring-provider = subprocess"))


def _uv(_name: str, remove: bool) -> list[ConfigChange]:
    return _lines(_config("uv", "uv.toml"), remove, (None, 'keyring-provider = "subprocess"'))


def _npm(name: str, remove: bool) -> list[ConfigChange]:
    path = os.environ.get("NPM_CONFIG_USERCONFIG") or _home(".npmrc")
    return _lines(path, remove, (None, f"//registry.npmjs.org/:_authToken=${{{name}}}"))


def _cargo(name: str, remove: bool) -> list[ConfigChange]:
    path = os.path.join(os.environ.get("CARGO_HOME") or _home(".cargo"), "config.toml")
    line = f'global-credential-providers = ["cargo:token-from-stdout remo-secret get {name}"]'
    return _lines(path, remove, ("registry", line))


def _kubectl(name: str, remove: bool) -> list[ConfigChange]:
    """Edit a copy with `kubectl config`."""
    path = (os.environ.get("KUBECONFIG") or _home(".kube", "config")).partition(os.pathsep)[0]
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, "config")
        with open(copy, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(read(path))
        words = ["config", "--kubeconfig", copy]
        if remove:
            words += ["delete-user", "remo"]
        else:
            words += ["set-credentials", "remo", "--exec-command=remo-secret", f"--exec-api-version={KUBERNETES_API}"]
            words += ["--exec-arg=kubernetes", f"--exec-arg={name}", "--exec-interactive-mode=Never"]
        try:
            done = subprocess.run(["kubectl", *words], capture_output=True, check=False)
        except OSError:
            raise Problem("kubectl is not installed", hint="see remo-secret-tools(7) for the lines to add") from None
        if done.returncode and not remove:
            raise Problem("kubectl: 'kubectl config set-credentials' failed", hint=f"check {path}")
        return [ConfigChange(path, read(copy))]


TOOLS: dict[str, Callable[[str, bool], list[ConfigChange]]] = {
    "git": _git,
    "aws": _aws,
    "docker": _docker,
    "pip": _pip,
    "uv": _uv,
    "npm": _npm,
    "cargo": _cargo,
    "kubectl": _kubectl,
}
# The programs that tools look for in PATH, and the command that each runs.
PROGRAMS = {
    "docker": ("docker-credential-remo", "docker-credential"),
    "pip": ("keyring", "keyring"),
    "uv": ("keyring", "keyring"),
}


def _add_program(tool: str, arguments: Arguments) -> None:
    """Add a script to ~/.local/bin that runs this program's command. A link would lose its name."""
    if tool not in PROGRAMS:
        return
    name, command = PROGRAMS[tool]
    path, found = _home(".local", "bin", name), shutil.which(name)
    ours = MARK in read(path).splitlines()
    if arguments.flag(REMOVE):
        if ours and not arguments.flag(DRY_RUN):
            os.unlink(path)
        return
    if found and MARK not in read(found).splitlines():
        raise Problem(f"{tool}: {found} is another program", hint="remove it, so that remo-secret takes its place")
    program = shlex.quote(shutil.which("remo-secret") or os.path.realpath(sys.argv[0]))
    change = ConfigChange(path, f'#!/bin/sh\n{MARK}\nexec {program} {command} "$@"\n')
    if change.before == change.after:
        return
    show(change)
    if arguments.flag(DRY_RUN):
        return
    write(change)
    os.chmod(path, 0o755)  # noqa: S103 - a program
    if os.path.dirname(path) not in os.environ.get("PATH", "").split(os.pathsep):
        write_lines([f"add {os.path.dirname(path)} to the PATH: {tool} looks for {name} there"])
