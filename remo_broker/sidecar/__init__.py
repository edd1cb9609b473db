"""The sidecar: reads secrets from their sources and supplies them to the broker."""

from __future__ import annotations
