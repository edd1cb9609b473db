"""The configuration: flags override `/etc/remo-broker/config.toml`, which overrides the defaults.
See remo-broker.toml(5)."""

from __future__ import annotations

import os

from remo_broker import __version__
from remo_broker.protocol import paths
from remo_broker.protocol.credential_rules import BadRule, CredentialRule, parse_rules
from remo_broker.protocol.names import printable
from remo_broker.protocol.shared_limits import DEFAULT_MAX_ENTRIES, DEFAULT_TTL_SECONDS, MAX_LEASES, MAX_TTL_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ConfigError(Exception):
    """One line for the operator: the key, what is wrong with it and what is allowed."""


class Number:
    """A key whose value is an integer from `low` to `high`."""

    def __init__(self, default: int, low: int, high: int, text: str) -> None:
        self.default = default
        self.low = low
        self.high = high
        self.text = text

    def check(self, key: str, value: object) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ConfigError(f"{key}: must be an integer from {self.low} to {self.high}")
        return value


class Directory:
    """A key whose value is an absolute path."""

    def __init__(self, default: str, text: str) -> None:
        self.default = default
        self.text = text

    def check(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
            raise ConfigError(f"{key}: must be an absolute path")
        return os.path.normpath(value)


class Choice:
    """A key whose value is one of a few words."""

    def __init__(self, default: str, words: tuple[str, ...], text: str) -> None:
        self.default = default
        self.words = words
        self.text = text

    def check(self, key: str, value: object) -> str:
        if value not in self.words:
            raise ConfigError(f"{key}: must be one of {', '.join(self.words)}")
        return str(value)


SERVE, DENY = "serve", "deny"
# The only table in the file: see `credential_rules`.
CREDENTIALS = "credentials"

KEYS: dict[str, Number | Directory | Choice] = {
    "socket_dir": Directory(paths.SOCKET_DIR, "where the sockets are"),
    "state_dir": Directory(paths.STATE_DIR, "where registrations are kept"),
    "cache_default_ttl_seconds": Number(
        DEFAULT_TTL_SECONDS, 1, MAX_TTL_SECONDS, "how long a lease lasts; manifests may ask for less"
    ),
    "cache_default_max_entries": Number(
        DEFAULT_MAX_ENTRIES, 1, MAX_LEASES, "leases per project; manifests may ask for less"
    ),
    "rate_limit_per_second": Number(200, 0, 1_000_000, "requests per project and second; 0: no limit"),
    "rate_limit_burst": Number(1000, 0, 1_000_000, "requests a project may make at once; 0: no limit"),
    "max_connections_per_project": Number(256, 1, 65_536, "open connections per project"),
    "max_connections_admin": Number(32, 1, 1024, "open connections on the admin socket"),
    "idle_exit_seconds": Number(300, 0, 86_400, "exit after this many seconds without work; 0: never"),
    "credentials_wait_seconds": Number(30, 0, 3600, "how long a unit's credential waits for the first push"),
    "audit_failure": Choice(SERVE, (SERVE, DENY), "what happens to a get whose audit record is not accepted"),
}


class Config:
    """The values in force: one attribute per key of `KEYS`, and the credential rules."""

    socket_dir: str
    state_dir: str
    cache_default_ttl_seconds: int
    cache_default_max_entries: int
    rate_limit_per_second: int
    rate_limit_burst: int
    max_connections_per_project: int
    max_connections_admin: int
    idle_exit_seconds: int
    credentials_wait_seconds: int
    audit_failure: str
    credentials: list[CredentialRule]

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        """The defaults, overridden by `values`. Raises `ConfigError` for an unknown key or a value
        that is not allowed."""
        values = values or {}
        for key in values:
            if key not in KEYS and key != CREDENTIALS:
                raise ConfigError(f"{printable(key)}: unknown; the keys are {', '.join([*KEYS, CREDENTIALS])}")
        for key, kind in KEYS.items():
            setattr(self, key, kind.check(key, values[key]) if key in values else kind.default)
        try:
            self.credentials = parse_rules(values.get(CREDENTIALS, {}))
        except BadRule as error:
            raise ConfigError(str(error)) from None


def read_file(path: str, *, must_exist: bool) -> dict[str, object]:
    """The keys of a configuration file, unchecked. Raises `ConfigError` with the path in it."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; the import must not happen without a file
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{path}: no such file; leave --config out to run on the defaults") from None
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}; make it readable for the broker's user") from None
    import tomllib  # 11 ms, and most hosts have no file

    text = ""
    try:
        with file:
            text = file.read().decode("utf-8-sig")  # editors on Windows write a byte-order mark
        return tomllib.loads(text)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not TOML: not UTF-8") from None
    except (ValueError, RecursionError) as error:  # for absurdly long or deep input
        raise ConfigError(f"{path}: not TOML: {_duplicate_key(text) or error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}") from None


def _duplicate_key(text: str) -> str:
    """The error for a duplicate key; empty if there is none. tomllib's own message names neither
    the key nor its line."""
    keys = [line.partition("=")[0].strip() for line in text.splitlines()]
    return next((f"duplicate key {key}" for key in KEYS if keys.count(key) > 1), "")


def read_flags(arguments: Sequence[str]) -> tuple[dict[str, object], str, str | None]:
    """Parse the command line: values by configuration key, the audit sink, the path of the
    configuration file."""
    if not arguments:
        return {}, "auto", None
    import argparse

    parser = argparse.ArgumentParser(
        prog="remo-broker",
        usage="remo-broker [OPTION...]",  # the full usage would bury the one line on a mistake
        description="Serves secrets from memory over Unix sockets. See remo-broker(8).",
        allow_abbrev=False,  # an abbreviation may become ambiguous in the next version
    )
    parser.add_argument("--version", action="version", version=f"remo-broker {__version__}")
    parser.add_argument(
        "--config", metavar="FILE", help=f"configuration file (default {paths.CONFIG_FILE} if it exists)"
    )
    parser.add_argument(
        "--audit", choices=("auto", "journal", "stderr"), default="auto", help="where audit records go (default: auto)"
    )
    for key, kind in KEYS.items():
        parser.add_argument(
            f"--{key.replace('_', '-')}",
            dest=key,
            type=int if isinstance(kind.default, int) else str,
            metavar="N" if isinstance(kind.default, int) else "DIR" if key.endswith("_dir") else "WORD",
            help=f"{kind.text} (default {kind.default})",
        )
    options = vars(parser.parse_args(arguments))
    audit_sink, config_file = options.pop("audit"), options.pop("config")
    return {key: value for key, value in options.items() if value is not None}, audit_sink, config_file


def configure(arguments: Sequence[str]) -> tuple[Config, str]:
    """The configuration in force, and the audit sink. Raises `ConfigError`. A misused command line
    exits with 2 and a message."""
    flags, sink, named = read_flags(arguments)
    path = named or paths.CONFIG_FILE
    values = read_file(path, must_exist=named is not None)
    try:
        Config(values)  # the file must be valid by itself: a flag hides no mistake in it
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return Config(values | flags), sink
