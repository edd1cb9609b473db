"""Where audit records go, and what happens when they are not taken."""

from __future__ import annotations
