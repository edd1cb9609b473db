"""`remo-secret` as one file, for containers that have Python and nothing of ours: mount it, or copy it in.

    python3 -m remo_broker.secret.pack FILE

The installed program is bound to the host's version of Python and starts quicker; this one runs on any from 3.11 on.
"""

from __future__ import annotations

import ast
import io
import pathlib
import sys
import zipfile

from remo_broker.secret.commands import PROGRAM

SHEBANG = b"#!/usr/bin/env python3\n"
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Never imported in a container: it wants pydantic.
LEFT_OUT = frozenset({"remo_broker.manifest.models"})
MAIN = b"import sys\nfrom remo_broker.secret.main import main\nsys.exit(main())\n"
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


def pack() -> bytes:
    """The archive, ready to be written and run."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for place, source in {"__main__.py": MAIN, **modules()}.items():
            file.writestr(zipfile.ZipInfo(place, EPOCH), source, zipfile.ZIP_DEFLATED)
    return SHEBANG + archive.getvalue()


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python3 -m remo_broker.secret.pack FILE", file=sys.stderr)
        return 2
    target = pathlib.Path(sys.argv[1])
    target.write_bytes(pack())
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
