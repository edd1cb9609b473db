"""Speed and size: against the limits of the machine, against requirements N1 to N9, and against what people would use instead.

`__main__` boots a systemd with this project installed, `measure` does the work inside it, `report` shows what came out.
"""

from __future__ import annotations
