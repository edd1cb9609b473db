"""`remo-secret`: the command for a project's socket. Needs only Python's standard library."""
