"""remo-broker: hands a project's secrets to its containers over Unix sockets, from memory only."""

__version__ = "2.0.0"
PROTOCOL_VERSION = 2
MANIFEST_SCHEMA_VERSION = 1
