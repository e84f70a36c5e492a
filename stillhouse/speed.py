"""Speed of a scorer, and of one against another: tokenization inside the clock, pairs interleaved."""

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.scorer import Scorer

MAX_PAIRS = 64
SETTLE_SECONDS = 0.2
WAKE_ROWS = 16


def measure_speed(scorer: Scorer, rows: Sequence[Any], seconds: float = 3.0) -> dict[str, float]:
    """`{"texts_per_second", "latency_p50_ms", "latency_p95_ms"}` over `rows`, in about `seconds` after a warm-up.

    Throughput is the median over whole passes in the scorer's own batches; latency is that of single rows.
    """
    rows = pass_rows(scorer, rows, seconds / 4)
    passes = _repeat(lambda turn: scorer.score(rows), seconds * 2 / 3, at_least=3)
    singles = _repeat(lambda turn: scorer.score([rows[turn % len(rows)]]), seconds / 3, at_least=20)
    return {
        "texts_per_second": len(rows) / statistics.median(passes),
        "latency_p50_ms": 1000 * statistics.median(singles),
        "latency_p95_ms": 1000 * percentile(singles, 0.95),
    }


def speed_ratio(baseline: Scorer, candidate: Scorer, rows: Sequence[Any], pairs: int = 5) -> dict[str, float]:
    """Candidate's speed over the baseline's on `rows`: `{"median", "low", "high"}` over interleaved pairs.

    Each pair runs one right after the other, the first of them alternating, and the faster one repeats its rows until
    both take about as long, so that a slow moment hits both alike. Before each turn the other runtime's threads get
    time to stop spinning, and a few rows wake its own. The interval is that of the median from order statistics; with
    up to 8 pairs it is the whole range.
    """
    if not 5 <= pairs <= MAX_PAIRS:
        raise ValueError(f"pairs must be from 5 to {MAX_PAIRS}, not {pairs}")
    scorers = (baseline, candidate)
    warm = [_settled_seconds(scorer, rows, 1) for scorer in scorers]
    turns = [max(1, round(max(warm) / max(seconds, 1e-9))) for seconds in warm]
    ratios = []
    for pair in range(pairs):
        taken = [0.0, 0.0]
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            taken[which] = _settled_seconds(scorers[which], rows, turns[which])
        ratios.append(taken[0] / taken[1])
    return median_interval(ratios)


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """Median with the narrowest order-statistic interval that covers at least 93 % (all values up to 8 of them)."""
    ordered, count = sorted(values), len(values)
    outside, drop = 0.0, 0
    while drop < (count - 1) // 2:
        outside += 2 * math.comb(count, drop) / 2**count
        if outside > 0.07:
            break
        drop += 1
    skip = max(0, drop - 1)
    return {"median": statistics.median(ordered), "low": ordered[skip], "high": ordered[count - 1 - skip]}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that is at least as large as `share` of them."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def pass_rows(scorer: Scorer, rows: Sequence[Any], seconds: float) -> list[Any]:
    """Evenly spaced `rows`, as many as `scorer` does in about `seconds`; this is its warm-up too."""
    if not len(rows):
        raise ValueError("speed needs at least one row")
    first = _spread(rows, 64)
    scorer.score(first)
    return _spread(rows, max(1, int(len(first) * seconds / max(_seconds(scorer, first), 1e-9))))


def forget_peak_memory() -> None:
    """From now on `peak_memory_mb` is the peak since now; elsewhere than on Linux it stays the whole process's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Largest resident memory of this process, in MiB, since `forget_peak_memory`."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _spread(rows: Sequence[Any], count: int) -> list[Any]:
    if count >= len(rows):
        return list(rows)
    return [rows[index * len(rows) // count] for index in range(count)]


def _settled_seconds(scorer: Scorer, rows: Sequence[Any], turns: int) -> float:
    time.sleep(SETTLE_SECONDS)
    scorer.score(rows[:WAKE_ROWS])
    return _seconds(scorer, rows, turns)


def _seconds(scorer: Scorer, rows: Sequence[Any], turns: int = 1) -> float:
    """Of one pass over `rows`, as the mean of `turns` passes."""
    started = time.perf_counter()
    for _ in range(turns):
        scorer.score(rows)
    return (time.perf_counter() - started) / turns


def _repeat(work: Any, seconds: float, at_least: int) -> list[float]:
    taken: list[float] = []
    while len(taken) < at_least or sum(taken) < seconds:
        started = time.perf_counter()
        work(len(taken))
        taken.append(time.perf_counter() - started)
    return taken
