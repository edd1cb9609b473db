"""What every process speaks: messages, names, paths, records and settings. Standard library only; imports nothing outside itself."""

from __future__ import annotations
