"""Ratios point the right way, pairs are interleaved, every figure comes from the work that was done."""

import pytest

from stillhouse import speed
from stillhouse.speed import measure_speed, median_interval, peak_memory_mb, speed_ratio


class Clock:
    """A clock that only the scorers move."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Settling is outside of what is timed."""
        self.now += seconds


class Worker:
    """A scorer that takes a fixed time for each row."""

    def __init__(self, seconds: float, calls: list[str], name: str, clock: Clock) -> None:
        self.seconds, self.calls, self.name, self.clock = seconds, calls, name, clock

    def score(self, rows):
        self.calls.append(self.name)
        self.clock.now += self.seconds * len(rows)
        return [0 for _ in rows]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    return clock


def test_the_ratio_is_the_candidates_speed_over_the_baselines(clock):
    calls: list[str] = []
    workers = Worker(0.012, calls, "slow", clock), Worker(0.003, calls, "fast", clock)
    ratio = speed_ratio(*workers, ["a", "b"], pairs=6)
    assert list(ratio.values()) == pytest.approx([4, 4, 4])
    warm, pairs = calls[:4], [calls[i : i + 7] for i in range(4, len(calls), 7)]
    assert warm == ["slow", "slow", "fast", "fast"]
    # Each wakes up outside the clock, then the fast one does four passes while the slow one does one.
    slow, fast = ["slow"] * 2, ["fast"] * 5
    assert pairs == [slow + fast, fast + slow] * 3


def test_the_interval_leaves_out_only_what_the_sample_can_afford():
    assert median_interval([3, 1, 2, 5, 4]) == {"median": 3, "low": 1, "high": 5}
    assert median_interval(range(1, 10)) == {"median": 5, "low": 2, "high": 8}
    wide = median_interval(range(1, 41))
    assert 12 <= wide["low"] <= 15 and 26 <= wide["high"] <= 29


def test_speed_counts_rows_and_single_rows(clock):
    calls: list[str] = []
    found = measure_speed(Worker(0.004, calls, "a", clock), ["x"] * 1000, seconds=3)
    assert found == pytest.approx({"texts_per_second": 250, "latency_p50_ms": 4, "latency_p95_ms": 4})
    assert clock.now == pytest.approx(3.7, abs=0.6), "about the seconds asked for, plus the warm-up"
    assert len(calls) >= 250


def test_no_rows_and_few_pairs_are_refused(clock):
    worker = Worker(0, [], "a", clock)
    with pytest.raises(ValueError, match="at least one row"):
        measure_speed(worker, [])
    with pytest.raises(ValueError, match="from 5"):
        speed_ratio(worker, worker, ["x"], pairs=4)


def test_memory_is_that_of_this_process():
    before = peak_memory_mb()
    held = bytearray(b"x") * 2**26
    assert 10 < before <= peak_memory_mb() < 100_000
    assert len(held) == 2**26
