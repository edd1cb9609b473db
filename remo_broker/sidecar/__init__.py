"""The sidecar: reads secrets from where their owner keeps them, and keeps the broker supplied."""

from __future__ import annotations
