"""The base of all messages: a record whose fields are its annotations.

Plain annotated classes instead of standard dataclasses, because importing `dataclasses` costs the
broker 7 ms of a 20 ms start.

Rules:
- a message may omit a field that has a default; it must have every other field;
- a field whose default is None is left out of the JSON when it is None;
- both sides ignore unknown fields, so that version 2 can grow;
- `repr` never shows a field named in `SECRET_FIELDS`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    M = TypeVar("M", bound="Message")
else:

    def dataclass_transform(**_options):
        return lambda cls: cls


_REQUIRED: Any = object()
_PLAIN: dict[str, type] = {"str": str, "int": int, "bool": bool}
# Class name to class, for the annotations of fields that hold messages.
_kinds: dict[str, type[Message]] = {}


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Message:
    """A record: its fields are its annotations, passed by keyword and never changed afterwards."""

    SECRET_FIELDS: ClassVar[frozenset[str]] = frozenset()
    PROJECT_NAMES: ClassVar[frozenset[str]] = frozenset()
    """The fields that hold a project's name. Clients refuse a reply with one that is not valid."""
    SECRET_NAMES: ClassVar[frozenset[str]] = frozenset()
    """The fields that hold secrets' names: a list, or an object with the names as its keys."""
    FIRST: ClassVar[tuple[str, ...]] = ()
    """The fields that come first in the JSON. The others follow in the order of the classes that
    declare them."""
    FIELDS: ClassVar[dict[str, str]] = {}
    """Field name to the text of its annotation, in JSON order."""

    def __init_subclass__(cls) -> None:
        fields: dict[str, str] = {}
        for base in reversed(cls.__mro__[:-1]):
            fields |= {name: kind for name, kind in base.__annotations__.items() if not kind.startswith("ClassVar")}
        cls.FIELDS = {name: fields[name] for name in cls.FIRST} | fields
        if cls.__name__ in _kinds:
            raise TypeError(f"two messages are called {cls.__name__}")
        _kinds[cls.__name__] = cls

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
        """Whether a message may omit the field `name`."""
        return hasattr(cls, name)

    def to_json(self) -> dict[str, Any]:
        """The fields for `json.dumps`, in order; converts nested messages too."""
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
    """One message as a line of compact JSON. Used for everything except the answer to a `get`,
    which `decisions` builds itself."""
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


class FieldError(Exception):
    """A field is missing or has the wrong type. The text names the field and shows no value."""

    def __init__(self, field: str, kind: str, *, missing: bool = False) -> None:
        super().__init__(f"{field} is missing" if missing else f"{field} is not {kind}")
        self.field = field
        self.kind = kind
        """The text of its annotation."""
        self.missing = missing


def from_fields(kind: type[M], fields: Mapping[str, Any]) -> M:
    """Build a message from a JSON object. Ignores unknown fields. Raises `FieldError`."""
    values = {}
    for name, annotation in kind.FIELDS.items():
        if name in fields:
            values[name] = _value(name, annotation, fields[name])
        elif not kind.optional(name):
            raise FieldError(name, annotation, missing=True)
    return kind(**values)


def _value(name: str, annotation: str, value: Any) -> Any:
    """`value` converted and checked as the annotation of the field `name` requires."""
    plain = annotation.removesuffix(" | None")
    if plain in _PLAIN:
        # The exact type: isinstance takes a bool for an int.
        fits = type(value) is _PLAIN[plain]
    elif plain.startswith("list["):
        fits = isinstance(value, list)
        if fits:
            value = [_value(name, plain[5:-1], item) for item in value]
    elif plain.startswith("dict["):
        fits = isinstance(value, dict)
        item_kind = plain[5:-1].partition(", ")[2]
        if fits and item_kind in _PLAIN:
            value = {key: _value(name, item_kind, item) for key, item in value.items()}
    else:
        fits = isinstance(value, dict)
        if fits:
            value = from_fields(_kinds[plain], value)
    if not fits and not (value is None and plain != annotation):
        raise FieldError(name, annotation)
    return value
