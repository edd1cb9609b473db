"""Pack `remo-secret` or `remo-sidecar` into one file, for containers that have only Python.

    python3 -m remo_broker.build.pack FILE

The part of the file's name before the first dot selects the program; remo-secret is the default.

remo-secret runs on Python 3.9 and later, remo-sidecar on 3.11; an older Python looks for a newer
`python3.x` on the PATH. The file holds each module twice, as source and as compiled by the Python
that packs. A container with the same minor version compiles nothing at start, which halves the
start time. Any other version rejects the compiled half by its magic number and uses the source.

`zipapp` does not work here: Python 3.11's writes files in directory order, with their times, and
compresses all or none, so the same source would not give the same file.
"""

from __future__ import annotations

import ast
import io
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from remo_broker.protocol.process import REEXECUTED
from remo_broker.secret.commands import PROGRAM as SECRET
from remo_broker.sidecar.commands import PROGRAM as SIDECAR

# The shell passes options that env cannot pass everywhere: -I, so that nothing in the caller's
# environment, home or working directory decides what is imported; -S, because nothing in
# site-packages is needed and `site` takes a third of the start time. Python finds the archive after
# these lines.
HEAD = b"""\
#!/bin/sh
exec python3 -IS "$0" "$@"
"""
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Never imported in a container: these read TOML and validate it with pydantic.
LEFT_OUT = frozenset(
    f"remo_broker.manifest.{name}" for name in ("binding_rules", "document", "lines", "models", "result")
)
# Valid in Python 2 and 3, so that an old version reaches the message. Run as `python3
# remo-secret.pyz`, it isolates itself, unless `protocol.process` has isolated it already, whose
# settings -I would undo.
MAIN = """\
import os, sys
if sys.version_info >= (3, 4) and not sys.flags.isolated and "REEXECUTED" not in os.environ:
    os.execv(sys.executable, [sys.executable, "-IS"] + sys.argv)
if sys.version_info < (3, OLDEST):
    for minor in range(30, OLDEST - 1, -1):
        for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
            newer = os.path.join(directory, "python3.%d" % minor)
            if os.access(newer, os.X_OK):
                os.execv(newer, [newer, "-IS"] + sys.argv)
    sys.exit("PROGRAM: Python %d.%d is too old: 3.OLDEST or later is required" % sys.version_info[:2])
import gc
gc.disable()
from MODULE import main
gc.freeze()
gc.enable()
sys.exit(main())
"""
PROGRAMS = {SECRET.name: (SECRET, "remo_broker.secret.main"), SIDECAR.name: (SIDECAR, "remo_broker.sidecar.main")}
# The minor version of Python 3 that each needs. The sidecar reads TOML.
OLDEST = {SECRET.name: 9, SIDECAR.name: 11}
# The earliest time that a ZIP file can hold: the file depends only on the source, not on the time.
EPOCH = (1980, 1, 1, 0, 0, 0)


class _Imports(ast.NodeVisitor):
    """The modules of ours that a module imports, in functions too, but not only for typing."""

    def __init__(self, source: str) -> None:
        self.found: set[str] = set()
        self.visit(ast.parse(source))

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module is not None:
            self.found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}


def modules(name: str = SECRET.name) -> dict[str, bytes]:
    """All modules that the program can import, by their path in the archive."""
    program, module = PROGRAMS[name]
    wanted = {module, "remo_broker.cli.help"}
    wanted |= {command.run.partition(":")[0] for command in program.commands.values()}
    found: dict[str, bytes] = {}
    while wanted:
        module = wanted.pop()
        parts = module.split(".")
        if parts[0] != PACKAGE.name or module in LEFT_OUT:
            continue
        file = PACKAGE.parent.joinpath(*parts)
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        place = str(file.relative_to(PACKAGE.parent))
        if place in found or not file.is_file():  # not a module
            continue
        found[place] = file.read_bytes()
        wanted |= {".".join(parts[:-1])} | _Imports(found[place].decode("utf-8")).found
    return dict(sorted(found.items()))


def compiled(sources: dict[str, bytes]) -> dict[str, bytes]:
    """The .pyc files of the running version, by their path in the archive.

    A separate process compiles them, because marshal's output depends on what else refers to a
    constant. Python does not check the hash of the source (PEP 552): source and .pyc come in one
    file.
    """
    with tempfile.TemporaryDirectory() as name:
        staging = pathlib.Path(name)
        for place, source in sources.items():
            file = staging / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source)
        options = ("-q", "-b", "-s", name, "--invalidation-mode", "unchecked-hash")
        listed = "\n".join(str(staging / place) for place in sources)
        subprocess.run(
            [sys.executable, "-I", "-m", "compileall", *options, "-i", "-"], input=listed, text=True, check=True
        )
        return {f"{place}c": (staging / f"{place}c").read_bytes() for place in sources}


def pack(name: str = SECRET.name) -> bytes:
    """The archive, ready to be written and run."""
    sources = modules(name)
    main = MAIN.replace("PROGRAM", name).replace("MODULE", PROGRAMS[name][1]).replace("REEXECUTED", REEXECUTED)
    main = main.replace("OLDEST", str(OLDEST[name]))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("__main__.py", EPOCH), main.encode())
        for place, source in sources.items():
            file.writestr(zipfile.ZipInfo(place, EPOCH), source, zipfile.ZIP_DEFLATED)
        for place, code in compiled(sources).items():
            # Stored, because reading it is faster than inflating it.
            file.writestr(zipfile.ZipInfo(place, EPOCH), code, zipfile.ZIP_STORED)
    return HEAD + archive.getvalue()


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python3 -m remo_broker.build.pack FILE", file=sys.stderr)
        return 2
    target = pathlib.Path(sys.argv[1])
    name = target.name.partition(".")[0]
    target.write_bytes(pack(name if name in PROGRAMS else SECRET.name))
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
