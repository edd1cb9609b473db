"""The configuration: file, flags, limits, and error messages."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from remo_broker.protocol import paths
from remo_broker.protocol.config import KEYS, Config, ConfigError, read_file, read_flags

# The defaults that remo-broker.toml(5) documents.
DEFAULTS = {
    "socket_dir": "/run/remo-broker",
    "state_dir": "/var/lib/remo-broker",
    "cache_default_ttl_seconds": 900,
    "cache_default_max_entries": 64,
    "rate_limit_per_second": 200,
    "rate_limit_burst": 1000,
    "max_connections_per_project": 256,
    "max_connections_admin": 32,
    "idle_exit_seconds": 300,
    "credentials_wait_seconds": 30,
    "audit_failure": "serve",
}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        Config(values)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_defaults() -> None:
    assert list(KEYS) == list(DEFAULTS)
    assert vars(Config()) == vars(Config({})) == DEFAULTS | {"credentials": []}
    assert (DEFAULTS["socket_dir"], DEFAULTS["state_dir"]) == (paths.SOCKET_DIR, paths.STATE_DIR)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("socket_dir", ["/tmp/s", "/"]),
        ("state_dir", ["/var/tmp"]),
        ("cache_default_ttl_seconds", [1, 86_400]),
        ("cache_default_max_entries", [1, 1024]),
        ("rate_limit_per_second", [0, 1_000_000]),
        ("rate_limit_burst", [0, 1_000_000]),
        ("max_connections_per_project", [1, 65_536]),
        ("max_connections_admin", [1, 1024]),
        ("idle_exit_seconds", [0, 86_400]),
        ("credentials_wait_seconds", [0, 3600]),
        ("audit_failure", ["serve", "deny"]),
    ],
)
def test_valid_values(key: str, values: list[Any]) -> None:
    for value in values:
        assert vars(Config({key: value})) == DEFAULTS | {"credentials": [], key: value}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("socket_dir", ["", "s", "./s", "/a\0b", 5, None, ["/tmp"]]),
        ("state_dir", ["~/s", True]),
        ("cache_default_ttl_seconds", [0, -1, 86_401, 1.5, "900", True, None, [900]]),
        ("cache_default_max_entries", [0, 1025, "64"]),
        ("rate_limit_per_second", [-1, 1_000_001, False]),
        ("rate_limit_burst", [-1, 1_000_001]),
        ("max_connections_per_project", [0, 65_537]),
        ("max_connections_admin", [0, 1025]),
        ("idle_exit_seconds", [-1, 86_401, 0.5]),
        ("credentials_wait_seconds", [-1, 3601, "30"]),
        ("audit_failure", ["", "SERVE", "ignore", 1, None, ["serve"], {}]),
    ],
)
def test_invalid_values(key: str, values: list[Any]) -> None:
    for value in values:
        assert refusal({key: value}).startswith(f"{key}: ")


def test_an_unknown_key_is_named() -> None:
    text = refusal({"rate_limit": 5})
    assert text.startswith("rate_limit: ")
    assert all(key in text for key in KEYS)
    assert "\x1b" not in refusal({"\x1b[2J\n": 5})


def test_a_path_is_normalised() -> None:
    assert Config({"socket_dir": "/run//remo-broker/../x/"}).socket_dir == "/run/x"


# --- the file


def test_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('# comment\nrate_limit_per_second = 0\naudit_failure = "deny"\n')
    assert read_file(str(path), must_exist=True) == {"rate_limit_per_second": 0, "audit_failure": "deny"}
    path.write_text("")
    assert read_file(str(path), must_exist=False) == {}


def test_a_byte_order_mark_is_ignored(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfrate_limit_per_second = 0\n")
    assert read_file(str(path), must_exist=True) == {"rate_limit_per_second": 0}


def test_no_file(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "none.toml")
    assert read_file(path, must_exist=False) == {}
    with pytest.raises(ConfigError, match="no such file"):
        read_file(path, must_exist=True)


@pytest.mark.parametrize(
    "content",
    [
        b"rate_limit_per_second 5",
        b"rate_limit_per_second = 5\nrate_limit_per_second = 6",
        b"\xff",
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 100_000,
        b"a = 'x",
        b"[a\n",
    ],
)
def test_a_file_that_is_not_toml(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_file(str(path), must_exist=False)
    assert str(raised.value).startswith(f"{path}: not TOML: ")
    assert "\n" not in str(raised.value)


def test_a_directory_instead_of_a_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        read_file(str(tmp_path), must_exist=False)


# --- flags


def test_every_key_is_a_flag() -> None:
    flags = []
    for key, value in DEFAULTS.items():
        flags += [f"--{key.replace('_', '-')}", str(value)]
    assert read_flags(flags) == (DEFAULTS, "auto", None)
    assert read_flags([]) == ({}, "auto", None)
    assert read_flags(["--config", "/c", "--audit", "stderr"]) == ({}, "stderr", "/c")
