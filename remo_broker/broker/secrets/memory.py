"""Memory that secrets may lie in, and what the process does to keep the rest of itself from telling.

Requirements M1 to M3. Pages come from `memfd_secret(2)`: the kernel takes them out of its own map, so that not even
root reads them through `/proc/PID/mem`, and clears them when they are given back. Where the kernel lacks the call (or
was booted with `secretmem.enable=0`, or a filter forbids it) they are anonymous pages, locked and kept out of dumps.

Everything is a `Region` of one fixed virtual size, enough for the longest message; only the pages that are touched
take memory. A message is received into a region and served from the same one, so a value is never copied.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys

from remo_broker.broker.refusals import Refused
from remo_broker.protocol.ops import MAX_MESSAGE, MAX_PUSH, Code, Protection, Reason
from remo_broker.protocol.process import MEMORY_ENVIRONMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - what accept makes
    from collections.abc import Iterator

# The longest push, and behind it room for the start of whatever was pipelined after it.
REGION_SIZE = MAX_PUSH + MAX_MESSAGE
# memfd_secret(2) has this number on every architecture that has the call (x86-64, arm64, riscv).
SYS_MEMFD_SECRET = 447
PR_GET_DUMPABLE = 3

_ZEROS = bytes(MAX_MESSAGE)
_libc = ctypes.CDLL(None, use_errno=True)


class Region:
    """One mapping of `REGION_SIZE` bytes. `used` is how far it was ever written: as much is overwritten at the end."""

    __slots__ = ("map", "used", "view")

    def __init__(self, mapping: mmap.mmap) -> None:
        self.map = mapping
        self.view = memoryview(mapping)
        self.used = 0

    def blank(self, start: int, end: int) -> None:
        """Overwrite a part. Works while others still hold a view; unmapping would not."""
        for begin in range(start, end, len(_ZEROS)):
            after = min(begin + len(_ZEROS), end)
            self.view[begin:after] = _ZEROS[: after - begin]

    def wipe(self) -> None:
        """Overwrite all that was written."""
        self.blank(0, self.used)
        self.used = 0

    def __repr__(self) -> str:
        return f"Region(used={self.used})"


class RegionHolder:
    """The owner of one region, or of none. A region has one owner at a time, who overwrites it in the end: a holder does
    so by `release`, and hands the duty on with the region by `hand_over`."""

    __slots__ = ("_arena", "region")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.region: Region | None = None

    def fill(self) -> Region:
        """Its region, a fresh one if it had none. Raises `Refused`, as `Arena.take` does."""
        if self.region is None:
            self.region = self._arena.take()
        return self.region

    def hand_over(self) -> Region:
        """Its region, which belongs to the caller from now on."""
        region, self.region = self.region, None
        assert region is not None
        return region

    def release(self) -> None:
        """Overwrite its region, if it has one, and return it to the arena."""
        if self.region is not None:
            self._arena.give_back(self.hand_over())


class Arena:
    """Where regions come from and go back to."""

    # One wiped region is kept for the next push: mapping and first touch cost a push of ten secrets a third of its time.
    SPARES = 1
    # A region that a large push has touched is not kept: its pages would stay in memory for good.
    LARGEST_SPARE = MAX_MESSAGE

    def __init__(self, *, use_memfd_secret: bool = True) -> None:
        self._spares: list[Region] = []
        self.protection = Protection.MEMFD_SECRET if use_memfd_secret else Protection.LOCKED
        try:
            self.give_back(self.take())
        except Refused:
            # The limit on locked memory leaves no room for one region: better weak memory that says so than none.
            self.protection = Protection.NONE
            self.give_back(self.take())

    def take(self) -> Region:
        """An empty region. Raises `Refused` where the limit on locked memory is reached."""
        if self._spares:
            return self._spares.pop()
        try:
            if self.protection is Protection.MEMFD_SECRET:
                return Region(self._map_secret())
            return Region(self._map_locked())
        except OSError as error:
            raise Refused(
                Code.INTERNAL_ERROR,
                Reason.OUT_OF_MEMORY,
                f"no secret memory to be had ({os.strerror(error.errno or 0)}); try again, or raise LimitMEMLOCK= of the unit",
                retry_after_seconds=1,
            ) from None

    def give_back(self, region: Region) -> None:
        """Overwrite and release a region; nobody may hold a view of it any more."""
        small = region.used <= self.LARGEST_SPARE
        region.wipe()
        if small and len(self._spares) < self.SPARES:
            self._spares.append(region)
            return
        region.view.release()
        region.map.close()

    def discard(self, connection: Accepted) -> int:
        """Read what may be a part of a push, and forget it. How many bytes; 0 where there is no memory for it either."""
        try:
            region = self.take()
        except Refused:
            return 0
        try:
            region.used = self.LARGEST_SPARE
            return connection.recv_into(region.view[: region.used])
        finally:
            self.give_back(region)

    def _map_secret(self) -> mmap.mmap:
        descriptor: int = _libc.syscall(SYS_MEMFD_SECRET, os.O_CLOEXEC)
        if descriptor < 0:
            if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
                self.protection = Protection.LOCKED
                return self._map_locked()
            raise OSError(ctypes.get_errno(), "memfd_secret")
        try:
            os.ftruncate(descriptor, REGION_SIZE)
            return mmap.mmap(descriptor, REGION_SIZE)
        finally:
            os.close(descriptor)

    def _map_locked(self) -> mmap.mmap:
        mapping = mmap.mmap(-1, REGION_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapping.madvise(mmap.MADV_DONTDUMP)
        mapping.madvise(mmap.MADV_DONTFORK)
        if self.protection is Protection.LOCKED:
            address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
            # MLOCK_ONFAULT: pages are locked as they are touched, as those of memfd_secret are.
            if _libc.mlock2(ctypes.c_void_p(address), ctypes.c_size_t(REGION_SIZE), 1) != 0:
                number = ctypes.get_errno()
                mapping.close()
                raise OSError(number, "mlock2")
        return mapping

    def __repr__(self) -> str:
        return f"Arena(protection={self.protection.value})"


def trim() -> None:
    """Give what was freed back to the kernel: glibc does so only with what lies at the end of its heap."""
    _libc.malloc_trim(0)


def shortcomings(arena: Arena) -> Iterator[str]:
    """What this process has less of than it should, each as a sentence for the log."""
    if arena.protection is not Protection.MEMFD_SECRET:
        yield (
            f"memfd_secret(2) cannot be used; secrets are kept in memory with protection '{arena.protection.value}'. "
            "See Memory in remo-broker(8)."
        )
    if not _is_overwritten_when_freed():
        wanted = " ".join(f"{name}={value}" for name, value in MEMORY_ENVIRONMENT.items())
        yield f"Freed memory is not overwritten; start with {wanted}, without -E or -I, on glibc."
    if _libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        yield "The kernel would dump this process; keep its user and its limits on core files to yourself."


def _is_overwritten_when_freed() -> bool:
    """Free an object and look where it was: the settings may stand in the environment and not be in force."""
    left = (ctypes.c_char * 256)()
    probe = bytes(range(256))
    # Not its beginning: what is allocated meanwhile may lie there already.
    address = id(probe) + sys.getsizeof(probe) - len(left)
    del probe
    ctypes.memmove(left, address, len(left))
    return bytes(range(192, 224)) not in left.raw
