"""Secret memory: how it is allocated and overwritten, and what is reported if protection is
missing."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.memory import REGION_SIZE, Arena, Region
from remo_broker.protocol.codes import Protection
from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT, environment_missing
from remo_broker.protocol.shared_limits import MAX_MESSAGE
from tests.support.host_memory import protection, require_memfd_secret, require_mlock
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[True, False], ids=["memfd_secret", "mlock"])
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    if request.param:
        require_memfd_secret()
    arena = Arena(use_memfd_secret=request.param)
    yield arena
    arena.SPARES = 0
    arena.give_back(arena.take())


def fill(region: Region, length: int, byte: int = 0xAB) -> None:
    region.view[:length] = bytes([byte]) * length
    region.used = length


@pytest.mark.parametrize("length", [0, 1, 4096, MAX_MESSAGE - 1, MAX_MESSAGE, MAX_MESSAGE + 1, REGION_SIZE])
def test_a_released_region_is_overwritten(arena: Arena, length: int) -> None:
    region = arena.take()
    fill(region, length)
    region.wipe()
    assert not any(region.view[:length])
    assert region.used == 0
    arena.give_back(region)


def test_a_small_region_is_cleared_for_reuse_and_a_large_one_unmapped(arena: Arena) -> None:
    first, second = arena.take(), arena.take()
    fill(first, MAX_MESSAGE)
    fill(second, MAX_MESSAGE + 1)
    arena.give_back(second)
    arena.give_back(first)
    assert arena.take() is first
    assert not any(first.view[:MAX_MESSAGE])
    assert second.map.closed
    arena.give_back(first)


def test_regions_are_apart(arena: Arena) -> None:
    one, other = arena.take(), arena.take()
    fill(one, 100, 1)
    fill(other, 100, 2)
    assert (one.view[50], other.view[50]) == (1, 2)
    arena.give_back(one)
    arena.give_back(other)


def address_of(region: Region) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(region.map))


def mapping_of(region: Region) -> dict[str, str]:
    """What the kernel reports about the mapping of a region."""
    lines = pathlib.Path("/proc/self/smaps").read_text().splitlines()
    address = address_of(region)
    inside = False
    found = {}
    for line in lines:
        head, _, rest = line.partition(" ")
        if "-" in head and not head.endswith(":"):
            low, high = (int(one, 16) for one in head.split("-"))
            inside = low <= address < high
            if inside:
                found["Name"] = rest.split(" ")[-1]
        elif inside:
            key, _, value = line.partition(":")
            found[key] = value.strip()
    return found


def test_what_the_kernel_makes_of_it() -> None:
    require_memfd_secret()
    arena = Arena()
    assert arena.protection is Protection.MEMFD_SECRET
    region = arena.take()
    fill(region, 4096)
    assert "secretmem" in pathlib.Path("/proc/self/maps").read_text()
    with open("/proc/self/mem", "rb", buffering=0) as own:
        own.seek(address_of(region))
        with pytest.raises(OSError, match="Input/output error"):
            own.read(16)
    arena.SPARES = 0
    arena.give_back(region)


def test_the_fallback_is_locked_and_left_out_of_dumps() -> None:
    require_mlock()
    arena = Arena(use_memfd_secret=False)
    assert arena.protection is Protection.LOCKED
    region = arena.take()
    fill(region, 8 * mmap.PAGESIZE)
    seen = mapping_of(region)
    assert {"lo", "dd", "dc"} <= set(seen["VmFlags"].split())
    assert int(seen["Locked"].split()[0]) >= 8 * mmap.PAGESIZE // 1024
    arena.SPARES = 0
    arena.give_back(region)


# Imported before the privileges are dropped: the user may not be able to read the modules.
_ARENA = "from remo_broker.broker.secrets.memory import *\nfrom remo_broker.broker.secrets.memory import Refused\n"


def run_unprivileged(code: str, limit: int) -> str:
    imports = "import ctypes, mmap, resource, os, sys\n" + _ARENA
    drop = f"resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))\n"
    if os.geteuid() == 0:
        drop += "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
    done = subprocess.run(
        [sys.executable, "-c", imports + drop + code],
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_room_for_one_region_the_protection_is_none() -> None:
    assert (
        run_unprivileged("arena = Arena(); print(arena.protection.value); print(arena.take().view[0])", 4096)
        == "none\n0"
    )


def test_without_room_for_another_region_the_push_is_refused() -> None:
    code = (
        "arena = Arena()\n"
        "taken = [arena.take()]\n"
        "try:\n    taken.append(arena.take())\n"
        "except Refused as refusal:\n    print(refusal.code, refusal.reason, refusal.retry_after_seconds, refusal.message)\n"
        "arena.give_back(taken.pop())\n"
        "print(arena.take().view[0], arena.protection.value != 'none')\n"
    )
    if protection() == "none":
        unavailable("memory has no limit here: it cannot be locked at all")
    first, second = run_unprivileged(code, REGION_SIZE + 8192).splitlines()
    assert first.startswith("internal_error out_of_memory 1 ")
    assert "LimitMEMLOCK=" in first
    assert second == "0 True"


def test_missing_environment_variables() -> None:
    assert environment_missing(dict(MEMORY_ENVIRONMENT)) == {}
    assert environment_missing({}) == MEMORY_ENVIRONMENT
    assert environment_missing({**MEMORY_ENVIRONMENT, "PYTHONMALLOC": "debug"}) == {"PYTHONMALLOC": "malloc"}


def test_no_repr_shows_content(arena: Arena) -> None:
    region = arena.take()
    with contextlib.suppress(Refused):
        fill(region, 10, ord("s"))
    assert "ss" not in repr(region) + repr(arena) + str(region)
    arena.give_back(region)
