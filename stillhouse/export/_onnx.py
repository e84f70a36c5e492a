"""Torch to ONNX: trace with eager attention, fuse with ONNX Runtime's transformer optimizer, compare with torch."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from stillhouse._torch_scorer import TorchScorer, WithPooled
from stillhouse.errors import BugError
from stillhouse.export._narrow import FIRST, narrow
from stillhouse.export._norms import split_norms
from stillhouse.export._optional import make_flat
from stillhouse.files import read_json
from stillhouse.method import Job, Metrics
from stillhouse.models import load_model, longest_input
from stillhouse.scoring import OnnxScorer, TextScorer

if TYPE_CHECKING:
    from stillhouse.export.onnx import Onnx

SHAPES = ((1, 1), (1, 9), (2, 3), (3, 16), (5, 33))
"""Batch and length of the random inputs that torch and ONNX must agree on; cut to the model's longest input."""
LARGEST_DIFFERENCE = 1e-3
"""In one output value, between torch and ONNX Runtime; fp32 rounding stays near 1e-5."""
FUSED = {
    "attention": ("Attention", "MultiHeadAttention"),
    "embeddings": ("EmbedLayerNormalization",),
    "gelu": ("BiasGelu", "Gelu", "FastGelu"),
}
FUSED_DOMAIN = "com.microsoft"
SIZES = (("num_attention_heads", "n_heads"), ("hidden_size", "dim"))
"""Names in config.json: of the number of heads and of the width."""
CHECK_ROWS = 64
NO_PRE_PROCESS_WARNING = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Metadata by which ONNX Runtime's quantizer knows that a graph was optimized, and does not ask for it."""


def export_model(settings: "Onnx", job: Job) -> Metrics:
    """Fill `job.out`; return its size, the largest difference to torch, the number of fused operations."""
    source, final = job.path("model"), job.out / "model.onnx"
    for name in ("tokenizer.json", "stillhouse.json"):
        shutil.copyfile(source / name, job.out / name)
    job.progress(0, 3, "tracing")
    job.scratch.mkdir(parents=True, exist_ok=True)
    plain = job.scratch / "plain.onnx"
    trace(source, plain, settings.opset)
    job.progress(1, 3, "fusing")
    rows = _validation_rows(job)
    worst = float("inf")
    if settings.optimize and save_fused(plain, final, source):
        worst = largest_difference(source, job.out, rows)
    if not worst <= LARGEST_DIFFERENCE:
        # Fusion is a gain in speed, not a condition: the figures say that nothing was fused.
        _save(onnx.load(plain), final)
        worst = largest_difference(source, job.out, rows)
    plain.unlink()
    if not worst <= LARGEST_DIFFERENCE:
        raise BugError(f"the exported model's outputs differ from torch by {worst:.2g} (allowed {LARGEST_DIFFERENCE})")
    job.progress(3, 3, "exported")
    counts = {f"fused_{name}": count for name, count in fused_counts(onnx.load(final)).items()}
    return {"bytes": float(final.stat().st_size), "largest_difference": worst, **counts}


def trace(source: Path, path: Path, opset: int) -> None:
    """Write the model of directory `source` as an unfused graph, batch and length free."""
    # The optimizer knows attention as matrix products; in the fused SDPA form it would recognise none.
    model = load_model(source).eval()
    model.set_attn_implementation("eager")
    module = WithPooled(model).eval()
    ids = torch.tensor([[3, 4, 5, 6, 7], [3, 4, 5, 6, 7]]) % int(model.config.vocab_size)
    feed = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}
    feed["token_type_ids"] = torch.zeros_like(ids)
    free = {name: {0: "batch", 1: "length"} for name in (*module.inputs, *_logits_by_word(model))}
    with torch.inference_mode(), _quiet():
        torch.onnx.export(
            module,
            tuple(feed[name] for name in module.inputs),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=module.inputs,
            output_names=["logits", "pooled"],
            dynamic_axes={"logits": {0: "batch"}, "pooled": {0: "batch"}, **free},
        )


