"""What changes when a project's manifest is read again: whether it allows more, and which part
applies if that has to wait.

A project's own code can write its manifest, so anything that allows more is adopted only when an
operator says so: another name, longer or more leases, and bindings and hosts of any kind,
because clients act on them.
"""

from __future__ import annotations

import json

from remo_broker.broker.projects import ManifestSource, Registration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class ManifestChange:
    """The change from the registration in force to what the manifest says now."""

    def __init__(self, before: Registration, fresh: Registration) -> None:
        self.before = before
        self.fresh = fresh
        self.added = [name for name in fresh.allowlist if name not in before.allowlist]
        self.removed = [name for name in before.allowlist if name not in fresh.allowlist]
        old, new = before.source, fresh.source
        # A registration of an earlier version has no source: no operator has seen any binding.
        self.bindings = _differing(_bindings(old), _bindings(new))
        self.hosts = _differing(_hosts(old), _hosts(new))

    @property
    def widens(self) -> bool:
        before, fresh = self.before, self.fresh
        kept = set(fresh.allowlist)
        return bool(
            self.added
            or fresh.ttl_seconds > before.ttl_seconds
            or fresh.max_entries > before.max_entries
            or any(name in kept for name in self.bindings)
            or any(host in _hosts(fresh.source) for host in self.hosts)
        )

    def new_bindings(self) -> dict[str, Any]:
        """What the manifest says of `bindings`."""
        fresh = _bindings(self.fresh.source)
        return {name: fresh[name] for name in self.bindings if name in fresh}

    def new_hosts(self) -> dict[str, str]:
        """What the manifest says of `hosts`."""
        fresh = _hosts(self.fresh.source)
        return {host: fresh[host] for host in self.hosts if host in fresh}

    def narrowed(self) -> Registration:
        """The registration with everything that the manifest removes, and nothing that it adds."""
        before, fresh = self.before, self.fresh
        if not self.widens:
            return fresh
        kept = [name for name in before.allowlist if name in fresh.allowlist]
        source = before.source
        gone = [host for host in self.hosts if host not in _hosts(fresh.source)]
        if source is not None and (self.removed or gone):
            hosts = {host: name for host, name in source.hosts.items() if name in kept and host not in gone}
            bindings = {name: value for name, value in _bindings(source).items() if name in kept}
            text = json.dumps(bindings, separators=(",", ":")).encode("ascii")
            source = ManifestSource(source.path, source.sha256, hosts, text)
        ttl, entries = min(before.ttl_seconds, fresh.ttl_seconds), min(before.max_entries, fresh.max_entries)
        limits = before.ttl_seconds, before.max_entries
        if source is before.source and len(kept) == len(before.allowlist) and (ttl, entries) == limits:
            return before
        return Registration(
            before.name, before.project_path, kept, ttl, entries, before.allowed_uids, source, any_name=before.any_name
        )


def _bindings(source: ManifestSource | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(source.bindings) if source is not None else {}
    return found


def _hosts(source: ManifestSource | None) -> dict[str, str]:
    return source.hosts if source is not None else {}


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """The keys whose values differ, including those that only one side has."""
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]
