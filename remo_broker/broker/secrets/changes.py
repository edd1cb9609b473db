"""What a push changes: its names against those of the snapshot that it replaces, compared where the
values lie."""

from __future__ import annotations

from remo_broker.broker.secrets.strict_json import BYTES_PER_UNIT_SHIFT, STEP_BUDGET
from remo_broker.protocol.replies import PushChanges
from remo_broker.protocol.shared_limits import MAX_NAMED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from typing import TypeAlias

    # As the store keeps them: the index of the view, start and end, whether it is base64.
    Secrets: TypeAlias = Mapping[str, tuple[int, int, int, bool]]


def compare(
    secrets: Secrets,
    views: Sequence[memoryview],
    old_secrets: Secrets,
    old_views: Sequence[memoryview],
    is_retired: Callable[[], bool],
) -> Generator[None, None, PushChanges | None]:
    """Compare in steps. None if the old snapshot was retired meanwhile."""
    added, changed = [], []
    budget = STEP_BUDGET
    for name, (region, start, end, binary) in secrets.items():
        before = old_secrets.get(name)
        if before is None:
            added.append(name)
        else:
            at, begin, after, was_binary = before
            if (
                binary != was_binary
                or end - start != after - begin
                or views[region][start:end] != old_views[at][begin:after]
            ):
                changed.append(name)
            budget -= end - start >> BYTES_PER_UNIT_SHIFT
        budget -= 1
        if budget <= 0:
            budget = STEP_BUDGET
            yield
            if is_retired():
                return None
    removed = [name for name in old_secrets if name not in secrets]
    return PushChanges(
        added_count=len(added),
        removed_count=len(removed),
        changed_count=len(changed),
        added_names=added[:MAX_NAMED],
        removed_names=removed[:MAX_NAMED],
        changed_names=changed[:MAX_NAMED],
    )
