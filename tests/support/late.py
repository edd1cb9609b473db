"""Manifest readers that miss their deadline, as on a busy machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# In the reader's message, whether a client or a command shows it.
LATE = "took longer than"
# At a load of 20 on two processors none was in time for 20 s.
LATE_SECONDS = 60.0


def patiently(ask: Callable[[], T]) -> T:
    """The result of `ask`, which is asked again while the result says that a reader was late."""
    deadline = time.monotonic() + LATE_SECONDS
    while True:
        result = ask()
        if LATE not in repr(result) or time.monotonic() > deadline:
            return result
