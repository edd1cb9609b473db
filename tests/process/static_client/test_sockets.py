"""Both forms of `remo-secret` with a socket that is missing, dead, closed to the user, another
user's, or must be found."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import NOBODY, listen
from tests.support.machine import unavailable
from tests.support.privileges import require_mounts
from tests.support.scripted_peer import NEXT, PONG, ScriptedPeer, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.process.static_client.conftest import Both

STRANGER = 12_345
# It exceeds an int.
HIGHEST = 4_294_967_294
# In addition to the option or variable that names the socket.
GET = ("get", "T")


# --- sockets ---------------------------------------------------------------------------------------------------------


def nothing(path: pathlib.Path) -> None:
    """No socket at all."""


def dead(path: pathlib.Path) -> None:
    listen(path).close()


def regular(path: pathlib.Path) -> None:
    path.write_text("x")


def folder(path: pathlib.Path) -> None:
    path.mkdir()


def fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def dangling(path: pathlib.Path) -> None:
    path.symlink_to("nowhere")


def loop(path: pathlib.Path) -> None:
    path.symlink_to(path.name)


def datagram(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(path))


@pytest.mark.parametrize("make", [nothing, dead, regular, folder, fifo, dangling, loop, datagram])
@pytest.mark.parametrize("command", [GET, ("list",), ("wait", "--timeout=0")])
def test_a_path_without_a_listener(both: Both, make: Callable[[pathlib.Path], None], command: Sequence[str]) -> None:
    path = both.directory / "p.sock"
    make(path)
    done = both.run("--socket", path, *command)
    assert done.returncode == 5
    assert str(path) in done.stderr.decode()


def test_a_socket_that_is_replaced_at_that_moment_is_waited_for(both: Both) -> None:
    """connect(2) found nothing; the broker has made the next socket since."""
    if shutil.which("strace") is None:
        unavailable("strace is not installed here: ./run test installs it")
    path = both.directory / "p.sock"
    through = ("strace", "-f", "-q", "-o", "/dev/null", "-e", "inject=connect:error=ENOENT")
    with listen(path):
        done = both.run("--socket", path, "wait", "--timeout=0", through=through)
    assert f"waited 0 s: {path} does not exist" in done.stderr.decode()


@pytest.mark.parametrize(
    "path",
    [
        "missing/p.sock",
        "missing/deeper/p.sock",
        "./p.sock",
        "missing/../p.sock",
        "a//b///p.sock",
        "file/p.sock",
        "x" * 80 + ".sock",
        "x" * 300 + ".sock",
        "name with a blank",
        "n\u00e4me.sock",
        "\x1b[31m.sock",
        "\udcff.sock",
        "\udced\udca0\udc80.sock",
        "x" * 5000,
        "-",
        "..",
        "/",
        "/nowhere/p.sock",
        "//nowhere/p.sock",
    ],
)
def test_a_path_with_a_missing_directory(both: Both, path: str) -> None:
    (both.directory / "file").write_text("")
    assert both.run("--socket", path, *GET).returncode == 5
    assert both.run("list", env={"REMO_BROKER_SOCKET": path}).returncode == 5


@pytest.mark.parametrize("length", [107, 108])
def test_the_longest_path(both: Both, length: int) -> None:
    path = str(both.directory) + "/"
    path += "x" * (length - len(path))
    done = both.run("--socket", path, *GET)
    assert ("longer than 107 bytes" in done.stderr.decode()) == (length > 107)


@pytest.mark.parametrize("name", ["admin.sock", "status.sock", "credentials.sock"])
def test_a_socket_of_the_host_is_refused(both: Both, name: str) -> None:
    for done in (both.run("--socket", f"/x/{name}", *GET), both.run(*GET, env={"REMO_BROKER_SOCKET": name})):
        assert done.returncode == 1


def test_a_refused_user_learns_the_owner(both: Both) -> None:
    if os.geteuid() != 0:
        unavailable("another user takes root")
    path = both.directory / "p.sock"
    with listen(path):
        path.chmod(0o660)
        assert "mode 0660, root:root" in both.run("--socket", path, *GET, uid=NOBODY).stderr.decode()
        assert both.run("--socket", path, "wait", "--timeout=0", uid=NOBODY).returncode == 5
        os.chown(path, STRANGER, STRANGER)
        assert f"{STRANGER}:{STRANGER}" in both.run("--socket", path, *GET, uid=NOBODY).stderr.decode()
    shut = both.directory / "shut"
    shut.mkdir(0o700)
    assert f"{shut} is mode 0700" in both.run("--socket", shut / "p.sock", *GET, uid=NOBODY).stderr.decode()
    assert both.run("--socket", shut / "deep/p.sock", *GET, uid=NOBODY).returncode == 5


@contextlib.contextmanager
def listener_of(uid: int, path: pathlib.Path) -> Iterator[None]:
    """A process of another user that listens and sends nothing."""
    code = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nprint(flush=True)\n"
    code += "while True:\n c = s.accept()[0]\n if c.recv(9999): c.sendall(sys.argv[2].encode())\n"
    path.parent.mkdir(exist_ok=True)
    os.chown(path.parent, uid, uid)
    reply = (PONG + value("s3cret")).decode()
    argv = [sys.executable, "-I", "-S", "-c", code, str(path), reply]
    with subprocess.Popen(argv, user=uid, group=uid, extra_groups=[], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        path.chmod(0o777)
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("uid", [STRANGER, HIGHEST])
def test_a_listener_that_is_not_the_broker_is_sent_nothing(both: Both, uid: int) -> None:
    if os.geteuid() != 0:
        unavailable("a listener of another user takes root")
    path = both.directory / "theirs/p.sock"
    with listener_of(uid, path):
        done = both.run("--socket", path, *GET)
        assert (done.returncode, done.stdout) == (5, b"")
        assert f"REMO_BROKER_UID={uid}" in done.stderr.decode()
        assert both.run("--socket", path, "wait", "--timeout=5").returncode == 5
        assert both.run("--socket", path, *GET, env={"REMO_BROKER_UID": str(uid)}).stdout == b"s3cret"
        assert both.run("--socket", path, *GET, env={"REMO_BROKER_UID": "1"}).returncode == 5
        assert both.run("--socket", path, *GET, uid=uid).stdout == b"s3cret"


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_owner_is_found_on_the_last_line_of_passwd(both: Both, end: str) -> None:
    """A line added by hand or by an image's recipe may lack its newline."""
    if os.geteuid() != 0:
        unavailable("a socket of another user takes root")
    (both.directory / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nwe:x:{STRANGER}:{STRANGER}::/:/bin/sh{end}")
    path = both.directory / "p.sock"
    dead(path)
    os.chown(path, STRANGER, STRANGER)
    through = _in_namespace(f"mount --bind {both.directory}/passwd /etc/passwd")
    assert f", we:{STRANGER})" in both.run("--socket", path, *GET, through=through).stderr.decode()


def test_a_system_user_may_be_the_broker_of_another_host(both: Both) -> None:
    if os.geteuid() != 0:
        unavailable("a listener of another user takes root")
    path = both.directory / "theirs/p.sock"
    with listener_of(999, path):
        assert both.run("--socket", path, *GET).returncode in (
            0,
            5,
        )  # depends on whether this host has the broker's user


# --- finding the socket ----------------------------------------------------------------------------------------------


def test_the_order_of_option_and_variables(both: Both) -> None:
    names = ("option", "first", "second")
    with contextlib.ExitStack() as stack:
        for name in names:
            peer = ScriptedPeer(both.directory / f"{name}.sock", [NEXT, PONG, value(name)])
            stack.enter_context(peer)
        option, first, second = (str(both.directory / f"{name}.sock") for name in names)
        env = {"REMO_BROKER_SOCKET": first, "REMO_BROKER_PROJECT_SOCKET": second}
        assert both.run("--socket", option, *GET, env=env).stdout == b"option"
        assert both.run(*GET, env=env).stdout == b"first"
        assert both.run(*GET, env=env | {"REMO_BROKER_SOCKET": ""}).stdout == b"second"


@pytest.mark.parametrize(
    ("names", "finds"),
    [
        ([], None),
        (["a.sock"], "a.sock"),
        (["broker.sock"], "broker.sock"),
        (["broker.sock", "a.sock", "b.sock"], "broker.sock"),
        (["a.sock", "b.sock"], None),
        (["a.sock", "admin.sock", "status.sock", "credentials.sock"], "a.sock"),
        (["a.sock", "note.txt", "sock", ".sock", "B.sock", "-x.sock", "a b.sock"], "a.sock"),
        (["x" * 64 + ".sock", "y" * 65 + ".sock"], "x" * 64 + ".sock"),
        ([f"p{number:02}.sock" for number in range(25)], None),
        ([f"p{number:02}.sock" for number in reversed(range(20))], None),
    ],
)
def test_both_find_the_same_socket(both: Both, names: list[str], finds: str | None) -> None:
    through = in_run_directory(both.directory, names)
    done = both.run("list", through=through)
    assert done.returncode == 5
    if finds is not None:
        assert f"/run/remo-broker/{finds}: nothing listens" in done.stderr.decode()
    assert both.run("wait", "--timeout=0", through=through).returncode == 5


@pytest.mark.parametrize("command", [GET, ("list",)])
def test_a_mounted_socket_that_was_replaced_on_the_host(both: Both, command: Sequence[str]) -> None:
    """Its inode has no link left: the container must be restarted, and no project registered."""
    path, mounted = both.directory / "p.sock", both.directory / "mounted"
    mounted.touch()
    make = f"import socket; socket.socket(socket.AF_UNIX).bind('{path}')"
    through = _in_namespace(f'{shlex.quote(sys.executable)} -c "{make}" && mount --bind {path} {mounted} && rm {path}')
    done = both.run("--socket", mounted, *command, through=through)
    assert done.returncode == 5
    error, hint = done.stderr.decode().splitlines()
    assert f"{mounted} was replaced" in error
    assert "restart this container" in hint
    assert "register" not in hint


def test_no_run_directory(both: Both) -> None:
    done = both.run("list", through=_in_namespace("mount -t tmpfs none /run"))
    assert "/run/remo-broker does not exist" in done.stderr.decode()


def test_a_run_directory_without_permission(both: Both) -> None:
    wrapper = _in_namespace("mount -t tmpfs none /run && mkdir -m 0711 /run/remo-broker")
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = both.run("list", through=[*wrapper, *drop])
    assert "mode 0711" in done.stderr.decode()


def in_run_directory(directory: pathlib.Path, names: Sequence[str]) -> list[str]:
    """A wrapper that gives a command a /run/remo-broker with dead sockets of these names."""
    source = directory / "run"
    source.mkdir()
    for name in names:
        listen(source / name).close()
    return _in_namespace(
        f"mount -t tmpfs none /run && mkdir /run/remo-broker && mount --bind {source} /run/remo-broker"
    )


def _in_namespace(script: str) -> list[str]:
    require_mounts()
    return ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh"]
