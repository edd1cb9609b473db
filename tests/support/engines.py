"""Containers on a test machine, started by the engines that people use: podman, systemd-nspawn and
bubblewrap.

Each container gets a project's socket directory at /run/remo-broker and runs as a user who is in no
group. Its image is one of `roots`, which no registry has.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import subprocess
import threading
import uuid
from typing import TYPE_CHECKING, Self

from tests.support import roots
from tests.support.machine import REPOSITORY, SOURCE, unavailable
from tests.support.user_session import IN_UNIT, USER

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.machine import Machine
    from tests.support.user_session import Session

# Who starts what runs without root: in the group that may mount a project's sockets.
DEVELOPER = "developer"
# Who runs in the container.
UID = 1000
RUN = "/run/remo-broker"
CLIENT = "/usr/bin/remo-secret"
ONE_FILE = "/usr/lib/remo-broker/remo-secret.pyz"
# Layers are overlays, whose upper directory cannot be on the machine's own disk, an overlay.
STORAGE = "/var/lib/containers"
USER_STORAGE = "/etc/containers/storage-of-user.conf"

SCRATCH, BUSYBOX, MINBASE, WITH_TOOLS = "scratch", "busybox", "debian", "debian-with-tools"
_ROOTS: dict[str, Callable[[], pathlib.Path]] = {
    BUSYBOX: roots.busybox,
    MINBASE: roots.minbase,
    WITH_TOOLS: roots.with_tools,
}
# Most of what would be copied, and of no use in a test.
_LEFT_OUT = (
    "dev/*",
    "var/cache",
    "var/lib/apt",
    "usr/lib/*/gconv",
    *(f"usr/share/{one}" for one in ("doc", "locale", "man", "perl", "perl5", "zoneinfo")),
)

# The machine has no control groups to give away, no keyrings, and no device for a network of a user.
_PODMAN = """\
[containers]
cgroups = "disabled"
keyring = false
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# As above, but with control groups, made by the user's systemd, which has no controllers.
_PODMAN_IN_SESSION = """\
[containers]
keyring = false
netns = "host"
pids_limit = 0
[engine]
cgroup_manager = "systemd"
events_logger = "file"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{layers}"
runroot = "{state}"
"""
_SESSION_CONF, _SESSION_STORAGE = "/etc/containers/session.conf", "/etc/containers/session-storage.conf"
# $1 is the user, $2 the storage, at its usual place.
_PREPARE_SESSION = """
mountpoint -q "$2" && exit
install -d -o "$1" -g "$1" "${2%/*/*}" "${2%/*}" "$2"
mount -t tmpfs -o "mode=0700,uid=$(id -u "$1"),gid=$(id -g "$1")" containers "$2"
"""
# podman makes control groups of its own for a user in v2 only, which is elsewhere if the host has
# v1 too.
_UNIFY = """
[ ! -d /sys/fs/cgroup/unified ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
mount --make-rshared /
exec "$@"
"""
_PREPARE = f"""
id {DEVELOPER} >/dev/null 2>&1 || useradd --create-home --groups remo-broker {DEVELOPER}
mountpoint -q {STORAGE} || {{ mkdir -p {STORAGE} && mount -t tmpfs -o mode=0755 containers {STORAGE}; }}
for directory in {STORAGE}/{DEVELOPER} /run/{DEVELOPER}; do
    install -d -m 0700 -o {DEVELOPER} -g {DEVELOPER} $directory
done
"""

# Generous: making the largest image takes five seconds on an idle machine with two cores.
COMMAND_SECONDS = 180


def run_in_scope(machine: Machine, unit: str, *argv: str) -> str:
    """As an engine starts a container; its standard output."""
    scope = ["systemd-run", "--scope", "--quiet", f"--unit={unit}", "-pDelegate=yes"]
    return machine.run([*IN_UNIT, *scope, *argv], timeout=COMMAND_SECONDS).stdout


