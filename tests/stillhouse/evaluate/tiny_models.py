"""Made-up data and real, tiny ONNX models: every word has a vector, a text is the mean of its words."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from stillhouse.files import write_json
from stillhouse.method import Input, Job

CLASSIFICATION, TOKENS = "text-classification", "token-classification"
LABELS = ["bad", "good", "meh"]
TAGS = ["O", "B-place", "I-place"]
FILLER = ["the", "a", "it", "was", "very", "and", "film", "food", "day"]
WORDS = ["[PAD]", "[UNK]", *LABELS, "york", "new", "paris", *FILLER]


def make_model(
    directory: Path, problem: str = CLASSIFICATION, labels: list[str] | None = None, noise: float = 0.0
) -> Path:
    """A model that reads the class off the word of the same name; with `noise`, some words mislead it."""
    labels = labels or (LABELS if problem == CLASSIFICATION else TAGS)
    directory.mkdir(parents=True)
    vectors = np.eye(len(WORDS), dtype=np.float32)
    heads = np.random.default_rng(1).normal(scale=noise + 0.01, size=(len(WORDS), len(labels))).astype(np.float32)
    signs = {label: [label] for label in labels} if problem == CLASSIFICATION else {}
    signs |= {"B-place": ["new", "paris"], "I-place": ["york"], "O": FILLER} if problem == TOKENS else {}
    for label, words in signs.items():
        for word in words:
            if word in WORDS:
                heads[WORDS.index(word), labels.index(label)] += 4
    onnx.save(_graph(vectors, heads, problem), directory / "model.onnx")
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    about = {
        "problem": problem,
        "labels": labels,
        "max_length": 32,
        "thresholds": None,
        "base": "tiny",
        "licence": None,
    }
    write_json(directory / "stillhouse.json", about)
    return directory


def _graph(vectors: np.ndarray, heads: np.ndarray, problem: str) -> onnx.ModelProto:
    constants = [("vectors", vectors), ("heads", heads), ("axis1", np.array([1])), ("axis2", np.array([2]))]
    each = "pooled" if problem == CLASSIFICATION else "states"
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis2"], ["wide"]),
        helper.make_node("Mul", ["states", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis1"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["wide", "axis1"], ["count"], keepdims=0),
        helper.make_node("Div", ["summed", "count"], ["pooled"]),
        helper.make_node("MatMul", [each, "heads"], ["logits"]),
    ]
    shape = ["batch", heads.shape[1]] if problem == CLASSIFICATION else ["batch", "length", heads.shape[1]]
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"])
        for n in ("input_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", vectors.shape[1]]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(nodes, "tiny", ids, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def make_data(directory: Path, problem: str = CLASSIFICATION, rows: int = 60) -> Path:
    """Texts that hold the name of their class, or sentences with places; `source` is a column for slices."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        make = _text_row if problem == CLASSIFICATION else _sentence_row
        frame = pd.DataFrame([make(generator, number) for number in range(rows)])
        ids = [hashlib.sha256(f"{split}{number}".encode()).hexdigest() for number in range(rows)]
        sources = ["web" if number % 3 else (None, "")[number % 2] for number in range(rows)]
        frame.assign(id=ids, source=sources).to_parquet(directory / f"{split}.parquet", index=False)
    write_json(directory / "labels.json", LABELS if problem == CLASSIFICATION else TAGS)
    info = {"problem": problem, "language": "en", "licence": "CC0-1.0", "columns": {}, "report": {}}
    write_json(directory / "data.json", info)
    return directory


def _text_row(generator: np.random.Generator, number: int) -> dict[str, Any]:
    words = generator.choice(FILLER, size=int(generator.integers(1, 8))).tolist()
    words.insert(int(generator.integers(len(words) + 1)), LABELS[number % 3])
    return {"text": " ".join(words), "label": np.int32(number % 3)}


def _sentence_row(generator: np.random.Generator, number: int) -> dict[str, Any]:
    words = generator.choice(FILLER, size=int(generator.integers(1, 6))).tolist()
    tags = [0] * len(words)
    place = [(["new", "york"], [1, 2]), (["paris"], [1]), ([], [])][number % 3]
    return {"words": words + place[0], "tags": np.array(tags + place[1], dtype=np.int32)}


def as_input(path: Path, kind: str = "model.onnx") -> Input:
    return Input(path, f"key-{path.name}", kind, f"content-{path.name}")


def make_job(tmp_path: Path, name: str = "job", **inputs: Input) -> Job:
    """A job with these inputs and a plain folder for derived data."""
    out, scratch = tmp_path / name / "out", tmp_path / name / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()

    def derived(kind: str, settings: dict[str, Any], contents: list[str], build: Callable[[Path], None]) -> Path:
        directory = tmp_path / "derived" / "-".join([kind, *contents])
        if not directory.exists():
            directory.mkdir(parents=True)
            build(directory)
        return directory

    return Job(out, scratch, inputs={slot: [item] for slot, item in inputs.items()}, derived=derived)
