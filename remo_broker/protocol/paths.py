"""Paths on a host. A flag can change each; these are the defaults that the units and man pages
name."""

from __future__ import annotations

SOCKET_DIR = "/run/remo-broker"
STATE_DIR = "/var/lib/remo-broker"
# In the broker's state: the id of its last start.
LAST_START_FILE = "last-start"
CONFIG_FILE = "/etc/remo-broker/config.toml"
SIDECAR_CONFIG_FILE = "/etc/remo-broker/sidecar.toml"
SECRETS_DIR = "/etc/remo-broker/secrets"

ADMIN_SOCKET = "admin.sock"
STATUS_SOCKET = "status.sock"
# Sockets to be mounted into containers, one directory per project.
MOUNT_DIR = "mount"
MOUNT_SOCKET = "broker.sock"
# Sockets between the broker and its helpers. If the directory exists, the broker has systemd start
# the helpers.
INTERNAL_DIR = "internal"
BIND_SOCKET = "bind.sock"
MANIFEST_SOCKET = "manifest.sock"
READ_BACK_SOCKET = "read-back.sock"
# Between remo-brokerctl and the helper that enables projects' socket units.
ENABLE_SOCKET = "enable.sock"
CREDENTIALS_SOCKET = "credentials.sock"
# The unit of the admin socket, which also enables the broker's other control sockets.
ADMIN_UNIT = "remo-broker-admin.socket"
# Exists if systemd runs: sd_booted(3).
SYSTEMD_MARK = "/run/systemd/system"


def project_socket(socket_dir: str, project: str) -> str:
    """The path of a project's socket. `project` has passed `names.is_project_name`."""
    return f"{socket_dir}/{project}.sock"


def mount_directory(socket_dir: str, project: str) -> str:
    """The directory to mount into a project's containers."""
    return f"{socket_dir}/{MOUNT_DIR}/{project}"


def mount_socket(socket_dir: str, project: str) -> str:
    return f"{mount_directory(socket_dir, project)}/{MOUNT_SOCKET}"


def internal_socket(socket_dir: str, name: str) -> str:
    return f"{socket_dir}/{INTERNAL_DIR}/{name}"
