"""`remo-secret` as one file, for containers that have Python and nothing of ours: mount it, or copy it in.

    python3 -m remo_broker.build.pack FILE

It runs on any Python from 3.11 on. Each module is in it twice, as source and compiled by the Python that packs: where
the container has the same minor version nothing is compiled at a start, which halves its time. Any other version passes
over what is compiled by its magic number; pack with that version where the difference matters.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import marshal
import pathlib
import sys
import zipfile

from remo_broker.secret.commands import PROGRAM

SHEBANG = b"#!/usr/bin/env python3\n"
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Never imported in a container: it wants pydantic.
LEFT_OUT = frozenset({"remo_broker.manifest.models"})
# In words that older versions understand too.
MAIN = b"""\
import sys
if sys.version_info < (3, 11):
    sys.exit("remo-secret: it needs Python 3.11 or later, and this is %d.%d" % sys.version_info[:2])
from remo_broker.secret.main import main
sys.exit(main())
"""
# PEP 552: bound to its source by a hash, which nobody checks, because they come in one file.
UNCHECKED_HASH = 1
# Later ones write what is referred to twice once, and count references for it: the bytes would differ between runs.
MARSHAL_VERSION = 2
# The same bytes for the same source, whenever it is packed: the first moment that a ZIP file can tell.
EPOCH = (1980, 1, 1, 0, 0, 0)


class _Imports(ast.NodeVisitor):
    """The modules of ours that a module imports, in functions too, but not what is only for type checkers."""

    def __init__(self, source: str) -> None:
        self.found: set[str] = set()
        self.visit(ast.parse(source))

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module is not None:
            self.found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}


def modules() -> dict[str, bytes]:
    """All that the program can come to import, by its place in the archive."""
    wanted = {"remo_broker.secret.main", "remo_broker.cli.help"}
    wanted |= {command.run.partition(":")[0] for command in PROGRAM.commands.values()}
    found: dict[str, bytes] = {}
    while wanted:
        module = wanted.pop()
        parts = module.split(".")
        if parts[0] != PACKAGE.name or module in LEFT_OUT:
            continue
        file = PACKAGE.parent.joinpath(*parts)
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        place = str(file.relative_to(PACKAGE.parent))
        if place in found or not file.is_file():  # a name that is no module
            continue
        found[place] = file.read_bytes()
        wanted |= {".".join(parts[:-1])} | _Imports(found[place].decode("utf-8")).found
    return dict(sorted(found.items()))


def compiled(place: str, source: bytes) -> bytes:
    """What a .pyc file of the running version has for a module."""
    code = compile(source, place, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little") + importlib.util.source_hash(source)
    return head + marshal.dumps(code, MARSHAL_VERSION)


def pack() -> bytes:
    """The archive, ready to be written and run."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("__main__.py", EPOCH), MAIN)
        for place, source in modules().items():
            file.writestr(zipfile.ZipInfo(place, EPOCH), source, zipfile.ZIP_DEFLATED)
            # As it is: to inflate it takes longer than to read it.
            file.writestr(zipfile.ZipInfo(f"{place}c", EPOCH), compiled(place, source), zipfile.ZIP_STORED)
    return SHEBANG + archive.getvalue()


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python3 -m remo_broker.build.pack FILE", file=sys.stderr)
        return 2
    target = pathlib.Path(sys.argv[1])
    target.write_bytes(pack())
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
