"""Where things lie on a host. Each can be moved by a flag; these are the defaults that the units and man pages name."""

from __future__ import annotations

SOCKET_DIR = "/run/remo-broker"
STATE_DIR = "/var/lib/remo-broker"
CONFIG_FILE = "/etc/remo-broker/config.toml"
SIDECAR_CONFIG_FILE = "/etc/remo-broker/sidecar.toml"
SECRETS_DIR = "/etc/remo-broker/secrets"

ADMIN_SOCKET = "admin.sock"
STATUS_SOCKET = "status.sock"


def project_socket(socket_dir: str, project: str) -> str:
    """The path of a project's socket. `project` has passed `names.is_project_name`."""
    return f"{socket_dir}/{project}.sock"
