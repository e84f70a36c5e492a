"""Benchmark 7: structures physically removed, against masks that only zero them, and against random structures."""

import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.distillation import teacher
from benchmarks.harness import interleave, ratio, row
from benchmarks.scoring_fp32 import onnx_model
from benchmarks.tasks_of_training import accuracy, fresh_home, job, labelled, prepared

WORK = "MiniLM-L6 on tweets with 53 % and 34 % of its multiplications kept, 2,000 scored in fp32 by ONNX Runtime"
ROWS = 4000
KEEP, KEEP_RECOVERED = 0.53, 0.34
EPOCHS = 3
TEXTS = 2000
SEED = 42
ANCHOR = "Fisher masks without retraining 1.56x, < 3 min on a GPU (arXiv:2204.09656)"


def measure(quick: bool) -> dict[str, Any]:
    """Speed of whole passes over the same texts; points of accuracy on the test rows."""
    from stillhouse.scorer import load_scorer

    data, rows = prepared(200 if quick else ROWS), 200 if quick else ROWS
    taught = teacher(rows)
    texts = labelled(data, "test")[0][: 100 if quick else TEXTS]
    with fresh_home() as home:
        started = time.perf_counter()
        pruned = _pruned(home, "pruned", taught, data, KEEP)
        took = time.perf_counter() - started
        deeper = _pruned(home, "deeper", taught, data, KEEP_RECOVERED)
        recovered = _recovered(home, taught, deeper, data, 1 if quick else EPOCHS)
        models = {"whole": taught, "pruned": pruned, "recovered": recovered}
        graphs = {**models, "torch.nn.utils.prune": _masked(home, taught)}
        scorers = {name: load_scorer(onnx_model(home, path, data, f"{name}-onnx")) for name, path in graphs.items()}
        sides = {name: partial(scorer.score, texts) for name, scorer in scorers.items()}
        seconds = interleave(sides, 1 if quick else 7)
        quality = {name: accuracy(_model(path), data) for name, path in models.items()}
        quality["random structures"] = _random(home, taught, data)
    rows_made = [
        row("whole model, without retraining", ratio(seconds, "pruned", "whole"), 1.6, anchor=ANCHOR),
        row("whole model, after recovery", ratio(seconds, "recovered", "whole"), 2.3),
        row("torch.nn.utils.prune, half of every matrix", ratio(seconds, "pruned", "torch.nn.utils.prune"), None),
    ]
    return {
        "rows": rows_made, "seconds": seconds, "accuracy": quality, "seconds_of_pruning": took, "texts": len(texts),
        "multiplications_kept": {"pruned": KEEP, "recovered": KEEP_RECOVERED},
    }  # fmt: skip


def _pruned(home: Path, name: str, taught: Path, data: Path, keep: float) -> Path:
    from stillhouse.method import Input
    from stillhouse.prune.structured import Structured

    work = job(home, name, data, SEED, inputs={"model": [Input(taught, "t", "model.torch", "t")]})
    Structured(keep=keep, speed_seconds=0.1, max_rows=200).run(work)
    return work.out


def _recovered(home: Path, taught: Path, student: Path, data: Path, epochs: int) -> Path:
    from stillhouse.distill.logits import Logits
    from stillhouse.method import Input

    inputs = {
        "teachers": [Input(taught, "t", "model.torch", "t")], "model": [Input(student, "s", "model.torch", "s")]
    }  # fmt: skip
    work = job(home, "recovered", data, SEED, inputs=inputs)
    Logits(learning_rate=2e-4, num_train_epochs=epochs, dropout=0.0, max_eval_samples=1000).run(work)
    return work.out


def _model(directory: Path) -> Any:
    from stillhouse.models import load_model

    return load_model(directory)


def _masked(home: Path, taught: Path) -> Path:
    """Half of the rows of every matrix set to zero by norm, as `torch.nn.utils.prune` does it, masks made permanent."""
    import torch
    from torch.nn.utils import prune

    from stillhouse.models import read_info, save_model

    model = _model(taught)
    for module in model.base_model.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            prune.ln_structured(module, "weight", amount=0.5, n=2, dim=0)
            prune.remove(module, "weight")
    out = home / "masked"
    out.mkdir()
    save_model(model, taught, read_info(taught), out)
    return out


def _random(home: Path, taught: Path, data: Path) -> float:
    """Accuracy with as many heads and units removed, chosen by chance, refitted alike."""
    from stillhouse.blocks import layer_blocks
    from stillhouse.prune import _structured
    from stillhouse.prune._importance import Importance

    def by_chance(model: Any, batches: Any, tell: Any) -> Importance:
        import torch

        chance = torch.Generator().manual_seed(SEED)
        return [
            (torch.rand(blocks.heads, generator=chance), torch.rand(blocks.units, generator=chance))
            for blocks in layer_blocks(model)
        ]

    asked = copy.copy(_structured.fisher_importance)
    _structured.fisher_importance = by_chance
    try:
        return accuracy(_model(_pruned(home, "random", taught, data, KEEP)), data)
    finally:
        _structured.fisher_importance = asked
