"""`remo-secret` as one file, for containers that have Python and nothing of ours: mount it, or copy it in.

    python3 -m remo_broker.secret.pack FILE

The installed program is bound to the host's version of Python and starts quicker; this one runs on any from 3.11 on.
"""

from __future__ import annotations

import io
import pathlib
import sys
import zipfile

SHEBANG = b"#!/usr/bin/env python3\n"
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# All that the program can come to import, by tests/secret/test_pack.py.
MODULES = (
    *("__init__", "messages", "names", "paths"),
    *(f"cli/{name}" for name in ("__init__", "help", "options", "program", "text")),
    *(f"client/{name}" for name in ("__init__", "connection", "errors", "exchange", "project", "unreachable", "value")),
    *(f"manifest/{name}" for name in ("__init__", "document", "fault", "reader", "result", "rules")),
    *(f"secret/{name}" for name in ("__init__", "bindings", "commands", "execute", "get", "git", "locate", "main")),
    *(f"secret/{name}" for name in ("template", "tmpfs", "wait")),
)
MAIN = b"import sys\nfrom remo_broker.secret.main import main\nsys.exit(main())\n"
# The same bytes for the same source, whenever it is packed: the first moment that a ZIP file can tell.
EPOCH = (1980, 1, 1, 0, 0, 0)


def pack() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("__main__.py", EPOCH), MAIN)
        for module in MODULES:
            source = PACKAGE.joinpath(f"{module}.py").read_bytes()
            file.writestr(zipfile.ZipInfo(f"remo_broker/{module}.py", EPOCH), source, zipfile.ZIP_DEFLATED)
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
