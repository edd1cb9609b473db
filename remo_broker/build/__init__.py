"""Build time only: schemas, completions, the one-file programs."""

from __future__ import annotations
