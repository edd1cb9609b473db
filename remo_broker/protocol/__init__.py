"""What all processes share: messages, names, paths, records and settings. Standard library only;
imports nothing outside this package."""

from __future__ import annotations
