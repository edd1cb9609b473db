"""`remo-brokerctl devcontainer`: what a container needs to reach its project's secrets.

It gets two mounts: the directory of the project's socket, which stays valid when the socket is
bound again, and the registered manifest, read-only over the project's own copy. If either is
missing on the host, the container does not start. Engines that would create a directory for a
missing source are told not to.

Engines follow links in a mount's source, as root. Code in the container could put a link in place
of the manifest's folder, and get any file of the host at the next start. So the folder is mounted
as well: nothing in the container can then rename or replace it. Not in devcontainer.json, which is
the project's own and can name any mount.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, require_text
from remo_broker.cli.real_path import real_path
from remo_broker.client.errors import ClientError
from remo_broker.ctl.commands import COMPOSE, DOCKER, NSPAWN, PODMAN, WRITE, YES
from remo_broker.ctl.devcontainer_write import FEATURE, write
from remo_broker.ctl.session import open_client, open_output
from remo_broker.manifest.constants import SEARCH
from remo_broker.protocol import paths
from remo_broker.protocol.names import is_project_name

# Where a container sees the directory of its project's socket, and where clients look for it.
INSIDE = paths.SOCKET_DIR
MOUNTS = f"{paths.SOCKET_DIR}/mount"
# Where dev containers mount the project.
WORKSPACES = "/workspaces"


class MountedProject:
    """A project as its containers see it. `directory` is on the host."""

    __slots__ = ("directory", "folder", "manifest", "name")

    def __init__(self, name: str, directory: str) -> None:
        self.name = name
        self.directory = directory
        place = next((place for place in SEARCH if os.path.lexists(os.path.join(directory, *place))), None)
        if place is None:
            places = ", ".join("/".join(place) for place in SEARCH)
            raise Problem(f"{directory}: no manifest", hint=f"write one of {places}")
        self.folder = place[0]
        self.manifest = "/".join(place)
        """The path of its manifest in the directory."""
        for path in (os.path.join(directory, self.folder), os.path.join(directory, self.manifest)):
            if os.path.islink(path):
                raise Problem(
                    f"{path}: a symlink, which the broker does not follow, but container engines do",
                    hint="put the directory or file itself there",
                )

    @property
    def sockets(self) -> str:
        return f"{MOUNTS}/{self.name}"


def devcontainer(arguments: Arguments) -> int:
    kinds = {DOCKER: docker, PODMAN: podman, COMPOSE: compose, NSPAWN: nspawn}
    chosen = [show for option, show in kinds.items() if arguments.flag(option)]
    if len(chosen) + arguments.flag(WRITE) > 1:
        raise Usage("--docker, --podman, --compose, --nspawn and --write cannot be combined")
    project = find(arguments)
    output = open_output(arguments)
    if arguments.flag(WRITE):
        return write(output, project.directory, settings(project), ask=not arguments.flag(YES))
    if chosen:
        try:
            project.directory.encode()
        except UnicodeEncodeError:
            raise Problem(f"{project.directory}: its path is not UTF-8", hint="move the project") from None
        text = chosen[0](project)
        if output.terminal:
            require_text(f"{project.directory}: its path", os.fsencode(text))
        output.line(text)
    elif output.json == "short":
        output.show_json(settings(project))
    else:
        output.json = "pretty"
        output.show_json(settings(project))
    return 0


def find(arguments: Arguments) -> MountedProject:
    """The project that the operand gives by name or directory; default: the working directory's."""
    given = arguments.operands[0] if arguments.operands else "."
    if is_project_name(given) and not os.path.isdir(given):
        with open_client(arguments) as client:
            return MountedProject(given, client.show(given).project_path)
    directory = real_path(given)
    if not os.path.isdir(directory):
        raise Problem(f"{directory}: no such directory", hint="give a project's name, or its directory")
    name = os.path.basename(directory)
    if not is_project_name(name):
        raise Problem(f"{directory}: not a valid name for a project", hint="give the name that it is registered by")
    holder = holder_of(name, arguments)
    if holder is not None and not _leads_to(holder, directory):
        raise Problem(
            f"{directory}: {name} is registered for {holder}, whose secrets the container would get",
            hint="register this one by another name with --name, then give that name",
        )
    return MountedProject(name, directory)


