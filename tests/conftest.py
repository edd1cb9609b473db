"""Fixtures that all tests share."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import os
import pathlib
import resource
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

import remo_broker.bus  # noqa: F401 - before the first import of dbus-next: see there
from tests.support import processes
from tests.support.broker import Broker, short_directory
from tests.support.installation import SHARED
from tests.support.machine import REPOSITORY, poll
from tests.support.notify import NotifySocket
from tests.support.privileges import require_devices, require_mounts, require_root

if TYPE_CHECKING:
    from collections.abc import Iterator


# How long a host takes to generate an input says nothing of what is tested.
settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")

# What systemd gives a service, or systemd-nspawn a container: not meant for what the tests start.
OF_A_SERVICE = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"),
    *("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "JOURNAL_STREAM", "INVOCATION_ID"),
)
# As many as the tests with the most connections need, with room.
DESCRIPTORS = 16_384


def pytest_configure(config: pytest.Config) -> None:
    """Signals as a terminal's programs have them, and a directory that the workers of this run
    share: they inherit its name."""
    for marker in (
        "takes_root(why): skip the test, and fail it in continuous integration, unless this is root",
        "takes_mounts: the same where nothing can be mounted",
        "takes_devices: the same where no device can be made",
    ):
        config.addinivalue_line("markers", marker)
    # The other threads are those of pytest-xdist. What is forked here calls no code of theirs.
    config.addinivalue_line(
        "filterwarnings", "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
    )
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:  # as in a shell's background, and under nohup(1)
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    raise_limit()
    for name in OF_A_SERVICE:
        os.environ.pop(name, None)
    if SHARED not in os.environ:
        directory = tempfile.mkdtemp(prefix="remo-tests-")
        os.environ[SHARED] = directory

        def remove() -> None:
            del os.environ[SHARED]
            shutil.rmtree(directory)

        config.add_cleanup(remove)


def raise_limit() -> None:
    """Some tests hold more descriptors than the 1,024 that a login may have at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


# What is in .cache is made while the first tests run: see tests/support/test_tree.sh.
_LOCK = REPOSITORY / ".cache/lock"
_BUSY = ("tests/machine/", "tests/containers/")
_PREPARED = (*_BUSY, "tests/process/secret/tools/", "tests/process/secret/test_pack.py", "tests/process/sidecar/")
# Tests of machines keep a processor busy, most others wait: workers do some of each at any time. No
# machine's comes before there is what it needs, or last, as it may be long.
_BUSY_FROM, _BUSY_TO = 0.15, 0.85


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def file_of(item: pytest.Item) -> str:
        return item.nodeid.partition("::")[0]

    files = dict.fromkeys(map(file_of, items))
    busy = [file for file in files if file.startswith(_BUSY)]
    others = [file for file in files if not file.startswith(_BUSY)]
    place = {file: number / len(others) for number, file in enumerate(others)}
    place |= {file: _BUSY_FROM + (_BUSY_TO - _BUSY_FROM) * number / len(busy) for number, file in enumerate(busy)}
    items.sort(key=lambda item: place[file_of(item)])


def _wait_until_prepared() -> None:
    faulthandler.cancel_dump_traceback_later()  # set for the test, which waits for minutes here
    with contextlib.suppress(FileNotFoundError), _LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.nodeid.startswith(_PREPARED):
        _wait_until_prepared()
    for mark in item.iter_markers("takes_root"):
        require_root(*mark.args)
    if item.get_closest_marker("takes_mounts"):
        require_mounts()
    if item.get_closest_marker("takes_devices"):
        require_devices()


class StartBroker(Protocol):
    def __call__(self, **options: Any) -> Broker: ...


def _descriptors() -> dict[int, str]:
    """The open descriptors of this process, with what they point at."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists is closed by now
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


# A child of a kernel that lists none.
UNKNOWN = 0


def _children() -> set[int]:
    """The numbers of this process's child processes, including zombies."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()  # the usual case, without a look at /proc
    found: set[int] = set()
    for _ in range(10):  # until none is left out
        before, found = found, set(processes.children(os.getpid()))
        if found == before:
            break
    return found or {UNKNOWN}


def _name(process: int) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{process}/comm").read_text().strip()
    return "that has ended"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which this process has another descriptor or child than before."""
    if "machines" in request.fixturenames:  # booted by the first test that needs one, kept for the others
        yield
        return
    descriptors, children = _descriptors(), _children()
    yield

    def left() -> list[str]:
        after = _descriptors()
        more = [f"descriptor {number} -> {after[number]}" for number in after.keys() - descriptors.keys()]
        return more + [f"child {child} {_name(child)}" for child in _children() - children]

    if left():
        gc.collect()  # what only a cycle holds is not a leak
        with contextlib.suppress(TimeoutError):  # a thread may be about to close its own
            poll("the end of what the test has started", lambda: not left())
        assert not left()


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    """An empty directory whose path is short enough for sockets."""
    with short_directory() as path:
        yield path


@pytest.fixture
def start_broker(directory: pathlib.Path) -> Iterator[StartBroker]:
    """`start_broker(projects=[…], …)`: a broker of the test's own, running; see `Broker` for the
    options."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Broker:
            broker = Broker(directory, **options)
            stack.callback(broker.close)
            return broker.start()

        yield start


@pytest.fixture
def notify(directory: pathlib.Path) -> Iterator[NotifySocket]:
    """The service manager's end of sd_notify(3)."""
    notify = NotifySocket(directory / "notify")
    try:
        yield notify
    finally:
        notify.close()
