"""Requirement N9: a million operations of every kind leave neither memory nor descriptors behind,
and every get is audited.

`__main__` boots a systemd and runs `drive` in it; `test_soak` is the short form, against a plain
process."""

from __future__ import annotations
