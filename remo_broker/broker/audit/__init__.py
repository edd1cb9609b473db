"""Audit records: destinations, what happens if journald does not accept or store them, and peer
identity."""

from __future__ import annotations
