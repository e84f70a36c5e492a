"""Which layers to leave in 32 bits when all of them in 8 lose too much: the few that int8 hurts most."""

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.method import Job
from stillhouse.quantize._graph import layer_of, quantize_graph
from stillhouse.quantize._static import Feed
from stillhouse.rungs import Sample
from stillhouse.scorer import Scorer, load_scorer

if TYPE_CHECKING:
    from stillhouse.quantize.int8 import Int8

RANKING_ROWS = 256


def spare_layers(
    settings: "Int8", job: Job, sample: Sample, feeds: list[Feed], nodes: list[str], baseline: float
) -> list[str]:
    """Replace `job.out/model.onnx`, in which all `nodes` are in 8 bits, by one that loses no more than is accepted.

    The layers that make the largest errors stay in 32 bits, one more at a time, at most `fallback_layers`; returns
    their names, none where that does not help. `baseline` is the metric to which the loss is taken.
    """

    def is_good(scorer: Scorer) -> bool:
        return baseline - sample.quality(scorer.score(sample.rows))["value"] <= settings.accept_loss

    before = load_scorer(job.path("model"))
    if not is_good(before):
        return []
    ranked = rank_layers(settings, job, before, sample.rows, nodes)
    for count in range(1, min(settings.fallback_layers, len(ranked) - 1) + 1):
        job.progress(count, settings.fallback_layers, "leaving layers in 32 bits")
        kept = ranked[:count]
        tried = _quantized(settings, job, feeds, {node for node in nodes if layer_of(node) in kept})
        if is_good(tried):
            shutil.move(job.scratch / "model.onnx", job.out / "model.onnx")
            return kept
    return []


def rank_layers(settings: "Int8", job: Job, before: Scorer, rows: list[Any], nodes: list[str]) -> list[str]:
    """The layers of `nodes`, the one first whose quantization alone moves the logits furthest (mean square).

    Alone, because a layer put back into a graph that is wrong elsewhere shows little of what it costs.
    """
    some = rows[:: max(1, len(rows) // RANKING_ROWS)]
    wanted = before.score(some)
    layers = list(dict.fromkeys(layer_of(node) for node in nodes))
    errors: dict[str, float] = {}
    for number, layer in enumerate(layers):
        job.progress(number, len(layers), "which layers int8 hurts")
        # Scales of each batch: fixed ones would have to be looked for once for each layer, and differ little.
        alone = _quantized(settings, job, [], {node for node in nodes if layer_of(node) != layer})
        gaps = [np.square(one - other).sum() for one, other in zip(alone.score(some), wanted, strict=True)]
        errors[layer] = float(np.sum(gaps))
    return sorted(errors, key=lambda layer: -errors[layer])


def _quantized(settings: "Int8", job: Job, feeds: list[Feed], kept: set[str]) -> Scorer:
    """A scorer of the graph with the nodes `kept` in 32 bits, made in `job.scratch`."""
    job.scratch.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "stillhouse.json"):
        shutil.copyfile(job.path("model") / name, job.scratch / name)
    quantize_graph(job.path("model") / "model.onnx", job.scratch / "model.onnx", settings, feeds, kept)
    return load_scorer(job.scratch)
