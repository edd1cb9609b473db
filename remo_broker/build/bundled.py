"""Import modules from a table of compiled code: no search for a file, and none to open.

A program of one file runs this before it imports anything else of its own, and not as a module.
"""

from __future__ import annotations

import marshal
import sys

# What `importlib.machinery` calls ModuleSpec, without what `importlib` imports.
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    # Whether it is a package, and its code as marshal writes it; by the module's name.
    Modules = dict[str, tuple[bool, bytes]]


def import_from(modules: Modules) -> None:
    """Look for each module here first, and elsewhere only if it is not here."""
    sys.meta_path.insert(0, Bundle(modules))


class Bundle:
    """Finder and loader, see PEP 451."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        found = self._modules.get(name)
        if found is None:
            return None
        return ModuleSpec(name, self, is_package=found[0])  # type: ignore[arg-type]  # by what it has

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the interpreter."""

    def exec_module(self, module: ModuleType) -> None:
        code = self._modules[module.__name__][1]
        exec(marshal.loads(code), module.__dict__)  # noqa: S102, S302 - the program's own code
