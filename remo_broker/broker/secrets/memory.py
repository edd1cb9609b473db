"""Memory for secrets, and what the process does to keep them from leaking through the rest of its
memory.

Pages come from `memfd_secret(2)`: the kernel removes them from its own map,
so that not even root reads them through `/proc/PID/mem`, and clears them when they are freed. Where
the kernel lacks the call (or was booted with `secretmem.enable=0`, or a filter forbids it) they are
anonymous pages, locked and kept out of dumps.

Every `Region` has the same virtual size, enough for the longest message; only touched pages take
memory. A message is received into a region and served from the same one, so a value is never
copied.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys

from remo_broker.broker.refusals import Refused
from remo_broker.protocol.codes import Code, Protection, Reason
from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from remo_broker.protocol.shared_limits import MAX_MESSAGE, MAX_PUSH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Accepted  # noqa: N812 - the type that accept returns
    from collections.abc import Iterator

# The longest push, plus room for the start of whatever was pipelined after it.
REGION_SIZE = MAX_PUSH + MAX_MESSAGE
# memfd_secret(2) has this number on every architecture that has the call (x86-64, arm64, riscv).
SYS_MEMFD_SECRET = 447
PR_GET_DUMPABLE = 3

_ZEROS = bytes(MAX_MESSAGE)
_libc = ctypes.CDLL(None, use_errno=True)


class Region:
    """One mapping of `REGION_SIZE` bytes. `used` is how far it was ever written; that much is wiped
    at the end."""

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
        """Overwrite everything written so far."""
        self.blank(0, self.used)
        self.used = 0

    def __repr__(self) -> str:
        return f"Region(used={self.used})"


class RegionHolder:
    """The owner of one region, or of none. A region has one owner at a time, which must overwrite
    it in the end: `release` does that; `hand_over` passes the region and that duty on."""

    __slots__ = ("_arena", "region")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.region: Region | None = None

    def fill(self) -> Region:
        """The region; takes a new one if there is none. Raises `Refused`, as `Arena.take` does."""
        if self.region is None:
            self.region = self._arena.take()
        return self.region

    def hand_over(self) -> Region:
        """Give the region to the caller, who then owns it."""
        region, self.region = self.region, None
        assert region is not None
        return region

    def release(self) -> None:
        """Overwrite the region, if there is one, and return it to the arena."""
        if self.region is not None:
            self._arena.give_back(self.hand_over())


class Arena:
    """Allocates regions and takes them back."""

    # One wiped region is kept for the next push: mapping and first touch cost a push of ten secrets
    # a third of its time.
    SPARES = 1
    # A region that a large push has touched is not kept: its pages would stay in memory for good.
    LARGEST_SPARE = MAX_MESSAGE

    def __init__(self, *, use_memfd_secret: bool = True) -> None:
        self._spares: list[Region] = []
        self.protection = Protection.MEMFD_SECRET if use_memfd_secret else Protection.LOCKED
        try:
            self.give_back(self.take())
        except Refused:
            # The limit on locked memory leaves no room for one region: report weak protection
            # instead of failing.
            self.protection = Protection.NONE
            self.give_back(self.take())

    def take(self) -> Region:
        """An empty region. Raises `Refused` when the limit on locked memory is reached."""
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
                f"cannot allocate secret memory ({os.strerror(error.errno or 0)}); try again, or raise LimitMEMLOCK= of the unit",
                retry_after_seconds=1,
            ) from None

    def give_back(self, region: Region) -> None:
        """Overwrite and release a region. No view of it may be left."""
        small = region.used <= self.LARGEST_SPARE
        region.wipe()
        if small and len(self._spares) < self.SPARES:
            self._spares.append(region)
            return
        region.view.release()
        region.map.close()

    def discard(self, connection: Accepted) -> int:
        """Read and drop what may be part of a push. Returns the byte count; 0 if there is no memory
        for that either."""
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
            # MLOCK_ONFAULT locks pages as they are touched, as memfd_secret does.
            if _libc.mlock2(ctypes.c_void_p(address), ctypes.c_size_t(REGION_SIZE), 1) != 0:
                number = ctypes.get_errno()
                mapping.close()
                raise OSError(number, "mlock2")
        return mapping

    def __repr__(self) -> str:
        return f"Arena(protection={self.protection.value})"


def trim() -> None:
    """Return freed memory to the kernel: by itself, glibc does so only for the end of its heap."""
    _libc.malloc_trim(0)


def shortcomings(arena: Arena) -> Iterator[str]:
    """Each protection that this process lacks, as a sentence for the log."""
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
    """Free an object and check its old memory: the settings may be in the environment without being
    in force."""
    left = (ctypes.c_char * 256)()
    probe = bytes(range(256))
    # Not its beginning: an allocation in between may already occupy that.
    address = id(probe) + sys.getsizeof(probe) - len(left)
    del probe
    ctypes.memmove(left, address, len(left))
    return bytes(range(192, 224)) not in left.raw
