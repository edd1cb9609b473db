"""What is wrong with an input, and where."""

from __future__ import annotations

from remo_broker.cli.program import Problem


class InputFault(Problem):
    """An unusable input. The message begins with the source, the line and the key's path."""

    def __init__(
        self, source: str, what: str, *, line: int | None = None, key: str | None = None, hint: str | None = None
    ) -> None:
        place = source if line is None else f"{source}:{line}"
        super().__init__(": ".join([place, *([key] if key else []), what]), hint=hint)
        self.source = source
        self.what = what
        self.line = line
        self.key = key
        """The place in a JSON document, `aws.keys.2`.

        A key that could be a misplaced value is shown by its number.
        """
