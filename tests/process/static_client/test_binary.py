"""Properties of the static program's file and process: small, hardened, without a heap, and not
traceable."""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from remo_broker.build import static_client
from tests.support import programs
from tests.support.broker import NOBODY
from tests.support.host_memory import require_mlock
from tests.support.machine import poll, unavailable
from tests.support.scripted_peer import HOLD, NEXT, PONG, ScriptedPeer, value

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
MOST_WITH_MUSL = 100 * KIB
MOST = 1024 * KIB
HEAP = {"malloc", "calloc", "realloc", "free", "fopen", "opendir", "getpwuid", "getpwnam", "printf", "snprintf"}


def readelf(*arguments: str | os.PathLike[str]) -> str:
    return subprocess.run(["readelf", "-W", *arguments], capture_output=True, text=True, check=True).stdout


def test_it_is_small(alone: pathlib.Path) -> None:
    musl = static_client.command("x", platform.machine())[0].endswith("musl-gcc")
    assert alone.stat().st_size <= (MOST_WITH_MUSL if musl else MOST)


@pytest.fixture(params=["musl-gcc", "gcc"])
def compiled(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The program of each compiler."""
    if shutil.which(request.param) is None:
        unavailable(f"{request.param} is not installed here: ./run test installs it")
    if request.param == "gcc":
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "musl-gcc" else which(name))
    static_client.build(tmp_path / "remo-secret")
    return tmp_path / "remo-secret"


def test_it_needs_no_library_and_is_hardened(compiled: pathlib.Path) -> None:
    assert compiled.stat().st_size <= MOST
    headers, dynamic = readelf("-l", compiled), readelf("-d", compiled)
    assert "INTERP" not in headers
    assert "GNU_RELRO" in headers
    stack = next(line for line in headers.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack
    assert "DYN (Position-Independent Executable file)" in headers
    assert "NEEDED" not in dynamic
    assert "NOW" in dynamic
    assert "TEXTREL" not in dynamic
    assert subprocess.run([compiled, "--socket=/nowhere", "list"], capture_output=True, check=False).returncode == 5


def test_it_has_no_heap(tmp_path: pathlib.Path) -> None:
    object_file = tmp_path / "remo-secret.o"
    subprocess.run(
        ["gcc", "-c", "-std=gnu11", "-fstack-protector-strong", static_client.SOURCE, "-o", object_file], check=True
    )
    symbols = subprocess.run(["nm", "-u", object_file], capture_output=True, text=True, check=True).stdout.split()
    assert HEAP.isdisjoint(symbols)
    assert "__stack_chk_fail" in symbols


def test_another_architecture(tmp_path: pathlib.Path) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    try:
        static_client.build(tmp_path / "remo-secret", other)
    except static_client.NoCompiler as error:
        unavailable(f"{error}: ./run test installs one")
    assert (tmp_path / "remo-secret").stat().st_size <= MOST
    emulator = shutil.which(f"qemu-{other}")
    if emulator is None:
        unavailable(f"qemu-{other} is not installed here: ./run test installs it")
    argv = [emulator, str(tmp_path / "remo-secret"), "--socket=/nowhere", "list"]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 5


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(static_client.NoCompiler, match="musl-gcc"):
        static_client.command("x", platform.machine())


@pytest.fixture
def waiting(alone: pathlib.Path, directory: pathlib.Path) -> Iterator[int]:
    """The process id of a `get` of another user, which waits for its reply."""
    if os.geteuid() != 0:
        unavailable("running as another user takes root")
    path = directory / "p.sock"
    with ScriptedPeer(path, [NEXT, PONG, value("x")[:-1], HOLD]) as peer:
        path.chmod(0o666)
        argv = [str(alone), "--socket", str(path), "get", "T"]
        with subprocess.Popen(argv, user=NOBODY, group=NOBODY, extra_groups=[], env=programs.environment()) as process:
            poll("the request", lambda: peer.requests and peer.requests[0])
            yield process.pid
            process.kill()


def test_its_own_user_cannot_trace_it(waiting: int) -> None:
    assert pathlib.Path(f"/proc/{waiting}/mem").stat().st_uid == 0, "not dumpable, so it is root's"
    code = f"open('/proc/{waiting}/mem', 'rb')"
    argv = ["python3", "-I", "-S", "-c", code]
    done = subprocess.run(argv, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False)
    assert b"PermissionError" in done.stderr


def test_its_memory_is_locked(waiting: int) -> None:
    require_mlock()
    status = pathlib.Path(f"/proc/{waiting}/status").read_text()
    locked = next(line.split()[1] for line in status.splitlines() if line.startswith("VmLck:"))
    assert int(locked) >= 190, "the reply, what git asks, and the output"
