"""Find the secrets in a JSON document: the accepted shapes, and advice for others.

Accepted are an object of values and bundles; a list of objects that each have a name and a value;
the protocol's own `secrets` and `secrets_b64`; and what fnox exports (`secrets` and `metadata`). An
ambiguous document is an error, which shows the command that makes it unambiguous.
"""

from __future__ import annotations

import re

from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.json_text import Node, read, shown_key
from remo_broker.cli.text import listed
from remo_broker.protocol.names import is_secret_name
from remo_broker.protocol.ops import ADMIN_REQUESTS, PushCreds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAMES = "names have 1 to 128 letters, digits and underscores"
WRITE = 'write {"NAME": "value"}'

TEXTS, BINARIES, EXPIRES, METADATA = "secrets", "secrets_b64", "expires", "metadata"
# Keys that hold the name in a list's entries, as 1Password, Bitwarden and Infisical print them.
_LABELS = ("label", "name", "key", "id")
_VALUE = "value"


class Document:
    """The parts of a document, names to values."""

    __slots__ = ("binaries", "expires", "source", "texts")

    def __init__(self, text: str, source: str, select: Sequence[str]) -> None:
        self.source = source
        self.binaries: dict[str, Node] = {}
        self.expires: dict[str, Node] = {}
        node = self._selected(read(text, source), select)
        if not select:
            for what, hint, is_it in FOREIGN:
                if is_it(node):
                    raise InputFault(source, what, line=node.line, hint=hint)
        if node.kind == "list":
            self.texts = self._of_list(node)
        elif node.kind == "object":
            self.texts = self._without_op(node) if not select else node.members
        else:
            raise self.fault(node, f"{_a(node)}, not an object", WRITE)
        # A bundle that is itself called `secrets` must be put into `secrets`.
        if not select and any(self._has_object(field) for field in (TEXTS, BINARIES)):
            self._split()

    def _has_object(self, field: str) -> bool:
        return field in self.texts and self.texts[field].kind == "object"

    def _split(self) -> None:
        form = self.texts
        for position, (field, node) in enumerate(form.items(), 1):
            if field not in (TEXTS, BINARIES, EXPIRES, METADATA):
                what = f"{shown_key(field, position)} is not allowed beside {TEXTS} and {BINARIES}"
                raise InputFault(self.source, what, line=node.line, key=node.key, hint=f"move it into {TEXTS}")
            if node.kind != "object" and not (field == METADATA and node.kind == "null"):
                raise self.fault(node, f"{_a(node)}, not an object", WRITE)
        self.texts, self.binaries, self.expires = (
            form[field].members if field in form else {} for field in (TEXTS, BINARIES, EXPIRES)
        )

    def _selected(self, node: Node, select: Sequence[str]) -> Node:
        for depth, key in enumerate(select):
            if key in node.members:
                node = node.members[key]
            elif key.isascii() and key.isdigit() and int(key) < len(node.items):
                node = node.items[int(key)]
            else:
                shown = [one for at, one in enumerate(node.members, 1) if shown_key(one, at) == one]
                hint = f"correct select; the keys there are {listed(shown)}" if shown else "correct select"
                path = ".".join(select[: depth + 1])
                raise InputFault(self.source, "not there", line=node.line, key=path, hint=hint)
        return node

    def _of_list(self, node: Node) -> dict[str, Node]:
        """The members in a list of `{"label": NAME, "value": VALUE}`.

        Entries without a value are left out.
        """
        found: dict[str, Node] = {}
        for position, entry in enumerate(node.items, 1):
            labels = (entry.members[key] for key in _LABELS if key in entry.members)
            label = next((one.text for one in labels if one.kind == "string"), None)
            if label is None:
                hint = f"{WRITE}, or give the object that holds the secrets"
                raise self.fault(entry, "not an object with a name and a value", hint)
            value = entry.members.get(_VALUE)
            if value is None or value.kind == "null":
                continue
            if label in found:
                what = f"duplicate name {shown_key(label, position)}"
                raise self.fault(entry, what, "keep one of them")
            found[label] = value
        return found

    def _without_op(self, node: Node) -> dict[str, Node]:
        """The members.

        A client's push request is accepted without its `op`; other requests are refused.
        """
        op = node.members.get("op")
        if op is None or op.kind != "string":
            return node.members
        if op.text == PushCreds.OP and not {TEXTS, BINARIES}.isdisjoint(node.members):
            return {field: one for field, one in node.members.items() if field != "op"}
        if op.text in ADMIN_REQUESTS:
            raise self.fault(op, f"a request with the op {op.text}, not secrets", WRITE)
        return node.members

    # --- values

    def checked(self, key: str, node: Node, name: str) -> str:
        """`name`, if the value at `key` can be a secret of that name."""
        if is_secret_name(name):
            return name
        raise self.fault(node, "not a valid name for a secret", name_hint(key, node))

    def value(self, node: Node) -> str | dict[str, str]:
        """A string, a number or boolean as written, or an object of these."""
        if node.kind != "object":
            return self._text(node)
        for field, inner in node.members.items():
            if not is_secret_name(field):
                raise self.fault(inner, "not a valid name for a field", name_hint(field, inner))
        return {field: self._text(inner) for field, inner in node.members.items()}

    def _text(self, node: Node) -> str:
        if node.kind in ("string", "literal"):
            return node.text
        as_text = f"push it as JSON text: jq '{node.jq} |= tojson'" if node.jq else "write it as a string"
        if node.kind == "null":
            remove = f"remove it (jq 'del({node.jq})')" if node.jq else "remove it"
            raise self.fault(node, "null is not a value", f'{remove}, or write "" for an empty value')
        if node.kind == "object":
            raise self.fault(
                node, "an object inside an object", f"select the object that holds the secrets, or {as_text}"
            )
        if node.jq and node.items and all(_VALUE in item.members for item in node.items):
            as_text = f"if each is a secret, push what 'jq {node.jq}' makes of it; if not, {as_text}"
        elif node.jq and node.items and all(item.kind in ("string", "literal") for item in node.items):
            as_text = f"join it: jq '{node.jq} |= join(\",\")'; or {as_text}"
        raise self.fault(node, _a(node), as_text)

    def binary(self, node: Node) -> bytes:
        import binascii

        try:
            if node.kind == "string":
                return binascii.a2b_base64(node.text, strict_mode=True)
        except ValueError:  # binascii.Error, or non-ASCII letters
            pass
        raise self.fault(node, "not base64", "encode it with 'base64 -w0'")

    def time(self, node: Node) -> str:
        if node.kind == "string":
            return node.text
        raise self.fault(node, "not a string", 'write a time such as "2026-05-31T03:30:00Z"')

    def fault(self, node: Node, what: str, hint: str) -> InputFault:
        return InputFault(self.source, what, line=node.line, key=node.key, hint=hint)


