"""Defects that are planted one at a time, each with the test that must fail: see `table`."""
