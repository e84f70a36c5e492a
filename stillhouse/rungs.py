"""What every compression step measures on validation rows, whether that is accepted, and the record of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.read import load_info, load_labels, load_split
from stillhouse.errors import UserError, nearest
from stillhouse.evaluate.rows import rows_of
from stillhouse.files import read_json
from stillhouse.method import Job, Metrics
from stillhouse.metrics import bootstrap_interval, evaluate_predictions, metric_names
from stillhouse.problems import find_problem
from stillhouse.scorer import Scorer, load_scorer
from stillhouse.speed import forget_peak_memory, measure_speed, pass_rows, peak_memory_mb, speed_ratio

AGREEMENT = 0.995
"""Share of labels that must not depend on which rows share a batch."""
RECORDS = ("manifest.json", "rung.json", "metrics.jsonl")
"""Files about a model: they belong to the step that wrote them."""
PAIRS = 7
PASS_SHARE = 0.4
"""Of the seconds of a speed measurement: how long one pass of the comparison takes."""


@dataclass(frozen=True)
class Sample:
    """Validation rows, and what decides about them."""

    problem: str
    labels: list[str]
    rows: list[Any]
    truth: Any
    metric: str

    def quality(self, logits: Any) -> dict[str, float]:
        """`{"value", "low", "high"}` of the metric."""
        given = (self.problem, self.labels, self.truth, logits)
        found = evaluate_predictions(*given)
        if self.metric not in found:
            raise UserError(f"{self.metric} cannot be computed on these validation rows", "choose another metric")
        low, high = bootstrap_interval(*given, self.metric)
        return {"value": float(found[self.metric]), "low": low, "high": high}


def load_sample(job: Job, metric: str | None, most: int, slot: str = "model") -> Sample:
    """Validation rows; refuses a metric or labels that do not fit the model."""
    data, model = job.path("data"), read_json(job.path(slot) / "stillhouse.json")
    problem, labels = load_info(data)["problem"], load_labels(data)
    if (problem, labels) != (model["problem"], model["labels"]):
        raise UserError(
            f"the data is {problem} with labels {labels}, the model {model['problem']} with {model['labels']}",
            "give the data that the model was trained on",
        )
    metric = metric or find_problem(problem).metric
    if metric not in metric_names(problem):
        raise UserError(f'metric: "{metric}" is not a metric of {problem}', nearest(metric, set(metric_names(problem))))
    frame = load_split(data, "validation")
    if not len(frame):
        raise UserError(f"{data}: the validation split is empty", "prepare more rows")
    frame = frame.iloc[np.linspace(0, len(frame) - 1, min(len(frame), most)).astype(int)]
    return Sample(problem, labels, *rows_of(problem, frame), metric)


def baseline_quality(job: Job, sample: Sample) -> dict[str, float]:
    """Of the model in slot `baseline`, else of the one in `model`, on the sample's rows.

    Its logits are derived data: all rungs that measure on as many rows ask it once.
    """
    model = job.inputs["baseline" if job.has("baseline") else "model"][0]
    about = read_json(model.path / "stillhouse.json")
    if (about["problem"], about["labels"]) != (sample.problem, sample.labels):
        raise UserError(
            f"the baseline is {about['problem']} with labels {about['labels']}, the data has {sample.labels}",
            "give a baseline that was trained on this data's labels, or leave it out",
        )

    def build(directory: Path) -> None:
        scores = load_scorer(model.path).score(sample.rows)
        flat = np.concatenate(scores) if isinstance(scores, list) else scores
        np.save(directory / "logits.npy", flat.astype(np.float32), allow_pickle=False)

    contents = [model.content, job.inputs["data"][0].content]
    directory = job.derived("validation-logits", {"rows": len(sample.rows)}, contents, build)
    logits = np.load(directory / "logits.npy", allow_pickle=False)
    if find_problem(sample.problem).unit == "word":
        return sample.quality(np.split(logits, np.cumsum([len(words) for words in sample.rows])[:-1]))
    return sample.quality(logits)


def judge(rung: dict[str, Any], accept_loss: float, min_speedup: float) -> tuple[bool, str]:
    """Whether the smaller model goes on, and why."""
    speed = rung["measured"]["speedup"]
    times = rung["bytes_before"] / rung["bytes"]
    against = f"{rung['metric']} {rung['quality']['value']:.4f}, baseline {rung['baseline']['value']:.4f}"
    if rung["loss"] > accept_loss:
        return False, f"loses too much: {against}, {accept_loss} accepted"
    if speed["high"] < min_speedup:
        return False, f"too slow: certainly below {min_speedup} times the input model's speed"
    if times <= 1:
        return False, f"not smaller: {rung['bytes']} bytes, {rung['bytes_before']} before"
    reason = f"{times:.1f} times smaller, {against}"
    if rung.get("agreement", 1.0) < AGREEMENT:
        reason += f"; warning: {1 - rung['agreement']:.1%} of the labels change with the rows that share a batch"
    return True, reason


def measure(before: Scorer, after: Scorer, rows: list[Any], seconds: float) -> dict[str, Any]:
    """Speed of both, interleaved, and the memory of this process while the smaller one scores."""
    some = pass_rows(before, rows, seconds * PASS_SHARE)
    ratio = speed_ratio(before, after, some, PAIRS)
    slower = measure_speed(before, some, seconds)["texts_per_second"]
    forget_peak_memory()
    return {
        "speedup": ratio,
        "texts_per_second": measure_speed(after, some, seconds)["texts_per_second"],
        "texts_per_second_before": slower,
        "peak_memory_mb": peak_memory_mb(),
    }


def summary(rung: dict[str, Any]) -> Metrics:
    """The rung in one line."""
    return {
        rung["metric"]: rung["quality"]["value"],
        "loss": rung["loss"],
        "bytes": float(rung["bytes"]),
        "speedup": rung["measured"]["speedup"]["median"],
        **({"agreement": rung["agreement"]} if "agreement" in rung else {}),
        "accepted": float(rung["accepted"]),
    }


def publish_input(source: Path, out: Path) -> None:
    """What a rejected rung publishes: the input model, in the place of what was tried."""
    for path in out.iterdir():
        path.unlink()
    for path in source.iterdir():
        if path.name not in RECORDS:
            shutil.copyfile(path, out / path.name)
