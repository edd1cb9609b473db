"""The process that holds secrets. Only `__main__` and tests import it."""

from __future__ import annotations
