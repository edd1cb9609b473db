"""What a message is: a record whose fields are its annotations.

Plain annotated classes and not standard dataclasses, because importing `dataclasses` costs the broker 7 ms of a 20 ms
start.

Rules:
- a field with a default may be left out of a message; one without may not;
- a field whose default is None is left out of the JSON when it is None;
- unknown fields are ignored by both sides, so that version 2 can grow;
- a field named in `SECRET_FIELDS` is never shown by `repr`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, dataclass_transform
else:

    def dataclass_transform(**_options):
        return lambda cls: cls


_REQUIRED: Any = object()


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Message:
    """A record: its fields are its annotations in order, given by keyword, not changed afterwards."""

    SECRET_FIELDS: ClassVar[frozenset[str]] = frozenset()
    FIELDS: ClassVar[dict[str, str]] = {}
    """Field name to the text of its annotation, in the order in which the JSON has them."""

    def __init_subclass__(cls) -> None:
        own = {name: kind for name, kind in cls.__annotations__.items() if not kind.startswith("ClassVar")}
        cls.FIELDS = cls.FIELDS | own

    def __init__(self, **values: Any) -> None:
        for name in self.FIELDS:
            value = values.pop(name, _REQUIRED)
            if value is _REQUIRED:
                value = getattr(type(self), name, _REQUIRED)
                if value is _REQUIRED:
                    raise TypeError(f"{type(self).__name__} needs {name}")
            self.__dict__[name] = value
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    @classmethod
    def optional(cls, name: str) -> bool:
        """Whether a message may leave the field `name` out."""
        return hasattr(cls, name)

    def to_json(self) -> dict[str, Any]:
        """The fields for `json.dumps`, in order; nested messages too."""
        fields: dict[str, Any] = {}
        for name in self.FIELDS:
            value = getattr(self, name)
            if value is None and getattr(type(self), name, _REQUIRED) is None:
                continue
            if isinstance(value, Message):
                value = value.to_json()
            elif isinstance(value, list):
                value = [item.to_json() if isinstance(item, Message) else item for item in value]
            fields[name] = value
        return fields

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'<secret>' if name in self.SECRET_FIELDS else repr(getattr(self, name))}" for name in self.FIELDS
        )
        return f"{type(self).__name__}({shown})"


def encode(fields: dict[str, object]) -> bytes:
    """One message as a line of compact JSON. For everything but the answer to a `get`, which `decisions` lays out itself."""
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
