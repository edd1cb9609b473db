"""The rules of remo-broker-manifest(5) as data: where a manifest lies, its patterns and its limits.

Used by the models, by the reading without models in `result`, and by the schema. Standard library only.
"""

from __future__ import annotations

from remo_broker import MANIFEST_SCHEMA_VERSION

SCHEMA_VERSION = MANIFEST_SCHEMA_VERSION

# Where it is looked for inside the project's directory: the first that exists counts, whether or not it is any good.
SEARCH = (
    (".devcontainer", "remo-broker.toml"),
    (".remo", "broker.toml"),
    (".remo", "manifest.toml"),
)

# One file. Room for some 4,000 names with a binding each, and no more than tomllib reads in half a second.
MAX_BYTES = 64 * 1024
# Parts of a dotted key, and brackets inside one another. The deepest legal key has three parts (`secrets.aws.file_mode`)
# and the deepest legal value two brackets; tomllib's time grows with the square of the first (64 KiB of `a.a.a`: 19 s)
# and the second exhausts its stack. A little more than needed, so that the answer to a slip is about the slip.
MAX_KEY_PARTS = 8
MAX_NESTING = 8

MAX_DESCRIPTION = 256
# The names of environment variables that every shell can say.
ENV_VAR_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
FILE_MODE_PATTERN = "^[0-7]{4}$"
# A server as credential helpers name it: a host in lower case, with its port where the URL has one.
HOST_PATTERN = "^[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?(:[0-9]{1,5})?$"
# What `{{field|filter}}` in a template may say.
FILTERS = ("base64", "json", "pgpass", "shell")
# Text without control characters: a NUL cannot be in a path, the others would reach a terminal.
FILE_PATH_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"

# What holds where the broker's configuration says nothing else; the same numbers stand in `config.KEYS`.
DEFAULT_TTL_SECONDS = 900
DEFAULT_MAX_ENTRIES = 64