def name_hint(name: str, node: Node | None = None) -> str:
    """What to do about an invalid name. Suggests nothing for a key that is not shown."""
    better = re.sub("[^A-Za-z0-9_]", "_", name)
    hidden = node is not None and not node.jq
    return NAMES if hidden or not is_secret_name(better) else f"{NAMES}; rename it, for instance to {better}"


def _a(node: Node) -> str:
    if node.kind == "list":
        objects = bool(node.items) and all(item.kind == "object" for item in node.items)
        return "an empty list" if not node.items else "a list of objects" if objects else "a list"
    return {"object": "an object", "null": "null", "string": "a string"}.get(node.kind, "a number or boolean")


# --- documents of other programs, whose shape says what they are ----------------------------------


def _has(*paths: tuple[str, ...]) -> Callable[[Node], bool]:
    def is_it(node: Node) -> bool:
        for path in paths:
            inner: Node | None = node
            for step in path:
                inner = inner.members.get(step) if inner is not None else None
            if inner is None:
                return False
        return True

    return is_it


def _all_have(field: str) -> Callable[[Node], bool]:
    return lambda node: bool(node.members) and all(field in one.members for one in node.members.values())


def _is_kubernetes_secret(node: Node) -> bool:
    kind = node.members.get("kind")
    return kind is not None and kind.text == "Secret" and "data" in node.members


# What it is, what to do, and how it is recognised.
FOREIGN: list[tuple[str, str, Callable[[Node], bool]]] = [
    ("a Kubernetes Secret", "push what 'jq \"{secrets_b64: .data}\"' makes of it", _is_kubernetes_secret),
    ("a reply of Vault", "push what 'jq .data.data' makes of it", _has(("request_id",), ("data", "data"))),
    ("a reply of Vault", "push what 'jq .data' makes of it", _has(("request_id",), ("data",))),
    (
        "a reply of AWS Secrets Manager",
        "push what 'jq -r .SecretString' makes of it",
        _has(("ARN",), ("SecretString",)),
    ),
    ("a file that SOPS has encrypted", "push what 'sops decrypt' makes of it", _has(("sops", "mac"))),
    (
        "secrets of Doppler with metadata",
        "push what 'doppler secrets download --no-file --format json' prints",
        _all_have("computed"),
    ),
]
