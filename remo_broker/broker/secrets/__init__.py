"""Secret memory, the snapshot in it, and the JSON that is read in place."""

from __future__ import annotations
