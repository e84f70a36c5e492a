"""A student of two teachers against the student of the better one, same seeds: what several teachers bring.

    python -m benchmarks.two_teachers               five seeds, about a quarter of an hour

Result: `benchmarks/results/two_teachers.json`.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from benchmarks.tasks_of_training import LENGTH, accuracy, fresh_home, job, prepared

ROWS = 1000
SEEDS = range(42, 47)
WAYS = {
    "first": (0,),
    "second": (1,),
    "two, uniform": (0, 1),
    "two, by validation": (0, 1),
    "two, by confidence": (0, 1),
}
"""Which teachers teach."""
WEIGHTS = {"two, by validation": "validation", "two, by confidence": "confidence"}


def measure(seed: int) -> dict[str, float]:
    """Accuracy on the test rows of both teachers (they differ in seed and rate) and of every student."""
    from stillhouse.distill.logits import Logits
    from stillhouse.method import Input
    from stillhouse.models import load_model
    from stillhouse.train.stage import Stage

    data = prepared(ROWS)
    found: dict[str, float] = {}
    with fresh_home() as home:
        teachers: list[Path] = []
        for number, rate in enumerate((1e-4, 2e-4)):
            work = job(home, f"teacher{number}", data, seed + 100 * number)
            Stage(
                base="MiniLM-L6", train="all", learning_rate=rate, num_train_epochs=2, max_length=LENGTH, dropout=0.0,
                max_eval_samples=500,
            ).run(work)  # fmt: skip
            teachers.append(work.out)
            found[f"teacher {number + 1}"] = accuracy(load_model(work.out), data)
        for way, chosen in WAYS.items():
            inputs = {"teachers": [Input(teachers[n], f"t{n}", "model.torch", f"{seed}-{n}") for n in chosen]}
            work = job(home, way.replace(" ", "-"), data, seed, inputs=inputs)
            Logits.model_validate({
                "layers": 3, "learning_rate": 3e-4, "num_train_epochs": 2, "dropout": 0.0, "max_eval_samples": 500,
                "teacher_weights": WEIGHTS.get(way, "uniform"),
            }).run(work)  # fmt: skip
            found[way] = accuracy(load_model(work.out), data)
    return {name: round(value, 4) for name, value in found.items()}


def gain(by_seed: list[dict[str, float]], way: str) -> dict[str, float]:
    """Points over the student of the better teacher (by the teachers' own accuracy), mean and 95 % t-interval."""
    from scipy.stats import t

    points = [100 * (one[way] - one["first" if one["teacher 1"] >= one["teacher 2"] else "second"]) for one in by_seed]
    mean, half = statistics.fmean(points), 0.0
    if len(points) > 1:
        half = t.ppf(0.975, len(points) - 1) * statistics.stdev(points) / math.sqrt(len(points))
    return {"mean": round(mean, 2), "low": round(mean - half, 2), "high": round(mean + half, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    from stillhouse.keys import library_versions
    from stillhouse.machine import fingerprint

    by_seed = []
    for seed in SEEDS:
        by_seed.append(measure(seed))
        print(seed, by_seed[-1], flush=True)
    result: dict[str, Any] = {
        "work": f"students of three layers on {ROWS} tweets, accuracy on the test rows", "seeds": list(SEEDS),
        "by_seed": by_seed, "points_over_the_better_single_teacher": {
            way: gain(by_seed, way) for way in WAYS if way.startswith("two")
        },
        "machine": fingerprint(), "versions": library_versions(("torch", "transformers", "accelerate")),
    }  # fmt: skip
    print(json.dumps(result["points_over_the_better_single_teacher"], indent=1))
    (RESULTS / "two_teachers.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