def save_fused(plain: Path, final: Path, source: Path) -> bool:
    """Write the graph of `plain` with attention, embeddings and GELU fused; False if the optimizer gives up."""
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    config = read_json(source / "config.json")
    heads, width = (next((config[name] for name in names if name in config), 0) for names in SIZES)
    with _quiet():
        try:
            fused = optimize_by_fusion(onnx.load(plain), "bert", num_heads=heads, hidden_size=width).model
        except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return False
    if heads:
        set_heads(fused, width // heads)
    split_norms(fused)
    narrow(fused)
    _save(fused, final)
    return True


def set_heads(model: onnx.ModelProto, head_size: int) -> None:
    """Give every fused attention as many heads as its weights have, in place.

    The optimizer writes one number into all of them, but the layers of a pruned model have fewer, each its own number.
    """
    columns = {value.name: value.dims[1] for value in model.graph.initializer if len(value.dims) == 2}
    for node in model.graph.node:
        if node.op_type == "Attention":
            # Queries, keys and values side by side.
            heads = next(value for value in node.attribute if value.name == "num_heads")
            heads.i = columns[node.input[1]] // (3 * head_size)


def fused_counts(model: onnx.ModelProto) -> dict[str, float]:
    """Flatten `model`; return how many nodes are fused operations, by family, or run on the first token alone."""
    make_flat(model)
    kinds = [node.op_type for node in model.graph.node if not node.name.endswith(FIRST)]
    counts = {name: float(sum(kind in members for kind in kinds)) for name, members in FUSED.items()}
    return {**counts, "first_token": float(sum(node.name.endswith(FIRST) for node in model.graph.node))}


def largest_difference(source: Path, exported: Path, rows: list[Any]) -> float:
    """Largest difference in any output between torch and the exported graph: random shapes, padding, real rows."""
    expected = TorchScorer(source)
    limit = longest_input(expected.model) or max(length for _, length in SHAPES)
    generator = np.random.default_rng(0)
    worst = 0.0
    try:
        actual = OnnxScorer(exported)
        for batch, length in SHAPES:
            feed = _random_feed(generator, batch, min(length, limit), int(expected.model.config.vocab_size))
            for output in ("logits", "pooled"):
                worst = max(worst, _gap(expected, actual, feed, output))
        if rows:
            pairs = zip(expected.score(rows), actual.score(rows), strict=True)
            worst = max(worst, *(float(np.abs(one - other).max(initial=0)) for one, other in pairs))
    except Exception as error:
        # ONNX Runtime's errors have no common base of their own, only their module.
        if "onnxruntime" not in type(error).__module__:
            raise
        return float("inf")
    return worst if np.isfinite(worst) else float("inf")


def _gap(expected: TextScorer, actual: TextScorer, feed: dict[str, np.ndarray], output: str) -> float:
    one, other = expected.forward(feed, output), actual.forward(feed, output)
    if output == "logits" and one.ndim == 3:
        real = feed["attention_mask"].astype(bool)
        one, other = one[real], other[real]
    gap = np.abs(one - other).max()
    return float(gap) if np.isfinite(gap) else float("inf")


def _random_feed(generator: np.random.Generator, batch: int, length: int, vocabulary: int) -> dict[str, np.ndarray]:
    ids = generator.integers(min(5, vocabulary - 1), vocabulary, (batch, length))
    real = generator.integers(1, length + 1, batch)
    real[0] = length
    mask = (np.arange(length) < real[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _logits_by_word(model: Any) -> tuple[str, ...]:
    return ("logits",) if "TokenClassification" in type(model).__name__ else ()


def _validation_rows(job: Job) -> list[Any]:
    if not job.has("data"):
        return []
    from stillhouse.data.read import load_info, load_split
    from stillhouse.evaluate.rows import rows_of

    frame = load_split(job.path("data"), "validation").head(CHECK_ROWS)
    return rows_of(load_info(job.path("data"))["problem"], frame)[0]


def _save(model: onnx.ModelProto, path: Path) -> None:
    # Traces of source files would make the bytes depend on where the code is installed.
    for node in model.graph.node:
        node.doc_string = ""
    if not any(opset.domain == FUSED_DOMAIN for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(FUSED_DOMAIN, 1))
    onnx.helper.set_model_props(model, dict([NO_PRE_PROCESS_WARNING]))
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing from the tracer and the optimizer: what they warn of (constants, deprecation) the comparison settles."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            tracer = torch.jit.TracerWarning  # pyright: ignore[reportPrivateImportUsage]
            warnings.filterwarnings("ignore", category=tracer)
            warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX", DeprecationWarning)
            warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
            warnings.filterwarnings("ignore", "Exporting aten::index operator", UserWarning)
            yield
    finally:
        logging.disable(before)
