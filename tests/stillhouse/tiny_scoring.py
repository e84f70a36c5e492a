"""Tiny random models as artifacts, for the tests of scoring, export and quantization."""

from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.export.onnx import Onnx
from stillhouse.files import write_json
from stillhouse.method import Input, Job, Source
from stillhouse.models import base_directory, from_base, save_model
from tests.stillhouse.train.tiny_training import LABELS, TAGS, Derived, make_base, text_rows, word_rows
from tests.stillhouse.train.tiny_training import WORDS as VOCABULARY

TEXTS = "text-classification"
WORDS = "token-classification"


def make_model(directory: Path, problem: str = TEXTS, max_length: int = 16, **config) -> Path:
    """A `model.torch` artifact with a random head, at `directory / "torch"`."""
    base = make_base(directory / "base", words=[*VOCABULARY, *"abcdefghij"], **config)
    labels = LABELS if problem == TEXTS else TAGS
    model = from_base(base_directory(Source("tiny", "0", path=str(base))), problem, labels, seed=1)
    info = {"problem": problem, "labels": labels, "max_length": max_length, "thresholds": None, "base": "tiny"}
    out = directory / "torch"
    out.mkdir()
    save_model(model, base, {**info, "licence": None}, out)
    return out


def make_rows(directory: Path, problem: str = TEXTS, count: int = 80) -> Path:
    """A `data` artifact without test rows, which only `evaluate.*` may read, at `directory / "data"`."""
    out = directory / "data"
    out.mkdir()
    frame: pd.DataFrame = text_rows(count, 3) if problem == TEXTS else word_rows(count, 3)
    for split in ("train", "validation"):
        frame.to_parquet(out / f"{split}.parquet")
    write_json(out / "labels.json", LABELS if problem == TEXTS else TAGS)
    write_json(out / "data.json", {"problem": problem, "normalize": "NFC"})
    return out


def make_job(directory: Path, name: str, **inputs: Path) -> Job:
    """A job that writes to `directory / name`."""
    out, scratch = directory / name, directory / f"{name}-scratch"
    out.mkdir()
    kinds = {"model": "model.torch", "baseline": "model.torch", "data": "data"}
    filled = {slot: [Input(path, slot, kinds[slot], f"content of {path}")] for slot, path in inputs.items()}
    return Job(out=out, scratch=scratch, inputs=filled, derived=Derived(directory / "derived"))


def export(model: Path, name: str = "onnx", **settings) -> Path:
    """The `model.onnx` artifact of `model`, beside it."""
    job = make_job(model.parent, name, model=model)
    Onnx(**settings).run(job)
    return job.out


def furthest(one, other) -> float:
    """Largest difference between two results of `score`."""
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(one, other, strict=True))
