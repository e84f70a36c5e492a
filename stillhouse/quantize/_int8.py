"""Quantize, measure against the input model and the baseline, accept or reject."""

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.read import load_info, load_labels, load_split
from stillhouse.evaluate.rows import rows_of
from stillhouse.files import write_json
from stillhouse.method import Job, Metrics
from stillhouse.quantize._fallback import spare_layers
from stillhouse.quantize._graph import quantize_graph
from stillhouse.quantize._static import Feed
from stillhouse.rungs import Sample, baseline_quality, judge, load_sample, measure, summary
from stillhouse.scorer import Scorer, load_scorer
from stillhouse.scoring import OnnxScorer, TextScorer

if TYPE_CHECKING:
    from stillhouse.quantize.int8 import Int8

ALONE_ROWS = 200
CALIBRATION_ROWS = 512
FILES = ("model.onnx", "tokenizer.json", "stillhouse.json")


def quantize_model(settings: "Int8", job: Job) -> Metrics:
    """Fill `job.out` with the int8 model, or with the input model if that one stays; and with `rung.json`."""
    source, out = job.path("model"), job.out
    sample = load_sample(job, settings.metric, settings.max_rows)
    before = load_scorer(source)
    baseline = baseline_quality(job, sample)
    after, logits, spared = _quantize(settings, job, sample, baseline["value"])
    rung: dict[str, Any] = {
        "method": "quantize.int8",
        "metric": sample.metric,
        "quality": sample.quality(logits),
        "baseline": baseline,
        "bytes": (out / FILES[0]).stat().st_size,
        "bytes_before": (source / FILES[0]).stat().st_size,
        "fallback_layers": spared,
    }
    rung["loss"] = rung["baseline"]["value"] - rung["quality"]["value"]
    job.progress(2, 4, "other batches")
    rung |= batch_agreement(after, sample.rows, logits)
    job.progress(3, 4, "speed")
    rung["measured"] = measure(before, after, sample.rows, settings.speed_seconds)
    rung["accepted"], rung["reason"] = judge(rung, settings.accept_loss, settings.min_speedup)
    if not rung["accepted"]:
        del after
        shutil.copyfile(source / FILES[0], out / FILES[0])
    write_json(out / "rung.json", rung)
    return {**summary(rung), "fallback_layers": float(len(spared))}


def _quantize(settings: "Int8", job: Job, sample: Sample, baseline: float) -> tuple[Scorer, Any, list[str]]:
    """Write the int8 model; a scorer of it, its logits of the sample, and the layers that had to stay in 32 bits."""
    source, out = job.path("model"), job.out
    for name in FILES[1:]:
        shutil.copyfile(source / name, out / name)
    job.progress(0, 4, "quantizing")
    feeds = calibration_feeds(job) if settings.activations == "static" else []
    nodes = quantize_graph(source / FILES[0], out / FILES[0], settings, feeds)
    job.progress(1, 4, "scoring")
    scorer = load_scorer(out)
    logits = scorer.score(sample.rows)
    if not settings.fallback_layers or baseline - sample.quality(logits)["value"] <= settings.accept_loss:
        return scorer, logits, []
    spared = spare_layers(settings, job, sample, feeds, nodes, baseline)
    if spared:
        scorer = load_scorer(out)
        logits = scorer.score(sample.rows)
    return scorer, logits, spared


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

    scorer = TextScorer(source, record, hidden=1)
    scorer.tokens_per_batch = OnnxScorer.tokens_per_batch
    scorer.score(rows_of(problem, frame)[0])
    return feeds


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
