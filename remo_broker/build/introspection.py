"""Write or check `schema/io.get2know.RemoBroker1.xml`, the service's D-Bus introspection.

The file is for people and code generators. `python -m remo_broker.build.introspection --write`, or
`--check`, which fails if the file differs from what the code would write.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from remo_broker.bus.interfaces import BUS_NAME, MANAGER, PROJECT
from remo_broker.bus.introspection import document

FILE = pathlib.Path(__file__).resolve().parents[2] / f"schema/{BUS_NAME}.xml"


def text() -> str:
    """What the file should hold."""
    return document([MANAGER, PROJECT], texts=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m remo_broker.build.introspection", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the file")
    what.add_argument("--check", action="store_true", help="fail if the file is another")
    options = parser.parse_args(argv)
    if options.write:
        FILE.write_text(text())
    elif not FILE.exists() or FILE.read_text() != text():
        print(
            f"{FILE} is not what the code says: run python -m remo_broker.build.introspection --write", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
