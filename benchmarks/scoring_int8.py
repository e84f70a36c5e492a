"""Benchmark 2: int8 scoring of a fine-tuned MiniLM-L6, against torch, our own fp32, and ONNX Runtime's own int8."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distillation import teacher
from benchmarks.harness import interleave, mixed_texts, ratio, row
from benchmarks.peak import forward_flops, sgemm_flops, token_counts
from benchmarks.scoring_fp32 import TEXTS, onnx_model
from benchmarks.tasks_of_training import LENGTH, fresh_home, job, labelled, prepared
from stillhouse.scoring import OnnxScorer

WORK = "int8 scoring, MiniLM-L6 fine-tuned on 4,000 tweets, 4,000 texts of mixed length, cut at 128 tokens"
ANCHOR = "MiniLM-L6 int8 over fp32 in ONNX Runtime 1.80x with AMX (Intel Neural Compressor, validated models)"
ROWS = 4000
SIDES = {
    "torch fp32, our batches (faster than the pipeline's best)": 3.5,
    "ours in fp32": 2.2,
    "quantize_dynamic as documented, our batches": 1.25,
}


def measure(quick: bool) -> dict[str, Any]:
    from stillhouse.scorer import load_scorer

    texts = mixed_texts(200 if quick else TEXTS)
    data, taught = prepared(200 if quick else ROWS), teacher(200 if quick else ROWS)
    peak = sgemm_flops()
    with fresh_home() as home:
        exported = onnx_model(home, taught, data)
        plain = onnx_model(home, taught, data, "plain", optimize=False)
        documented = DefaultSession(_documented(home, plain))
        others = [load_scorer(taught), load_scorer(exported), documented]
        scorers: dict[str, Any] = {"ours": load_scorer(int8_model(home, exported, data))}
        scorers |= dict(zip(SIDES, others, strict=True))
        for scorer in scorers.values():
            scorer.score(texts[:200])
        sides = {name: partial(scorer.score, texts) for name, scorer in scorers.items()}
        seconds = interleave(sides, 1 if quick else 5, warm_up=False)
        quality = _quality(scorers, data)
    peak = max(peak, sgemm_flops())
    share = forward_flops(token_counts(texts, LENGTH)) / peak / float(np.median(seconds["ours"]))
    rows = [row(name, ratio(seconds, "ours", name), goal) for name, goal in SIDES.items()]
    rows[0]["anchor"] = ANCHOR
    rows[1]["bound_share"] = share
    return {
        "rows": rows, "seconds": seconds, "texts": len(texts), "peak_gflops_fp32": round(peak / 1e9, 1), **quality,
        "notes": ["the share is of the measured peak of fp32 products; int8 without VNNI can reach 1.4 of it"],
    }  # fmt: skip


def int8_model(home: Path, model: Path, data: Path, name: str = "int8") -> Path:
    """`quantize.int8` with its defaults, whatever it would decide about accepting."""
    from stillhouse.method import Input
    from stillhouse.quantize.int8 import Int8

    work = job(home, name, data, 42, inputs={"model": [Input(model, name, "model.onnx", str(model))]})
    Int8(accept_loss=1.0, min_speedup=0, speed_seconds=0.1, max_rows=500).run(work)
    return work.out


class DefaultSession(OnnxScorer):
    """With the optimizations of a session that nobody tuned."""

    slower = ()


def _documented(home: Path, model: Path) -> Path:
    """`quantize_dynamic` after the preparation that its documentation asks for; the rest as it is by default."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out = home / "documented"
    shutil.copytree(model, out)
    quant_pre_process(str(model / "model.onnx"), str(out / "prepared.onnx"), skip_symbolic_shape=True)
    quantize_dynamic(out / "prepared.onnx", out / "model.onnx", weight_type=QuantType.QInt8)
    return out


def _quality(scorers: dict[str, Any], data: Path) -> dict[str, Any]:
    """Accuracy on the test rows, and the share of labels on which int8 agrees with fp32."""
    texts, truth, _ = labelled(data, "test")
    labels = {name: scorer.score(texts).argmax(-1) for name, scorer in scorers.items()}
    found = {name: round(float((each == np.array(truth)).mean()), 4) for name, each in labels.items()}
    agreement = float((labels["ours"] == labels["ours in fp32"]).mean())
    return {
        "accuracy": found, "accuracy_rows": len(texts), "agreement_with_fp32": round(agreement, 4),
        "points_lost": round(100 * (found["ours in fp32"] - found["ours"]), 2),
    }  # fmt: skip
