"""Where audit records go, what happens when journald does not take or store them, and who they say it was."""

from __future__ import annotations
