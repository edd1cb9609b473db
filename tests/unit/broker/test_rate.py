"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remo_broker.broker.rate import Bucket


def taken(bucket: Bucket, now: float, attempts: int) -> int:
    return sum(bucket.take(now) for _ in range(attempts))


def test_a_burst_and_then_the_rate() -> None:
    bucket = Bucket(10, 5)
    assert taken(bucket, 1000.0, 50) == 5
    assert taken(bucket, 1000.05, 50) == 0
    assert taken(bucket, 1000.1, 50) == 1
    assert taken(bucket, 1001.1, 50) == 5  # ten were added, but only the burst is kept
    assert taken(bucket, 2000.0, 50) == 5


def test_refused_requests_take_no_tokens() -> None:
    """A client that keeps trying does not keep the bucket empty."""
    bucket = Bucket(10, 1)
    assert bucket.take(0.0)
    assert sum(bucket.take(number / 1000) for number in range(1, 1001)) >= 9


def test_no_limit() -> None:
    for bucket in (Bucket(0, 5), Bucket(5, 0)):
        assert taken(bucket, 1.0, 10_000) == 10_000
        assert bucket.retry_after_seconds() == 0


def test_the_time_until_the_next_token() -> None:
    bucket = Bucket(1, 1)
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.retry_after_seconds() == 1
    fast = Bucket(1000, 1)
    fast.take(0.0)
    assert fast.retry_after_seconds() == 1


@given(st.integers(1, 50), st.integers(1, 50), st.lists(st.floats(0, 0.5), max_size=200))
def test_never_more_than_burst_and_rate(per_second: int, burst: int, pauses: list[float]) -> None:
    bucket = Bucket(per_second, burst)
    now = start = 50.0
    count = 0
    for pause in pauses:
        now += pause
        count += bucket.take(now)
    assert count <= burst + per_second * (now - start) + 1e-6
