from __future__ import annotations

from tests.support.manifests import project

__all__ = ["project"]
