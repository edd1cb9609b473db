"""The constants of remo-broker-manifest(5): where a manifest is, its patterns and its limits.

Used by the models, by `result`, which reads without models, and by the schema. Standard library
only.
"""

from __future__ import annotations

from remo_broker import MANIFEST_SCHEMA_VERSION

SCHEMA_VERSION = MANIFEST_SCHEMA_VERSION

# Searched inside the project's directory: the first that exists counts, valid or not.
SEARCH = (
    (".devcontainer", "remo-broker.toml"),
    (".remo", "broker.toml"),
    (".remo", "manifest.toml"),
)

# How an error begins about a manifest whose project has another name than it is registered by.
ANOTHER_NAME = "not the name"

# Of one file. Room for some 4,000 names with a binding each; tomllib reads this much within half a
# second.
MAX_BYTES = 64 * 1024
# Parts of a dotted key, and nested brackets. The deepest legal key has three parts
# (`secrets.aws.file_mode`) and the deepest legal value two brackets. tomllib's time grows with the
# square of the first (64 KiB of `a.a.a`: 19 s), and the second exhausts its stack. The limit is a
# little higher than needed, so that a typo gets an error about the typo.
MAX_KEY_PARTS = 8
MAX_NESTING = 8

MAX_DESCRIPTION = 256
# Environment variable names that every shell can express.
ENV_VAR_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
FILE_MODE_PATTERN = "^[0-7]{4}$"
# What `{{field|filter}}` in a template may use.
FILTERS = ("base64", "json", "pgpass", "shell")
# Text without control characters: a path cannot contain a NUL; the others would reach a terminal.
FILE_PATH_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"
