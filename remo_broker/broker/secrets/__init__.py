"""Secret memory, the snapshot in it, and the JSON that is read where it lies."""

from __future__ import annotations