def _leads_to(path: str, directory: str) -> bool:
    try:
        return real_path(path) == directory
    except (OSError, ValueError):  # no path can have a zero byte or half of a surrogate pair
        return False


def holder_of(name: str, arguments: Arguments) -> str | None:
    """The directory that is registered under a name; None if none is, or this user may not ask."""
    try:
        with open_client(arguments) as client:
            return client.show(name).project_path
    except ClientError:
        return None


def settings(project: MountedProject) -> dict[str, Any]:
    """The keys for devcontainer.json."""
    if any(sign in project.directory for sign in ',"\n'):
        # Its tools put the path into --mount without quotes, for the workspace as well.
        raise Problem(
            f"{project.directory}: dev containers cannot mount a directory with a comma, quote or newline in its path",
            hint="move the project, or start the container with what --docker, --podman or --compose prints",
        )
    manifest = f"${{localWorkspaceFolder}}/{project.manifest}", f"${{containerWorkspaceFolder}}/{project.manifest}"
    # The host runs initializeCommand before anything is created. Every user can see this socket,
    # but only some can see the directory beside it.
    socket = paths.project_socket(paths.SOCKET_DIR, project.name)
    # The file may be committed, so it has no path of this host.
    advice = f'echo "remo-broker does not serve {project.name}; run: sudo remo-brokerctl register $0" >&2'
    return {
        "mounts": [_mount(project.sockets, INSIDE), _mount(*manifest)],
        "features": {FEATURE: {}},
        "initializeCommand": ["sh", "-c", f"test -S {socket} || {{ {advice}; exit 1; }}", "${localWorkspaceFolder}"],
    }


def _mount(source: str, target: str) -> str:
    """For --mount, which is a line of CSV."""
    return ",".join(_csv(part) for part in ("type=bind", f"source={source}", f"target={target}", "readonly"))


def _csv(field: str) -> str:
    if not any(sign in field for sign in ',"\n\r'):
        return field
    doubled = field.replace('"', '""')
    return f'"{doubled}"'


def mounts(project: MountedProject) -> list[tuple[str, str]]:
    """Host and container path of each mount, with the project itself below `WORKSPACES`."""
    inside = f"{WORKSPACES}/{project.name}"
    return [
        (project.sockets, INSIDE),
        *((f"{project.directory}/{path}", f"{inside}/{path}") for path in (project.manifest, project.folder)),
    ]


def docker(project: MountedProject) -> str:
    return _command("docker", project)


def podman(project: MountedProject) -> str:
    # Rootless, with crun 1.8 among others, it would drop the group remo-broker before it mounts.
    return _command("podman", project, "--group-add=keep-groups")


def _command(engine: str, project: MountedProject, *more: str) -> str:
    options = [f"--mount {shlex.quote(_mount(*both))}" for both in mounts(project)]
    return " \\\n    ".join([f"{engine} run", *options, *more, "IMAGE"])


def compose(project: MountedProject) -> str:
    lines = ["services:", "  SERVICE:", "    volumes:"]
    for source, target in mounts(project):
        lines += [
            "      - type: bind",
            f"        source: {_yaml(source)}",
            f"        target: {_yaml(target)}",
            "        read_only: true",
            "        bind:",
            "          create_host_path: false",
        ]
    return "\n".join(lines)


def _yaml(text: str) -> str:
    """A JSON string is also valid YAML, but for surrogate pairs; compose would expand $ as a variable."""
    import json

    written = json.dumps(text.replace("$", "$$"), ensure_ascii=False)
    return "".join(one if " " <= one <= "~" else f"\\U{ord(one):08x}" for one in written)


def nspawn(project: MountedProject) -> str:
    """For a .nspawn file: see systemd.nspawn(5). A backslash keeps a colon from ending a path.

    Whoever chose the path must not add lines of their own to root's file.
    """
    if any(sign in project.directory for sign in "\n\r"):
        raise Problem(
            f"{project.directory}: a .nspawn file has no way to write a line break in a path",
            hint="move the project, or start the container with what --docker, --podman or --compose prints",
        )
    escaped = [[part.replace("\\", "\\\\").replace(":", "\\:") for part in both] for both in mounts(project)]
    return "\n".join(["[Files]", *(f"BindReadOnly={source}:{target}" for source, target in escaped)])
