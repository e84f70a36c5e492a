"""Benchmark 5: three stages of unfreezing with the states of the frozen layers kept, against the Trainer's way."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import base_model, interleave, ratio, row
from benchmarks.tasks_of_training import LENGTH, HubTrainer, accuracy, as_model, fresh_home, job, labelled, prepared

WORK = "head, last layer, all layers: 3, 3 and 1 epochs of MiniLM-L6 on 1,000 tweets, dropout 0 on both sides"
STAGES = (("head", 3, 2e-3), ("last-1", 3, 3e-4), ("all", 1, 1e-4))
"""What is trained, epochs, learning rate."""
LAYERS = 6
ROWS, WARM_UP_ROWS = 1000, 200
SEED = 42
FROZEN = STAGES[:2]
ANCHOR = "AutoFreeze with kept activations 2.55x (arXiv:2102.01386)"


def measure(quick: bool) -> dict[str, Any]:
    data = prepared(200 if quick else ROWS)
    by_stage: dict[str, list[list[float]]] = {}
    kept: dict[str, Any] = {}
    batched, documented = "Trainer on our batches", "Trainer, dynamic padding"
    ways = {"ours": ours, batched: partial(theirs, same_batches=True), documented: partial(theirs, same_batches=False)}

    def timed(name: str) -> None:
        model, seconds = ways[name](data)
        kept[name] = model
        by_stage.setdefault(name, []).append(seconds)

    for way in ways.values():
        way(prepared(WARM_UP_ROWS))
    seconds = interleave({name: partial(timed, name) for name in ways}, 1 if quick else 5, warm_up=False)
    frozen = {name: [sum(turn[: len(FROZEN)]) for turn in turns] for name, turns in by_stage.items()}
    bound_frozen, bound_all = bounds()
    rows = []
    for name in (batched, documented):
        rows.append(_row(f"{name}, frozen stages", frozen, name, 3.0, bound_frozen if name == batched else None))
        rows.append(_row(f"{name}, whole schedule", seconds, name, 2.0, bound_all if name == batched else None))
    rows[0]["anchor"] = ANCHOR
    quality = {name: accuracy(model, data) for name, model in kept.items()}
    return {"rows": rows, "seconds": seconds, "seconds_by_stage": by_stage, "accuracy": quality, "texts": ROWS}


def _row(against: str, seconds: dict[str, list[float]], peer: str, goal: float, bound: float | None) -> dict[str, Any]:
    measured = ratio(seconds, "ours", peer)
    if bound is None:
        return row(against, measured, goal)
    return row(against, measured, goal, bound=round(bound, 2), bound_share=measured["median"] / bound)


def bounds() -> tuple[float, float]:
    """What keeping the states can bring in layer passes, backward counted twice: (frozen stages, whole schedule)."""
    theirs_cost, ours_cost = [], []
    for train, epochs, _ in STAGES:
        trained = {"head": 0, "all": LAYERS}.get(train) if "-" not in train else int(train.removeprefix("last-"))
        assert trained is not None
        theirs_cost.append(epochs * (LAYERS + 2 * trained))
        once = LAYERS - trained
        ours_cost.append(once + epochs * 3 * trained)
    frozen = len(FROZEN)
    return sum(theirs_cost[:frozen]) / sum(ours_cost[:frozen]), sum(theirs_cost) / sum(ours_cost)


def ours(data: Path) -> tuple[Any, list[float]]:
    """The trained model, and the seconds of each stage."""
    from stillhouse.models import load_model
    from stillhouse.train.stage import Stage

    taken = []
    with fresh_home() as home:
        before = None
        for train, epochs, rate in STAGES:
            stage = Stage(
                base=None if before else "MiniLM-L6", train=train, learning_rate=rate, num_train_epochs=epochs,
                per_device_train_batch_size=32, max_length=LENGTH, dropout=0.0, max_eval_samples=32,
            )  # fmt: skip
            work = job(home, train, data, SEED, inputs={"model": [as_model(before)]} if before else {})
            started = time.perf_counter()
            stage.run(work)
            taken.append(time.perf_counter() - started)
            before = work
        assert before is not None
        return load_model(before.out), taken


def theirs(data: Path, same_batches: bool) -> tuple[Any, list[float]]:
    """The same with `requires_grad=False` below what a stage trains."""
    from stillhouse.models import from_base
    from stillhouse.train._parts import set_trainable

    model = from_base(base_model(), "text-classification", labelled(data, "train")[2], SEED, dropout=0.0)
    taken = []
    with fresh_home() as home:
        for train, epochs, rate in STAGES:
            set_trainable(model, train, embeddings=False)
            started = time.perf_counter()
            if same_batches:
                _on_our_batches(model, data, home, epochs, rate)
            else:
                HubTrainer(data).train(model, home, SEED, epochs, rate)
            taken.append(time.perf_counter() - started)
    return model, taken


def _on_our_batches(model: Any, data: Path, out: Path, epochs: int, rate: float) -> None:
    import torch

    from benchmarks.hf_trainer import make_trainer
    from stillhouse.models import tokenizer_json
    from stillhouse.train._batches import collate, epoch_order
    from stillhouse.train._tokens import tokenize_data
    from stillhouse.train.stage import Stage

    with fresh_home() as home:
        work = job(home, "tokens", data, SEED)
        tokens = tokenize_data(work, "text-classification", tokenizer_json(base_model()), LENGTH, 32).train
        batches = []
        for epoch in range(epochs):
            for rows in epoch_order(tokens.lengths, 32, SEED, epoch):
                batch = collate(tokens, rows, 0, torch.device("cpu"))
                batches.append({**batch.inputs, "labels": batch.targets})
    settings = Stage(base="given", num_train_epochs=epochs, learning_rate=rate, per_device_train_batch_size=32)
    make_trainer(model, batches, out, settings, logging_steps=1000).train()
