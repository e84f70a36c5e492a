"""Benchmark 4: one epoch of fine-tuning against the Hugging Face Trainer, padded in three ways."""

import statistics
from functools import partial
from typing import Any

from benchmarks.harness import interleave, ratio, row
from benchmarks.tasks_of_training import LENGTH, HubTrainer, accuracy, fresh_home, job, labelled, prepared

WORK = "fine-tuning MiniLM-L6, one epoch, tweets in three classes, batches of 32, tokenization inside the clock"
RATE = 1e-4
ROWS, SPEED_ROWS, WARM_UP_ROWS = 4000, 800, 200
SEEDS = (42, 43, 44)
ANCHOR = "3.5x to 4.6x, pad-to-max against length-grouped, on a GPU (Lefebvre Sarrut 2020)"


def measure(quick: bool) -> dict[str, Any]:
    """Seconds on `SPEED_ROWS` texts, side by side; accuracy after `ROWS` texts with three seeds."""
    data = prepared(200 if quick else SPEED_ROWS)
    peers = {
        "Trainer, padded to max_length": HubTrainer(data, padding="max"),
        "Trainer, dynamic padding": HubTrainer(data),
        "Trainer, length-grouped": HubTrainer(data, grouped=True),
    }
    sides = {"ours": partial(ours, data, 42), **{name: partial(theirs, peer, 42) for name, peer in peers.items()}}
    few = prepared(WARM_UP_ROWS)
    ours(few, 42)
    theirs(HubTrainer(few), 42)
    seconds = interleave(sides, 1 if quick else 5, warm_up=False)
    goals = dict(zip(peers, (3.0, 1.5, 1.15), strict=True))
    rows = [row(name, ratio(seconds, "ours", name), goals[name]) for name in peers]
    rows[0]["anchor"] = ANCHOR
    return {"rows": rows, "seconds": seconds, "texts": SPEED_ROWS, "accuracy": _quality(quick)}


def _quality(quick: bool) -> dict[str, Any]:
    data = prepared(200 if quick else ROWS)
    found: dict[str, list[float]] = {"ours": [], "Trainer, length-grouped": []}
    for seed in SEEDS[:1] if quick else SEEDS:
        found["ours"].append(accuracy(ours(data, seed), data))
        found["Trainer, length-grouped"].append(accuracy(theirs(HubTrainer(data, grouped=True), seed), data))
    return {"texts": ROWS, "by_seed": found, "mean": {name: statistics.mean(each) for name, each in found.items()}}


def ours(data: Any, seed: int) -> Any:
    """The model after one epoch of `train.stage` with dropout 0, as the shipped recipes set it."""
    from stillhouse.models import load_model
    from stillhouse.train.stage import Stage

    with fresh_home() as home:
        stage = Stage(
            base="MiniLM-L6", train="all", learning_rate=RATE, num_train_epochs=1, per_device_train_batch_size=32,
            max_length=LENGTH, dropout=0.0, max_eval_samples=32,
        )  # fmt: skip
        work = job(home, "stage", data, seed)
        stage.run(work)
        return load_model(work.out)


def theirs(peer: HubTrainer, seed: int) -> Any:
    """The model after one epoch of the Trainer: its own dropout, all weights, the same rate and schedule."""
    from benchmarks.harness import base_model
    from stillhouse.models import from_base

    _, _, names = labelled(peer.data, "train")
    model = from_base(base_model(), "text-classification", names, seed)
    with fresh_home() as home:
        peer.train(model, home, seed, epochs=1, rate=RATE)
    return model
