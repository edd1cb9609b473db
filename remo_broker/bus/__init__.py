"""The broker's status on the system bus: counts and times, never a secret's name or value.

See remo-broker-bus(8).
"""

from __future__ import annotations

import typing

# dbus-next 0.2.3 imports it, and Python 3.15 has removed it.
if not hasattr(typing, "no_type_check_decorator"):
    typing.no_type_check_decorator = lambda decorator: decorator
