"""Benchmark 6: ten epochs of distillation with the teacher's outputs kept, against the teacher in the loop."""

import importlib.util
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.harness import base_model, interleave, ratio, row
from benchmarks.tasks_of_training import LENGTH, HubTrainer, accuracy, fresh_home, job, prepared

WORK = "MiniLM-L6 fine-tuned on tweets → its student of three layers, ten epochs on 400 tweets, temperature 2"
ROWS, TEACHER_ROWS, WARM_UP_ROWS = 400, 1000, 200
EPOCHS = 10
RATE = 3e-4
SEED = 42
TEMPERATURE, ALPHA = 2.0, 0.9
LAYERS = 3
ANCHOR = "arithmetic: 10 (T + 3S) / (T + 30 S) = 1.56 for a teacher of twice the student's depth"
BOUND = EPOCHS * (2 + 3) / (2 + 3 * EPOCHS)


def measure(quick: bool) -> dict[str, Any]:
    data = prepared(200 if quick else ROWS)
    students: dict[str, Any] = {}
    taught = teacher(200 if quick else TEACHER_ROWS)
    epochs = 1 if quick else EPOCHS

    def timed(name: str, make: Any) -> None:
        students[name] = make(taught, data, epochs)

    sides = {"ours": ours, "teacher in the loop, our batches": in_loop, "teacher in the loop, Trainer": in_trainer}
    notes = []
    if importlib.util.find_spec("textbrewer"):
        sides["TextBrewer, our batches"] = in_textbrewer
    else:
        notes.append("TextBrewer is not installed (pip install textbrewer)")
    for make in sides.values():
        make(taught, prepared(WARM_UP_ROWS), 1)
    timed_sides = {name: partial(timed, name, make) for name, make in sides.items()}
    seconds = interleave(timed_sides, 1 if quick else 5, warm_up=False)
    names = list(sides)[1:]
    rows = [row(name, ratio(seconds, "ours", name), 2.5) for name in names]
    rows[0] |= {"bound": round(BOUND, 2), "bound_share": rows[0]["ratio"]["median"] / BOUND, "anchor": ANCHOR}
    quality = {name: accuracy(model, data) for name, model in students.items()}
    quality["teacher"] = accuracy(_load(taught), data)
    return {"rows": rows, "seconds": seconds, "accuracy": quality, "texts": ROWS, "notes": notes}


@cache
def teacher(rows: int) -> Path:
    """MiniLM-L6 fine-tuned for three epochs on the same rows; made once and kept."""
    from stillhouse.train.stage import Stage

    home = prepared(rows).parent / f"teacher-{rows}"
    if not (home / "done").is_file():
        import shutil

        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        stage = Stage(
            base="MiniLM-L6",
            train="all",
            learning_rate=1e-4,
            num_train_epochs=3,
            max_length=LENGTH,
            dropout=0.0,
            max_eval_samples=1000,
        )
        stage.run(job(home, "teacher", prepared(rows), SEED))
        (home / "done").touch()
    return home / "teacher" / "out"


def _load(directory: Path) -> Any:
    from stillhouse.models import load_model

    return load_model(directory)


def ours(taught: Path, data: Path, epochs: int) -> Any:
    from stillhouse.distill.logits import Logits
    from stillhouse.method import Input

    with fresh_home() as home:
        settings = Logits(
            layers=LAYERS, learning_rate=RATE, num_train_epochs=epochs, per_device_train_batch_size=32, dropout=0.0,
            temperature=TEMPERATURE, alpha=ALPHA, max_eval_samples=32,
        )  # fmt: skip
        work = job(home, "student", data, SEED, inputs={"teachers": [Input(taught, "t", "model.torch", "t")]})
        settings.run(work)
        return _load(work.out)


def _student(taught: Path) -> Any:
    """The same three layers of the teacher that ours begins with, its dropout as the base has it."""
    from stillhouse.models import keep_layers, load_model

    model = load_model(taught)
    keep_layers(model, [0, 2, 5])
    return model


