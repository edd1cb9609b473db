"""A JSON document with the line of each value, and numbers as they were written.

The `json` module keeps neither: `1.10` would become the float 1.1, and an error could not name the
line of a key.
"""

from __future__ import annotations

import re
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]  # no stub has it

from remo_broker.cli.input_fault import InputFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Secrets are two levels deep; wrappers of other programs add a few.
MAX_NESTING = 64

_space = re.compile(r"[ \t\r\n]*").match
_literal = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)(?![\w.+-])").match
# NaN and Infinity, as Python prints them; True, 007, 0x1f, .5.
_word = re.compile(r"[\w.+-]").match
# A control character inside a string. At the end of the text, it is only the line end of a document
# that is cut off.
_control = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*+[\x00-\x1f](?!\s*\Z)').match
_surrogate = re.compile("[\ud800-\udfff]").search
# Keys that an error may repeat. Anything else may be a misplaced value.
_plain_key = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z").match
_identifier = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z").match

# What to do about the character where JSON ends, as other notations have it.
_ADVICE = {
    "": "correct the JSON there; if a program wrote it, it may have failed",
    "'": 'correct the JSON there: strings are in double quotes, "…"',
    "/": "correct the JSON there: it has no comments",
    "#": "correct the JSON there: it has no comments",
}


class Node:
    """One value of a document. Its kinds:

    - `string`, and `literal` (a number, true or false): `text`, for a literal as it was written
    - `null`
    - `object`: `members`
    - `list`: `items`
    """

    __slots__ = ("items", "jq", "key", "kind", "line", "members", "text")

    def __init__(self, kind: str, line: int, place: NodePath, text: str = "") -> None:
        self.kind = kind
        self.line = line
        self.key = place.key
        self.jq = place.jq
        self.text = text
        self.members: dict[str, Node] = {}
        self.items: list[Node] = []

    def __repr__(self) -> str:
        return f"Node({self.kind}, line {self.line})"


class NodePath:
    """Where a value is: `key` for errors, `aws.keys.2`, and `jq` for commands, `.aws.keys[2]`.

    `jq` is empty if a key on the path is not shown.
    """

    __slots__ = ("depth", "jq", "key")

    def __init__(self, key: str | None, jq: str, depth: int) -> None:
        self.key = key
        self.jq = jq
        self.depth = depth

    def member(self, name: str, position: int) -> NodePath:
        shown = shown_key(name, position)
        jq = f"{self.jq}.{name}" if _identifier(name) else f'{self.jq}."{name}"'
        known = shown == name and (self.jq or not self.depth)
        return NodePath(f"{self.key}.{shown}" if self.key else shown, jq if known else "", self.depth + 1)

    def item(self, index: int) -> NodePath:
        jq = f"{self.jq or '.'}[{index}]" if self.jq or not self.depth else ""
        return NodePath(f"{self.key}.{index}" if self.key else str(index), jq, self.depth + 1)


def shown_key(name: str, position: int) -> str:
    """A key as shown in an error; `position` counts from 1."""
    return name if _plain_key(name) else f"(key {position})"


def read(text: str, source: str) -> Node:
    """The document in `text`.

    Raises `InputFault` for invalid JSON, a duplicate key, and half a surrogate pair.
    """
    return _JsonReader(text, source).document()


class _JsonReader:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._position = 0
        self._line = 1

    def document(self) -> Node:
        node = self._value(NodePath(None, "", 0))
        sign = self._peek()
        if sign and sign not in '{["':
            raise self._fault("text after the JSON document", "remove it")
        if sign:
            raise self._fault(
                "more than one JSON document", "put all secrets into one object; 'jq -s add' merges several"
            )
        return node

    def _peek(self) -> str:
        """Skip blanks and return the next character without consuming it; empty at the end."""
        end = _space(self._text, self._position).end()  # type: ignore[union-attr]  # it always matches
        self._line += self._text.count("\n", self._position, end)
        self._position = end
        return self._text[end : end + 1]

    def _take(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._not_json()
        self._position += 1

    def _value(self, place: NodePath) -> Node:
        if place.depth > MAX_NESTING:
            raise self._fault("nested too deep", "a value is a string, or an object of strings")
        sign = self._peek()
        line = self._line
        if sign == '"':
            return Node("string", line, place, self._string(place))
        if sign == "{":
            node = Node("object", line, place)
            for _ in self._entries("{", "}"):
                self._member(node, place)
            return node
        if sign == "[":
            node = Node("list", line, place)
            for index in self._entries("[", "]"):
                node.items.append(self._value(place.item(index)))
            return node
        found = _literal(self._text, self._position)
        if found is None:
            if _word(self._text, self._position):
                what = "neither a string nor a number, true or false as JSON writes them"
                hint = 'put quotes around it, if it is a value: "…"'
                raise InputFault(self._source, what, line=line, key=place.key, hint=hint)
            raise self._not_json()
        self._position = found.end()
        return Node("null" if found.group() == "null" else "literal", line, place, found.group())

    def _entries(self, opening: str, closing: str) -> Iterator[int]:
        self._take(opening)
        count = 0
        while self._peek() != closing or count:
            if count:
                if self._peek() == closing:
                    break
                self._take(",")
            yield count
            count += 1
        self._take(closing)

    def _member(self, node: Node, place: NodePath) -> None:
        if self._peek() != '"':
            raise self._not_json()
        line = self._line
        name = self._string(place)
        inner = place.member(name, len(node.members) + 1)
        if name in node.members:
            raise InputFault(self._source, "duplicate key", line=line, key=inner.key, hint="keep one of them")
        self._take(":")
        node.members[name] = self._value(inner)

    def _string(self, place: NodePath) -> str:
        """The string that begins here: the value at `place`, or a key of the object there."""
        try:
            value: str
            value, self._position = scanstring(self._text, self._position + 1, True)
        except JSONDecodeError as error:
            control = _control(self._text, self._position) is not None
            self._line += self._text.count("\n", self._position, error.pos)
            self._position = error.pos
            value = ""
        else:
            if _surrogate(value) is None:
                return value
            what = r"half of a surrogate pair (\ud800 to \udfff)"
            hint = "write both halves, or the character itself; push bytes that are not text in secrets_b64"
            raise InputFault(self._source, what, line=self._line, key=place.key, hint=hint)
        # Not raised from the decoder's error, which holds the document.
        if control:
            what = "a line break or another control character in a string"
            hint = r"write \n for a line break, \t for a tab, \u00.. for others"
            raise InputFault(self._source, what, line=self._line, key=place.key, hint=hint)
        raise self._not_json()

    def _not_json(self) -> InputFault:
        column = self._position - self._text.rfind("\n", 0, self._position)
        sign = self._text[self._position :].lstrip()[:1]
        what = f"not JSON from column {column} on" if sign else "the JSON document is cut off"
        if sign and sign in "}]" and self._text[: self._position].rstrip().endswith(","):
            return self._fault(what, "correct the JSON there: remove the comma before it")
        return self._fault(what, _ADVICE.get(sign, "correct the JSON there"))

    def _fault(self, what: str, hint: str) -> InputFault:
        return InputFault(self._source, what, line=self._line, hint=hint)
