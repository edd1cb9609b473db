"""A secret as the client returns it; only the `reveal` methods give its value."""

from __future__ import annotations

from remo_broker.client.scanner import loads


class SecretValue:
    """One fetched secret: a string, a bundle (the compact JSON of an object of strings) or bytes.

    `ttl_seconds` is the time left of the lease; do not keep values. `generation` counts the
    broker's snapshots. `expires_at` is the time (RFC 3339) at which the broker stops handing out
    the secret, if the push set one.
    """

    __slots__ = ("_content", "expires_at", "generation", "name", "ttl_seconds")

    def __init__(
        self, name: str, content: str | bytes, ttl_seconds: int, generation: int, expires_at: str | None = None
    ) -> None:
        self.name = name
        self._content = content
        self.ttl_seconds = ttl_seconds
        self.generation = generation
        self.expires_at = expires_at

    @property
    def binary(self) -> bool:
        """Whether it was pushed as bytes; if so, only `reveal_bytes` returns it."""
        return isinstance(self._content, bytes)

    def reveal(self) -> str:
        """The value of a string, or a bundle's JSON. Raises TypeError for a binary secret."""
        if isinstance(self._content, bytes):
            raise TypeError(f"{self.name} is binary; use reveal_bytes()")
        return self._content

    def reveal_bytes(self) -> bytes:
        """The value as bytes: as pushed, or a string's UTF-8."""
        return self._content if isinstance(self._content, bytes) else self._content.encode("utf-8")

    def reveal_fields(self) -> dict[str, str] | None:
        """A bundle's fields in the order in which they were pushed; None for any other secret.

        The protocol sends a bundle as a string, so a string that is such JSON counts as a bundle.
        """
        if isinstance(self._content, bytes) or not self._content.startswith("{"):
            return None
        from remo_broker.protocol.names import is_secret_name

        try:
            fields = loads(self._content)
            if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
                return None
            # The broker accepts only valid names in a bundle, and no lone surrogate such as
            # "\\ud800".
            if not all(is_secret_name(name) for name in fields):
                return None
            "".join(fields.values()).encode("utf-8")
        except (ValueError, RecursionError):
            return None
        return fields

    def __repr__(self) -> str:
        return f"<SecretValue {self.name}>"

    def __reduce__(self) -> str:
        raise TypeError("a SecretValue is not written anywhere")