def _teaching(teacher_model: Any) -> Any:
    """`loss(student, inputs, labels)` with the teacher's forward pass in it, as tutorials write it."""
    import torch
    import torch.nn.functional as F

    def loss(student: Any, inputs: dict[str, Any], labels: Any) -> Any:
        logits = student(**inputs).logits
        with torch.no_grad():
            theirs = teacher_model(**inputs).logits
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, -1), F.softmax(theirs / TEMPERATURE, -1), reduction="batchmean"
        )
        return ALPHA * soft * TEMPERATURE**2 + (1 - ALPHA) * F.cross_entropy(logits, labels)

    return loss


def _tokens(home: Path, data: Path) -> Any:
    from stillhouse.models import tokenizer_json
    from stillhouse.train._tokens import tokenize_data

    work = job(home, "tokens", data, SEED)
    return tokenize_data(work, "text-classification", tokenizer_json(base_model()), LENGTH, 32).train


def _batches(tokens: Any, epoch: int) -> list[Any]:
    """The batches of an epoch as our loop makes them."""
    import torch

    from stillhouse.train._batches import collate, epoch_order

    order = epoch_order(tokens.lengths, 32, SEED, epoch)
    return [collate(tokens, rows, 0, torch.device("cpu")) for rows in order]


def in_loop(taught: Path, data: Path, epochs: int) -> Any:
    """A plain loop on our batches, dropout 0, embeddings frozen: what the kept outputs alone bring."""
    import torch

    from stillhouse.train._parts import make_optimizer, make_schedule, set_trainable, training_mode
    from stillhouse.train.stage import Stage

    model = _student(taught)
    model.eval()
    depths = set_trainable(model, "all", embeddings=False)
    loss = _teaching(_load(taught).eval())
    with fresh_home() as home:
        tokens = _tokens(home, data)
        settings = Stage(base="given", num_train_epochs=epochs, learning_rate=RATE)
        steps = epochs * -(-len(tokens) // 32)
        optimizer = make_optimizer(model, depths, settings)
        schedule = make_schedule(optimizer, settings, steps)
        training_mode(model)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for epoch in range(epochs):
            for batch in _batches(tokens, epoch):
                loss(model, batch.inputs, batch.targets).backward()
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return model.eval()


def in_trainer(taught: Path, data: Path, epochs: int) -> Any:
    """The Trainer with the teacher in `compute_loss`, dynamic padding, the student's own dropout, all weights."""
    model = _student(taught)
    with fresh_home() as home:
        HubTrainer(data, loss=_teaching(_load(taught).eval())).train(model, home, SEED, epochs, RATE)
    return model.eval()


def in_textbrewer(taught: Path, data: Path, epochs: int) -> Any:
    """TextBrewer's GeneralDistiller as its examples show it, on our batches, all weights but the embeddings."""
    import torch
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
    from transformers.optimization import get_linear_schedule_with_warmup

    from stillhouse.train._parts import set_trainable

    student = _student(taught)
    set_trainable(student, "all", embeddings=False)
    with fresh_home() as home:
        batches = [{**batch.inputs, "labels": batch.targets} for batch in _batches(_tokens(home, data), 0)]
        steps = epochs * len(batches)
        optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=RATE, weight_decay=0.01)
        distiller = GeneralDistiller(
            TrainingConfig(
                device="cpu", output_dir=str(home / "out"), log_dir=None, ckpt_frequency=1, ckpt_epoch_frequency=epochs
            ),
            DistillationConfig(temperature=TEMPERATURE, hard_label_weight=1 - ALPHA, kd_loss_weight=ALPHA),
            _load(taught), student, _said, _said,
        )  # fmt: skip
        schedule = {"num_warmup_steps": steps // 10, "num_training_steps": steps}
        with distiller:
            distiller.train(
                optimizer, batches, epochs, scheduler_class=get_linear_schedule_with_warmup, scheduler_args=schedule,
                max_grad_norm=1.0,
            )  # fmt: skip
    return student.eval()


def _said(batch: dict[str, Any], outputs: Any) -> dict[str, Any]:
    """What TextBrewer asks of both models."""
    return {"logits": outputs.logits, "losses": outputs.loss}
