"""Listeners and connections: one module per kind of socket."""

from __future__ import annotations