def mounts(project: str) -> dict[str, str]:
    """A project's sockets, and both forms of the client, in a container."""
    return {f"{RUN}/mount/{project}": RUN, CLIENT: CLIENT, ONE_FILE: ONE_FILE}


class Engine:
    """One way to run containers on `machine`."""

    name: str
    program: str
    # Who starts containers; None is root.
    user: str | None = None

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        if not machine.path(f"/usr/bin/{self.program}").exists():
            unavailable(f"{self.program} is not installed here: ./run test installs it")
        machine.run(["sh", "-ec", _PREPARE])

    def argv(self, image: str, bound: Mapping[str, str], *command: str) -> list[str]:
        """The command line that runs `command` in a new container of `image`, attached to its own
        standard streams. `bound` maps directories and files of the machine to those in the
        container.
        """
        raise NotImplementedError

    def run(
        self, image: str, bound: Mapping[str, str], *command: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command in a container of its own."""
        argv = self.argv(image, bound, *command)
        return self.machine.run(argv, user=self.user, stdin=stdin, check=check, timeout=COMMAND_SECONDS)

    @contextlib.contextmanager
    def container(self, image: str, bound: Mapping[str, str]) -> Iterator[Container]:
        """A container that keeps running."""
        with Container(self.machine.popen(self.argv(image, bound, "sh"), user=self.user)) as container:
            yield container


class Podman(Engine):
    name = "podman"
    program = "podman"
    environment: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        machine.write("/etc/containers/containers.conf", _PODMAN)
        root = _STORAGE.format(layers=f"{STORAGE}/root", state="/run/containers")
        machine.write("/etc/containers/storage.conf", root)

    def argv(self, image: str, bound: Mapping[str, str], *command: str) -> list[str]:
        self.pull(image)
        volumes = [f"--volume={source}:{target}:ro" for source, target in bound.items()]
        options = ["--rm", "--interactive", f"--user={UID}", *self.options, *volumes]
        return [*self.environment, "podman", "run", *options, f"localhost/{image}", *command]

    def pull(self, image: str) -> None:
        """Make the image, as there is no registry."""
        exists = [*self.environment, "podman", "image", "exists", f"localhost/{image}"]
        if self.machine.run(exists, user=self.user, check=False).returncode == 0:
            return
        if image == SCRATCH:
            tar = ["tar", "-C", "/usr/bin", "-c", "remo-secret"]
        else:
            tar = ["tar", "-C", root_on_machine(image), *(f"--exclude=./{one}" for one in _LEFT_OUT), "-c", "."]
        # Some files of a root are for root only, so that it packs them for the importing user.
        with self.machine.popen(tar) as packer:
            argv = [*self.environment, "podman", "import", "--quiet", "-", f"localhost/{image}"]
            with self.machine.popen(argv, user=self.user, stdin=packer.stdout) as importer:
                _, errors = importer.communicate(timeout=COMMAND_SECONDS)
        assert importer.returncode == 0, errors


class RootlessPodman(Podman):
    name = "podman, rootless"
    user = DEVELOPER
    environment = (
        *("env", f"HOME=/home/{DEVELOPER}", f"USER={DEVELOPER}", f"XDG_RUNTIME_DIR=/run/{DEVELOPER}"),
        f"CONTAINERS_STORAGE_CONF={USER_STORAGE}",
    )
    # Else the runtime drops the group that may mount the sockets before it mounts them.
    options = ("--group-add=keep-groups",)

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        layers = f"{STORAGE}/{DEVELOPER}"
        user = _STORAGE.format(layers=layers, state=f"/run/{DEVELOPER}/containers")
        # Where a user's layers go: podman 4 heeds this, newer versions the other. Some warn of both,
        # and then take their own warning for an error.
        machine.write(USER_STORAGE, f'{user}rootless_storage_path = "{layers}"\n')
        asked = machine.run([*self.environment, "podman", "image", "exists", SCRATCH], user=self.user, check=False)
        if "rootless_storage_path" in asked.stderr:
            machine.write(USER_STORAGE, user)


class SessionPodman(Podman):
    """Rootless, started by a user who is logged in: the user's own systemd makes a scope for each
    container, as on a developer's host. Unlike the system's, that takes no controllers and no
    privilege that a test machine lacks.
    """

    name = "podman, in a user's session"
    options = RootlessPodman.options

    def __init__(self, machine: Machine, session: Session) -> None:
        super().__init__(machine)
        machine.write(_SESSION_CONF, _PODMAN_IN_SESSION)
        machine.write(_SESSION_STORAGE, '[storage]\ndriver = "overlay"\n')
        storage = f"/home/{USER}/.local/share/containers"
        machine.run(["sh", "-ec", _PREPARE_SESSION, "sh", USER, storage])
        settings = (f"CONTAINERS_CONF={_SESSION_CONF}", f"CONTAINERS_STORAGE_CONF={_SESSION_STORAGE}")
        self.environment = (*IN_UNIT, "unshare", "--mount", "sh", "-ec", _UNIFY, "sh", *session.become, *settings)


class Nspawn(Engine):
    name = "systemd-nspawn"
    program = "systemd-nspawn"
    options: tuple[str, ...] = ()

    def argv(self, image: str, bound: Mapping[str, str], *command: str) -> list[str]:
        # A unit of its own, as nspawn makes control groups.
        unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--property=Delegate=yes"]
        nspawn = ["systemd-nspawn", "--quiet", f"--directory={root_on_machine(image)}", "--volatile=overlay"]
        # A name of its own: two containers of one root would have the same.
        nspawn += ["--register=no", "--keep-unit", "--pipe", f"--machine=c{uuid.uuid4().hex[:8]}", *self.options]
        nspawn += [f"--bind-ro={source}:{target}" for source, target in bound.items()]
        drop = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return [*unit, *nspawn, *drop, *command]


class NspawnWithUsers(Nspawn):
    name = "systemd-nspawn, users mapped"
    options = ("--private-users=pick",)


class Bubblewrap(Engine):
    name = "bubblewrap"
    program = "bwrap"
    user = DEVELOPER

    def argv(self, image: str, bound: Mapping[str, str], *command: str) -> list[str]:
        # The machine's own root, with its client; bubblewrap has no images.
        argv = ["bwrap", "--unshare-all", "--share-net", "--die-with-parent", "--uid", str(UID), "--gid", str(UID)]
        argv += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/tmp"]
        for source, target in bound.items():
            if source != target:
                argv += ["--ro-bind", source, target]
        return [*argv, *command]


ENGINES = (Podman, RootlessPodman, Nspawn, NspawnWithUsers, Bubblewrap)


class Container:
    """A shell in a running container, driven through pipes: no engine has to enter it again."""

    def __init__(self, shell: subprocess.Popen[str]) -> None:
        self._shell = shell
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._shell.communicate(timeout=COMMAND_SECONDS)
        finally:
            self._shell.kill()

    def run(self, script: str) -> tuple[int, str]:
        """The exit status of a shell script and what it printed on both streams."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        end = f"--- done {next(self._numbers)}"
        self._shell.stdin.write(f"( {script}\n) </dev/null 2>&1; status=$?; echo; echo {shlex.quote(end)} $status\n")
        with contextlib.suppress(BrokenPipeError):  # its end, which is reported below
            self._shell.stdin.flush()
        printed = ""
        timer = threading.Timer(COMMAND_SECONDS, self._shell.kill)
        timer.start()
        try:
            for line in self._shell.stdout:
                if line.startswith(end):
                    return int(line.removeprefix(end)), printed.removesuffix("\n")
                printed += line
        finally:
            timer.cancel()
        raise RuntimeError(f"the container ended: {printed}{self._shell.stderr.read() if self._shell.stderr else ''}")


def root_on_machine(image: str) -> str:
    """Where the machine sees the root of an image."""
    return f"{SOURCE}/{_ROOTS[image]().relative_to(REPOSITORY)}"
