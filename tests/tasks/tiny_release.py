"""A release artifact of a tiny random ONNX model, with manifests as the worker writes them, for registry tests."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import stillhouse.scoring
from stillhouse.files import read_json, write_json
from stillhouse.keys import digest

LABELS = ["negative", "neutral", "positive"]
TAGS = ["O", "B-place", "I-place"]
WORDS = ["[PAD]", "[UNK]", "good", "bad", "fine", "flight", "late", "crew", "the", "was", "paris"]
TEXTS = [
    "the good crew", "bad flight", "the flight was late", "", "   ", "fine " * 500, "😀 good 👩‍👩‍👧", "плохо 航班 late",
    "\u202eright to left\u202c", "a\x00b\tc\nd", "<b>bad</b> http://example.org/?q=1&r=2", '"quoted", \\ and {braces}',
    "NaN", "null", "1e-3", "ﬁne", "é e\u0301", "paris was fine",
]  # fmt: skip


def make_release(
    directory: Path, *, seed: int = 0, model_key: str = "", gate: str = "strict", passed: bool = True,
    against: dict[str, Any] | None = None, problem: str = "text-classification",
) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """(directory of the release, its manifest, its lineage); one `seed` is one model, `gate` its settings."""
    bundle = make_bundle(directory / "bundle", seed, problem)
    verdict = {
        "passed": passed, "reasons": [] if passed else ["f1_macro is too low"], "rules": {}, "against": against,
        "metrics": {"f1_macro": 0.7 + seed / 100, "size_mb": 0.01},
    }  # fmt: skip
    write_json(directory / "verdict.json", verdict)
    write_json(bundle / "verdict.json", verdict)
    data = manifest_of("data", "data", f"rows-{seed}")
    model_key = model_key or digest(["model", seed])
    model = {**manifest_of("int8", "model.onnx", f"weights-{seed}", data=data), "key": model_key}
    scores = manifest_of("scores", "scores", f"scores-{seed}", data=data, model=model)
    release = manifest_of(
        "release", "release", f"{seed}-{gate}-{json.dumps(against, sort_keys=True)}", model=model, scores=scores
    )
    return directory, release, [data, model, scores]


def manifest_of(step: str, kind: str, content: str, **inputs: dict[str, Any]) -> dict[str, Any]:
    """What registration reads of a manifest."""
    used = {slot: [{"key": one["key"], "kind": one["kind"], "content": one["content"]}] for slot, one in inputs.items()}
    return {
        "key": digest([step, content]), "kind": kind, "step": step, "method": f"test.{step}", "recipe": "opinions",
        "settings": {}, "metrics": {}, "inputs": used, "content": digest(content), "measured": {"seconds": 1.0},
    }  # fmt: skip


def make_bundle(directory: Path, seed: int = 0, problem: str = "text-classification") -> Path:
    """Everything that a deployment needs, with the answers of the real scorer in `check.json`."""
    directory.mkdir(parents=True)
    labels = TAGS if problem == "token-classification" else LABELS
    onnx.save(tiny_model(seed, len(labels), words=problem == "token-classification"), str(directory / "model.onnx"))
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    write_json(
        directory / "tokenizer.json",
        {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        },
    )  # fmt: skip
    about = {
        "problem": problem,
        "labels": labels,
        "max_length": 16,
        "thresholds": None,
        "base": "tiny",
        "licence": None,
    }
    write_json(directory / "stillhouse.json", about)
    shutil.copyfile(stillhouse.scoring.__file__, directory / "scoring.py")
    (directory / "README.md").write_text("# A tiny model\n", encoding="utf-8")
    np.save(directory / "reference.npy", np.zeros((2, 4), np.float32))
    answers = stillhouse.scoring.OnnxScorer(directory).predict(TEXTS)
    rows = [{"text": text, **answer} for text, answer in zip(TEXTS, answers, strict=True)]
    write_json(directory / "check.json", {"rows": rows})
    return directory


def swap_labels(release: Path) -> None:
    """Break the bundle as a wrong label map would."""
    path = release / "bundle" / "stillhouse.json"
    about = read_json(path)
    write_json(path, {**about, "labels": about["labels"][1:] + about["labels"][:1]})


def tiny_model(seed: int, classes: int, *, words: bool) -> onnx.ModelProto:
    """Random embeddings, mean over real tokens (or none, for words), a random linear head."""
    random = np.random.default_rng(seed)
    weights = {
        "embeddings": random.normal(size=(len(WORDS), 4)).astype(np.float32),
        "head": random.normal(size=(4, classes)).astype(np.float32) * 2,
        "one": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embeddings", "input_ids"], ["states"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["real"]),
        node("Mul", ["states", "real"], ["masked"]),
        node("ReduceSum", ["masked", "one"], ["sum"], keepdims=0),
        node("ReduceSum", ["real", "one"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["pooled"]),
        node("MatMul", ["states" if words else "pooled", "head"], ["logits"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.INT64, ["batch", "length"]) for name in ("input_ids", "attention_mask")]
    logits = value("logits", TensorProto.FLOAT, ["batch", "length", classes] if words else ["batch", classes])
    outputs = [logits, value("pooled", TensorProto.FLOAT, ["batch", 4])]
    initial = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
