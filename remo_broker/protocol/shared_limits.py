"""Limits that more than one process keeps, each with its reason. A limit of one module is in that
module."""

from __future__ import annotations

# One message, newline included. A shell client reads this much at once.
MAX_MESSAGE = 64 * 1024
# Only a push-creds request may be longer: it carries every secret of the host.
MAX_PUSH = 1024 * 1024
# Nesting of objects and arrays. The deepest valid message has three levels; the rest is room to
# grow.
MAX_DEPTH = 16
# Nesting that a client reads in a reply, the static one too. Python's own limit varies with its
# version and the depth of the stack.
MAX_REPLY_DEPTH = 512
# The limits on leases, for manifests and for the broker's own configuration alike, and what holds
# if neither sets anything.
MAX_TTL_SECONDS = 86_400
MAX_LEASES = 1024
DEFAULT_TTL_SECONDS = 900
DEFAULT_MAX_ENTRIES = 64

# Linux's longest path; it also keeps replies that name a path short.
MAX_PATH = 4096
# uid -1 is "no uid" to the kernel.
MAX_UID = 2**32 - 2
# The most uids in a registration: a project has a handful of users, and each connect searches the
# list.
MAX_UIDS = 64
# The most names in each list of what a push changed: of the longest names, all three fit in a
# reply.
MAX_NAMED = 100

# A watch that has sent nothing for this long sends an empty object: both sides see that the other
# is still there.
KEEP_ALIVE_SECONDS = 30.0
# How long a client waits for a reply. The slowest is that of `register` on a machine that starts
# processes slowly; the first connect may also have to wait for the broker to start.
REPLY_SECONDS = 30.0
