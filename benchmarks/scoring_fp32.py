"""Benchmark 1: scoring with a fine-tuned MiniLM-L6 in 32 bits, against the Hugging Face pipeline."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distillation import teacher
from benchmarks.harness import interleave, mixed_texts, ratio, row
from benchmarks.peak import forward_flops, sgemm_flops, token_counts
from benchmarks.peers_of_scoring import HubPipeline, SentenceEncoder
from benchmarks.tasks_of_training import LENGTH, fresh_home, job, prepared

WORK = "fp32 scoring, MiniLM-L6 with three classes, 4,000 texts of mixed length, cut at 128 tokens"
TEXTS = 4000
ROWS = 1000
EVERY = {"default": 8, "best": 4}
"""The pipeline scores every 8th and every 4th text, its seconds count as often: no text knows of the others there."""
LARGEST_DIFFERENCE = 1e-4
ANCHOR = "padding avoided 3.51x (FastFormers, arXiv:2010.13382)"


def measure(quick: bool) -> dict[str, Any]:
    from stillhouse.scorer import load_scorer

    texts = mixed_texts(200 if quick else TEXTS)
    taught = teacher(200 if quick else ROWS)
    some = {name: texts[::every] for name, every in EVERY.items()}
    peak = sgemm_flops()
    with fresh_home() as home:
        scorer = load_scorer(onnx_model(home, taught, prepared(200 if quick else ROWS)))
        pipeline, encoder = HubPipeline(taught), SentenceEncoder()
        best, tried = pipeline.best_batch_size(some["default"])
        names = ["pipeline, batch size 1 (its default)", f"pipeline, batch size {best} (the best of 8, 32, 64)"]
        sides = {
            "ours": partial(scorer.score, texts),
            names[0]: partial(pipeline.score, some["default"]),
            names[1]: partial(pipeline.score, some["best"], best),
            "ours, embeddings": partial(scorer.embed, texts),
            encoder.name: partial(encoder.embed, texts),
        }
        seconds = interleave(sides, 1 if quick else 5)
        for name, every in zip(names, EVERY.values(), strict=True):
            seconds[name] = [round(each * every, 4) for each in seconds[name]]
        difference = float(np.abs(scorer.score(some["default"]) - pipeline.score(some["default"], best)).max())
    if difference > LARGEST_DIFFERENCE:
        raise AssertionError(f"logits differ by {difference:.1e}")
    peak = max(peak, sgemm_flops())
    share = forward_flops(token_counts(texts, LENGTH)) / peak / float(np.median(seconds["ours"]))
    rows = [
        row(names[0], ratio(seconds, "ours", names[0]), 3.0, anchor=ANCHOR),
        row(names[1], ratio(seconds, "ours", names[1]), 1.7, bound_share=share),
        row(encoder.name, ratio(seconds, "ours, embeddings", encoder.name), 1.1),
    ]
    return {
        "rows": rows, "seconds": seconds, "texts": len(texts), "largest_difference_of_logits": difference,
        "seconds_by_batch_size": tried, "peak_gflops": round(peak / 1e9, 1),
        "notes": [EVERY_NOTE],
    }  # fmt: skip


EVERY_NOTE = "the pipeline's seconds are those of every 8th (default) and every 4th text (best), times 8 and 4"


def onnx_model(home: Path, model: Path, data: Path, name: str = "onnx", optimize: bool = True) -> Path:
    """A torch model exported to ONNX, as `export.onnx` does it."""
    from stillhouse.export.onnx import Onnx
    from stillhouse.method import Input

    work = job(home, name, data, 42, inputs={"model": [Input(model, "m", "model.torch", str(model))]})
    Onnx(optimize=optimize).run(work)
    return work.out
