"""One save of the registrations, to be killed: `python3 -S saving.py DIRECTORY`.

Two calls of getppid(2) mark its beginning and end.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.projects import Registration


def some(*names: str) -> list[Registration]:
    from remo_broker.broker.projects import Registration

    # Long enough for more than one page.
    return [
        Registration(name, f"/projects/{name}", [f"{name}_{one}" for one in range(600)], 900, 64, []) for name in names
    ]


def main() -> None:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
    from remo_broker.broker.registrations import encode, save

    data = encode(some("new", "newer"))
    os.getppid()
    save(sys.argv[1], data)
    os.getppid()


if __name__ == "__main__":
    main()
