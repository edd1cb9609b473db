"""How long something takes where another process's load must not decide a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 5


def shortest(measure: Callable[[], float], below: float) -> float:
    """The shortest of a few durations, in seconds; the first one `below` is enough.

    A fault that waits for a deadline waits each time, but a busy machine is slow only sometimes.
    """
    found = [measure()]
    while min(found) >= below and len(found) < TRIES:
        found.append(measure())
    return min(found)
