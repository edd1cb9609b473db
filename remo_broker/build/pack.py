"""Pack `remo-secret` or `remo-sidecar` into one file, for containers that have only Python.

    python3 -m remo_broker.build.pack FILE

The part of the file's name before the first dot selects the program; remo-secret is the default.

remo-secret runs on Python 3.9 and later, remo-sidecar on 3.11; an older Python looks for a newer
`python3.x` on the PATH. The file is a ZIP archive of the source, which any of these versions runs,
and of one more member, which only the minor version that packed it runs: the compiled modules, with
the code that imports them. Reading the archive's directory, and each module separately, takes
longer than everything else that a `remo-secret get` does.

`zipapp` does not work here: Python 3.11's writes files in directory order, with their times, and
compresses all or none, so the same source would not give the same file.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import marshal
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from remo_broker.protocol.hardening import REEXECUTED
from remo_broker.secret.commands import PROGRAM as SECRET
from remo_broker.sidecar.commands import PROGRAM as SIDECAR

# The shell passes options that env cannot pass everywhere: -I, so that nothing in the caller's
# environment, home or working directory decides what is imported; -S, because nothing in
# site-packages is needed and `site` takes a third of the start time. Given the archive itself,
# Python would import `runpy` and half of the standard library's tools first; so it is told where in
# this file its first member is, and runs that. A shell that reads this file from its standard input,
# as in `curl … | sh`, has the option s, and its own name for $0: Python would run that file, or one of
# that name in the working directory.
HEAD = """\
#!/bin/sh
case $- in *s*) false ;; *) [ -f "$0" ] ;; esac || { printf '%%s\\n' 'PROGRAM: cannot start from a pipe: the rest of this file is the program' 'Hint: save it to a file, and run that' >&2; exit 1; }
exec python3 -IS -c 'import sys; del sys.argv[0]; file = open(sys.argv[0], "rb"); file.seek(%5d); main = file.read(%5d)
file.close(); exec(main)' "$0" "$@"
"""
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Never imported in a container: these read TOML and validate it with pydantic.
LEFT_OUT = frozenset(
    f"remo_broker.manifest.{name}" for name in ("document", "keys", "lines", "result", "rules_between_keys")
)
MAIN_NAME = "__main__.py"
# The modules as `bundled` imports them, and its own code first.
COMPILED = "compiled"
BUNDLED = "remo_broker/build/bundled.py"
# Valid in Python 2 and 3, so that an old version reaches the message. Run as `python3
# remo-secret.pyz`, it isolates itself, unless `protocol.hardening` has isolated it already, whose
# settings -I would undo.
MAIN = """\
import sys
if sys.version_info >= (3, 4) and not sys.flags.isolated:
    import os
    if "REEXECUTED" not in os.environ:
        os.execv(sys.executable, [sys.executable, "-IS"] + sys.argv)
if sys.version_info < (3, OLDEST):
    import os
    for minor in range(30, OLDEST - 1, -1):
        for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
            newer = os.path.join(directory, "python3.%d" % minor)
            if os.access(newer, os.X_OK):
                os.execv(newer, [newer, "-IS"] + sys.argv)
    sys.exit("PROGRAM: Python %d.%d is too old: 3.OLDEST or later is required" % sys.version_info[:2])
import gc, marshal
from _frozen_importlib_external import MAGIC_NUMBER
gc.disable()
if sys.path[0] != sys.argv[0]:
    sys.path.append(sys.argv[0])
with open(sys.argv[0], "rb") as archive:
    archive.seek(OFFSET)
    compiled = archive.read(SIZE)
if compiled.startswith(MAGIC_NUMBER):
    code, modules = marshal.loads(memoryview(compiled)[len(MAGIC_NUMBER):])
    bundled = {}
    exec(marshal.loads(code), bundled)
    bundled["import_from"](modules)
from MODULE import main
gc.freeze()
gc.enable()
sys.exit(main())
"""
PROGRAMS = {SECRET.name: (SECRET, "remo_broker.secret.main"), SIDECAR.name: (SIDECAR, "remo_broker.sidecar.main")}
# The minor version of Python 3 that each needs. The sidecar reads TOML.
OLDEST = {SECRET.name: 9, SIDECAR.name: 11}
# Before the code in a .pyc file (PEP 552).
PYC_HEADER_BYTES = 16
# Before the name and the content of a member that has neither comment nor extra fields.
MEMBER_HEADER_BYTES = 30
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
    """The modules' code as the running version compiles and marshals it, by their path.

    A separate process compiles them, because marshal's output depends on what else refers to a
    constant.
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
        return {place: (staging / f"{place}c").read_bytes()[PYC_HEADER_BYTES:] for place in sources}


def bundle(sources: dict[str, bytes]) -> bytes:
    """The member COMPILED: the version's magic number, then `bundled` and the modules."""
    code = compiled({BUNDLED: PACKAGE.parent.joinpath(BUNDLED).read_bytes()} | sources)
    own = code.pop(BUNDLED)
    modules = {}
    for place, content in code.items():
        package = place.endswith("/__init__.py")
        name = place.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        modules[name] = (package, content)
    # Version 2 of the format has no references, so that the same modules make the same bytes.
    return importlib.util.MAGIC_NUMBER + marshal.dumps((own, modules), 2)


def pack(name: str = SECRET.name) -> bytes:
    """The archive, ready to be written and run."""
    sources = modules(name)
    compiled_modules = bundle(sources)
    main = MAIN.replace("PROGRAM", name).replace("MODULE", PROGRAMS[name][1]).replace("REEXECUTED", REEXECUTED)
    main = main.replace("OLDEST", str(OLDEST[name])).replace("SIZE", str(len(compiled_modules)))
    # Where a stored member's content begins: after what is before it, its header and its name.
    head = HEAD.replace("PROGRAM", name)
    at_main = len(head % (0, 0)) + MEMBER_HEADER_BYTES + len(MAIN_NAME)
    at_compiled = at_main + len(main) + MEMBER_HEADER_BYTES + len(COMPILED)
    main = main.replace("OFFSET", f"{at_compiled:6d}")  # as long as the word
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo(MAIN_NAME, EPOCH), main)
        file.writestr(zipfile.ZipInfo(COMPILED, EPOCH), compiled_modules)
        for place, source in sources.items():
            file.writestr(zipfile.ZipInfo(place, EPOCH), source, zipfile.ZIP_DEFLATED)
    return (head % (at_main, len(main))).encode() + archive.getvalue()


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
