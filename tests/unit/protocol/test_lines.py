"""The line buffer: the lines do not depend on how the bytes were split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remo_broker.protocol.lines import LineBuffer


@given(st.lists(st.binary(max_size=9)), st.lists(st.integers(1, 5), min_size=1))
def test_lines_do_not_depend_on_how_the_bytes_were_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    buffer, found, position, turn = LineBuffer(), [], 0, 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        buffer.feed(data[position : position + size])
        position, turn = position + size, turn + 1
        if turn % 2:  # lines may also accumulate
            while (line := buffer.next_line()) is not None:
                found.append(line)
    while (line := buffer.next_line()) is not None:
        found.append(line)
    *whole, rest = data.split(b"\n")
    assert found == whole
    assert len(buffer) == len(rest)
    assert buffer.last_line() == (rest or None)
    assert len(buffer) == 0
    assert buffer.last_line() is None
