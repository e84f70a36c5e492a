"""Measure all rungs side by side, choose, and record why."""

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.method import Job, Metrics
from stillhouse.rungs import Sample, baseline_quality, load_sample
from stillhouse.scorer import Scorer, load_scorer
from stillhouse.select._plot import draw_ladder
from stillhouse.select.cheapest import Cheapest
from stillhouse.speed import pass_rows, percentile

FILES = ("model.onnx", "tokenizer.json", "stillhouse.json")
ROUNDS = 5
SINGLES = 40
"""Texts scored one by one in each round."""


def select_cheapest(settings: Cheapest, job: Job) -> Metrics:
    """Fill `job.out`; the figures of the chosen rung."""
    sample = load_sample(job, settings.metric, settings.max_rows, slot="rungs")
    check_same_labels(job)
    names = rung_names(job)
    scorers = {name: load_scorer(item.path) for name, item in zip(names, job.inputs["rungs"], strict=True)}
    rungs: list[dict[str, Any]] = []
    for number, (name, item) in enumerate(zip(names, job.inputs["rungs"], strict=True)):
        job.progress(number, len(names) + 2, name)
        quality = sample.quality(scorers[name].score(sample.rows))
        rungs.append({"name": name, "key": item.key, "quality": quality, "bytes": size_of(item.path)})
    job.progress(len(names), len(names) + 2, "baseline")
    if job.has("baseline"):
        wanted = baseline_quality(job, sample)["value"]
    else:
        wanted = max(rung["quality"]["value"] for rung in rungs)
    job.progress(len(names) + 1, len(names) + 2, "speed, in turns")
    measured = measure_in_turns(scorers, sample, settings.speed_seconds)
    for rung in rungs:
        rung["loss"] = wanted - rung["quality"]["value"]
        rung["measured"] = measured[rung["name"]]
        rung["over_budget"] = over_budget(settings, rung)
    mark_pareto(rungs)
    chosen, within = choose_rung(rungs)
    source = job.inputs["rungs"][names.index(chosen["name"])].path
    for name in FILES:
        shutil.copyfile(source / name, job.out / name)
    ladder = {"metric": sample.metric, "baseline": wanted, "chosen": chosen["name"], "within": within, "rungs": rungs}
    write_json(job.out / "ladder.json", ladder)
    draw_ladder(ladder, job.out / "ladder.svg")
    reason = "the fastest within the budget" if within else "no rung is within the budget; this one loses least"
    write_json(
        job.out / "rung.json",
        {
            "method": "select.cheapest",
            "chosen": chosen["name"],
            "metric": sample.metric,
            "quality": chosen["quality"],
            "bytes": chosen["bytes"],
            "loss": chosen["loss"],
            "measured": chosen["measured"],
            "accepted": within,
            "reason": f"{chosen['name']}: {reason}",
        },
    )
    return {
        sample.metric: chosen["quality"]["value"],
        "loss": chosen["loss"],
        "bytes": float(chosen["bytes"]),
        "texts_per_second": chosen["measured"]["texts_per_second"],
        "rungs": float(len(rungs)),
        "within": float(within),
    }


def check_same_labels(job: Job) -> None:
    """All rungs do one task."""
    tasks = [read_json(item.path / "stillhouse.json") for item in job.inputs["rungs"]]
    for number, task in enumerate(tasks, start=1):
        if (task["problem"], task["labels"]) != (tasks[0]["problem"], tasks[0]["labels"]):
            raise UserError(
                f"rung {number} has another task or other labels than rung 1", "choose among models of one task"
            )


def rung_names(job: Job) -> list[str]:
    """The step that made each rung; a number where there is none, or where two have one name."""
    steps = {manifest["key"]: manifest["step"] for manifest in job.lineage}
    names = [steps.get(item.key, f"rung {place}") for place, item in enumerate(job.inputs["rungs"], start=1)]
    return [name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names, start=1)]


def size_of(directory: Path) -> int:
    """Bytes of what scoring with the model needs."""
    return sum((directory / name).stat().st_size for name in FILES)


def measure_in_turns(scorers: dict[str, Scorer], sample: Sample, seconds: float) -> dict[str, dict[str, float]]:
    """Texts per second and latency of each; they take turns, so that a slow moment of the machine hits all alike."""
    rows = {name: pass_rows(scorer, sample.rows, seconds / ROUNDS) for name, scorer in scorers.items()}
    passes = {name: _passes(scorer, rows[name], seconds / ROUNDS) for name, scorer in scorers.items()}
    paces: dict[str, list[float]] = {name: [] for name in scorers}
    singles: dict[str, list[float]] = {name: [] for name in scorers}
    for turn in range(ROUNDS):
        for name in list(scorers)[:: 1 if turn % 2 == 0 else -1]:
            scorer = scorers[name]
            scorer.score(rows[name][:16])  # wakes its threads
            started = time.perf_counter()
            for _ in range(passes[name]):
                scorer.score(rows[name])
            paces[name].append(passes[name] * len(rows[name]) / (time.perf_counter() - started))
            for number in range(turn * SINGLES, (turn + 1) * SINGLES):
                started = time.perf_counter()
                scorer.score([sample.rows[number % len(sample.rows)]])
                singles[name].append(1000 * (time.perf_counter() - started))
    return {
        name: {
            "texts_per_second": statistics.median(paces[name]),
            "latency_p50_ms": statistics.median(singles[name]),
            "latency_p95_ms": percentile(singles[name], 0.95),
        }
        for name in scorers
    }


def _passes(scorer: Scorer, rows: list[Any], seconds: float) -> int:
    """How often `rows`, which may be few, are scored in about `seconds`."""
    started = time.perf_counter()
    scorer.score(rows)
    return max(1, round(seconds / max(time.perf_counter() - started, 1e-9)))


def over_budget(settings: Cheapest, rung: dict[str, Any]) -> list[str]:
    """What is too much, as short sentences."""
    found = []
    if rung["loss"] > settings.max_loss:
        found.append(f"loses {rung['loss']:.4f}, {settings.max_loss:g} allowed")
    if settings.max_size_mb is not None and rung["bytes"] > settings.max_size_mb * 1e6:
        found.append(f"has {rung['bytes'] / 1e6:.2f} MB, {settings.max_size_mb:g} allowed")
    slow = rung["measured"]["latency_p95_ms"]
    if settings.max_p95_ms is not None and slow > settings.max_p95_ms:
        found.append(f"takes {slow:.2f} ms for a text, {settings.max_p95_ms:g} allowed")
    return found


def mark_pareto(rungs: list[dict[str, Any]]) -> None:
    """`measured.pareto`: no other rung is at least as good, as small and as fast, and better in one of the three."""
    figures = [(rung["quality"]["value"], -rung["bytes"], rung["measured"]["texts_per_second"]) for rung in rungs]
    for rung, own in zip(rungs, figures, strict=True):
        beaten = any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in figures)
        rung["measured"]["pareto"] = not beaten


def choose_rung(rungs: list[dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """The fastest rung within the budget and True; if there is none, the one that loses least and False."""
    within = [rung for rung in rungs if not rung["over_budget"]]
    if within:
        return max(within, key=lambda rung: (rung["measured"]["texts_per_second"], -rung["bytes"])), True
    return min(rungs, key=lambda rung: rung["loss"]), False
