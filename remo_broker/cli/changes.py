"""What a push has changed, for people."""

from __future__ import annotations

from remo_broker.cli.text import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.cli.terminal import Output
    from remo_broker.protocol.replies import PushChanges


def show_changes(output: Output, changes: PushChanges | None) -> None:
    """One line of counts; the names on a terminal only, because other output may be a log.

    An older broker does not say what has changed.
    """
    if changes is None:
        return
    output.line(f"Added {changes.added_count}, removed {changes.removed_count}, changed {changes.changed_count}.")
    if not output.terminal:
        return
    kinds = (
        ("+", changes.added_names, changes.added_count),
        ("-", changes.removed_names, changes.removed_count),
        ("~", changes.changed_names, changes.changed_count),
    )
    for sign, names, count in kinds:
        for name in names:
            output.line(f"  {sign} {escaped(name)}")
        if count > len(names):
            output.line(f"  {sign} ... and {count - len(names)} more")
