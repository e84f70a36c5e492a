"""Quantize, measure against the input model and the baseline, accept or reject."""

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.read import load_info, load_labels, load_split
from stillhouse.errors import UserError, nearest
from stillhouse.evaluate.rows import rows_of
from stillhouse.files import read_json, write_json
from stillhouse.method import Job, Metrics
from stillhouse.metrics import bootstrap_interval, evaluate_predictions, metric_names
from stillhouse.problems import find_problem
from stillhouse.quantize._graph import quantize_graph
from stillhouse.quantize._static import Feed
from stillhouse.scorer import Scorer, load_scorer
from stillhouse.scoring import TextScorer
from stillhouse.speed import measure_speed, pass_rows, peak_memory_mb, speed_ratio

if TYPE_CHECKING:
    from stillhouse.quantize.int8 import Int8

AGREEMENT = 0.995
"""Share of labels that must not depend on which rows share a batch."""
ALONE_ROWS = 200
CALIBRATION_ROWS = 512
PAIRS = 7
PASS_SHARE = 0.4
"""Of `speed_seconds`: how long one pass of the comparison takes."""
FILES = ("model.onnx", "tokenizer.json", "stillhouse.json")


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
        low, high = bootstrap_interval(*given, self.metric)
        return {"value": float(evaluate_predictions(*given)[self.metric]), "low": low, "high": high}


def quantize_model(settings: "Int8", job: Job) -> Metrics:
    """Fill `job.out` with the int8 model, or with the input model if that one stays; and with `rung.json`."""
    source, out = job.path("model"), job.out
    sample = load_sample(settings, job)
    for name in FILES[1:]:
        shutil.copyfile(source / name, out / name)
    job.progress(0, 4, "quantizing")
    feeds = calibration_feeds(job) if settings.activations == "static" else []
    quantize_graph(source / FILES[0], out / FILES[0], settings, feeds)
    before, after = load_scorer(source), load_scorer(out)
    job.progress(1, 4, "scoring")
    logits = after.score(sample.rows)
    reference = load_scorer(job.path("baseline")) if job.has("baseline") else before
    rung: dict[str, Any] = {
        "method": "quantize.int8",
        "metric": sample.metric,
        "quality": sample.quality(logits),
        "baseline": sample.quality(reference.score(sample.rows)),
        "bytes": (out / FILES[0]).stat().st_size,
        "bytes_before": (source / FILES[0]).stat().st_size,
    }
    rung["loss"] = rung["baseline"]["value"] - rung["quality"]["value"]
    job.progress(2, 4, "other batches")
    rung |= batch_agreement(after, sample.rows, logits)
    job.progress(3, 4, "speed")
    rung["measured"] = measure(before, after, sample.rows, settings.speed_seconds)
    rung["accepted"], rung["reason"] = judge(settings, rung)
    if not rung["accepted"]:
        del after
        shutil.copyfile(source / FILES[0], out / FILES[0])
    write_json(out / "rung.json", rung)
    return summary(rung)


def load_sample(settings: "Int8", job: Job) -> Sample:
    """Validation rows; refuses a metric or labels that do not fit the model."""
    data, model = job.path("data"), read_json(job.path("model") / "stillhouse.json")
    problem, labels = load_info(data)["problem"], load_labels(data)
    if (problem, labels) != (model["problem"], model["labels"]):
        raise UserError(
            f"the data is {problem} with labels {labels}, the model {model['problem']} with {model['labels']}",
            "give the data that the model was trained on",
        )
    metric = settings.metric or find_problem(problem).metric
    if metric not in metric_names(problem):
        raise UserError(f'metric: "{metric}" is not a metric of {problem}', nearest(metric, set(metric_names(problem))))
    frame = load_split(data, "validation")
    if not len(frame):
        raise UserError(f"{data}: the validation split is empty", "prepare more rows")
    frame = frame.iloc[np.linspace(0, len(frame) - 1, min(len(frame), settings.max_rows)).astype(int)]
    return Sample(problem, labels, *rows_of(problem, frame), metric)


def calibration_feeds(job: Job) -> list[Feed]:
    """Inputs of the graph for some training rows, batched as the scorer batches them."""
    source = job.path("model")
    frame = load_split(job.path("data"), "train")
    frame = frame.iloc[np.linspace(0, len(frame) - 1, min(len(frame), CALIBRATION_ROWS)).astype(int)]
    problem = load_info(job.path("data"))["problem"]
    classes = len(load_labels(job.path("data")))
    feeds: list[Feed] = []

    def record(feed: Feed, output: str) -> np.ndarray:
        feeds.append(feed)
        shape = feed["input_ids"].shape
        return np.zeros((*shape, classes) if problem == "token-classification" else (shape[0], classes), np.float32)

    TextScorer(source, record, hidden=1).score(rows_of(problem, frame)[0])
    return feeds


def judge(settings: "Int8", rung: dict[str, Any]) -> tuple[bool, str]:
    """Whether the quantized model goes on, and why."""
    speed = rung["measured"]["speedup"]
    times = rung["bytes_before"] / rung["bytes"]
    against = f"{rung['metric']} {rung['quality']['value']:.4f}, baseline {rung['baseline']['value']:.4f}"
    if rung["loss"] > settings.accept_loss:
        return False, f"loses too much: {against}, {settings.accept_loss} accepted"
    if speed["high"] < settings.min_speedup:
        return False, f"too slow: certainly below {settings.min_speedup} times the input model's speed"
    if times <= 1:
        return False, f"not smaller: {rung['bytes']} bytes, {rung['bytes_before']} before"
    reason = f"{times:.1f} times smaller, {against}"
    if rung["agreement"] < AGREEMENT:
        reason += f"; warning: {1 - rung['agreement']:.1%} of the labels change with the rows that share a batch"
    return True, reason


def batch_agreement(scorer: Scorer, rows: list[Any], logits: Any) -> dict[str, float]:
    """Share of labels that stay, and the largest change of a logit, when rows are scored alone or in other company."""
    some = list(range(0, len(rows), max(1, len(rows) // ALONE_ROWS)))
    alone = [scorer.score([rows[index]])[0] for index in some]
    backward = scorer.score(rows[::-1])[::-1]
    same, total, largest = 0, 0, 0.0
    others = [*zip(some, alone, strict=True), *zip(range(len(rows)), backward, strict=True)]
    for index, other in others:
        labels = np.atleast_1d(logits[index].argmax(-1))
        same += int((labels == np.atleast_1d(other.argmax(-1))).sum())
        total += len(labels)
        largest = max(largest, float(np.abs(logits[index] - other).max(initial=0)))
    return {"agreement": same / max(1, total), "largest_change": largest}


def measure(before: Scorer, after: Scorer, rows: list[Any], seconds: float) -> dict[str, Any]:
    """Speed of both, interleaved, and the memory they took."""
    some = pass_rows(before, rows, seconds * PASS_SHARE)
    return {
        "speedup": speed_ratio(before, after, some, PAIRS),
        "texts_per_second": measure_speed(after, some, seconds)["texts_per_second"],
        "texts_per_second_before": measure_speed(before, some, seconds)["texts_per_second"],
        "peak_memory_mb": peak_memory_mb(),
    }


def summary(rung: dict[str, Any]) -> Metrics:
    """The rung in one line."""
    return {
        rung["metric"]: rung["quality"]["value"],
        "loss": rung["loss"],
        "bytes": float(rung["bytes"]),
        "speedup": rung["measured"]["speedup"]["median"],
        "agreement": rung["agreement"],
        "accepted": float(rung["accepted"]),
    }
