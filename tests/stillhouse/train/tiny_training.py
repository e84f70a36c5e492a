"""A tiny random encoder, made-up rows and jobs without a store, for the tests of training and distillation."""

import json
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from stillhouse.method import Input, Job, Source

WORDS = [
    "good",
    "bad",
    "plain",
    "tea",
    "cup",
    "rain",
    "sun",
    "road",
    "blue",
    "old",
    "paris",
    "rome",
    "walk",
    "##ing",
    "##s",
]
LABELS = ["negative", "neutral", "positive"]
TAGS = ["O", "B-place", "I-place"]


def make_base(directory: Path, layers: int = 2, seed: int = 0, words: list[str] = WORDS, **config: Any) -> Path:
    """A random BERT encoder with a word-piece tokenizer, as a checkpoint directory."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7)
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    sizes = {"vocab_size": len(vocabulary), "num_hidden_layers": layers, "max_position_embeddings": 32}
    # The usual 0.02 is for wide models: a narrow one would learn slowly from it.
    settings = {**settings, "initializer_range": 0.15, **config}
    BertModel(BertConfig(**sizes, **settings)).save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return directory


def text_rows(count: int, seed: int) -> pd.DataFrame:
    """Texts of 2 to 9 words; the word that decides the label is somewhere in each."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 3, count).astype(np.int32)
    texts = []
    for label in labels:
        words = [str(word) for word in chance.choice(WORDS[3:12], chance.integers(1, 9))]
        words.insert(int(chance.integers(0, len(words) + 1)), ["bad", "plain", "good"][label])
        texts.append(" ".join(words))
    return pd.DataFrame({"id": [f"{i}" for i in range(count)], "text": texts, "label": labels})


def word_rows(count: int, seed: int) -> pd.DataFrame:
    """Sentences of 3 to 30 words; "paris" and "rome" are places."""
    chance = np.random.default_rng(seed)
    words = [[str(w) for w in chance.choice([*WORDS[3:12], "walking"], chance.integers(3, 31))] for _ in range(count)]
    tags = [[1 if word in ("paris", "rome") else 0 for word in row] for row in words]
    return pd.DataFrame({"id": [f"{i}" for i in range(count)], "words": words, "tags": tags})


def make_data(directory: Path, problem: str = "text-classification", train: int = 96, validation: int = 40) -> Path:
    """A `data` artifact whose test rows are ids and nothing else: only `evaluate.*` may read them."""
    directory.mkdir(parents=True)
    texts = problem == "text-classification"
    rows = text_rows if texts else word_rows
    for split, (count, seed) in {"train": (train, 1), "validation": (validation, 2)}.items():
        rows(count, seed).to_parquet(directory / f"{split}.parquet")
    pd.DataFrame({"id": ["held out"]}).to_parquet(directory / "test.parquet")
    (directory / "labels.json").write_text(json.dumps(LABELS if texts else TAGS), encoding="utf-8")
    (directory / "data.json").write_text(json.dumps({"problem": problem, "normalize": "NFC"}), encoding="utf-8")
    return directory


class Derived:
    """A stand-in for the store's derived data that counts what was built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.built: list[str] = []

    def __call__(self, kind: str, settings: dict[str, Any], contents: list[str], build: Callable[[Path], None]) -> Path:
        key = sha256(json.dumps([kind, settings, contents], sort_keys=True).encode()).hexdigest()[:16]
        if not (self.root / key).exists():
            (self.root / key).mkdir(parents=True)
            try:
                build(self.root / key)
            except BaseException:
                shutil.rmtree(self.root / key)
                raise
            self.built.append(kind)
        return self.root / key


def as_input(path: Path, kind: str = "data") -> Input:
    return Input(path, key=path.name, kind=kind, content=f"content of {path}")


def make_job(root: Path, name: str, data: Path, base: Path | None = None, **more: Any) -> Job:
    """A job in `root/name` that shares derived data with the other jobs of `root`."""
    out, scratch = root / name / "out", root / name / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    inputs = {"data": [as_input(data)], **more.pop("inputs", {})}
    sources = {"base": Source("tiny", "digest", str(base))} if base else {}
    more.setdefault("derived", Derived(root / "derived"))
    return Job(out, scratch, inputs=inputs, sources=sources, **more)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / "model.safetensors")


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
