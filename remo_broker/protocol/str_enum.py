"""`enum.StrEnum` for clients in containers with a Python older than 3.11."""

from __future__ import annotations

from enum import Enum


class StrEnum(str, Enum):  # noqa: UP042 - the class that would replace it is the one that is missing
    """Members are strings, and print as such."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]
