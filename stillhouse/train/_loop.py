"""The one training loop. Fine-tuning, distillation and later kinds differ by the loss function they pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.train import _resume
from stillhouse.train._batches import collate, epoch_order, micro_batches
from stillhouse.train._checkpoint import load_newest, remove_checkpoints, save_checkpoint
from stillhouse.train._loss import LossFunction
from stillhouse.train._parts import make_optimizer, make_schedule, training_mode
from stillhouse.train._resume import Progress
from stillhouse.train._tokens import Tokens
from stillhouse.train.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


@dataclass(frozen=True)
class Training:
    """What the loop needs to know."""

    model: "PreTrainedModel"
    depths: dict[str, int]
    """Depth of each trained parameter, as `set_trainable` returns it."""
    tokens: Tokens
    loss: LossFunction
    evaluate: Callable[[nn.Module], Metrics]
    """Metrics of the model on the validation rows."""
    metric: str
    settings: TrainingSettings
    upper: nn.Module | None = None
    """The part of `model` that is run, when `tokens` has what the frozen part below it says."""


@dataclass(frozen=True)
class Outcome:
    """The model has the best weights when this is returned."""

    best: float
    best_step: int
    steps: int
    history: list[dict[str, Any]]
    """One entry per evaluation, as `metrics.jsonl` has it."""
    samples_per_second: float
    """Of the optimizer steps that this process made."""


@dataclass(frozen=True)
class _Tools:
    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    schedule: Any


def train(training: Training, job: Job) -> Outcome:
    """Train to the end, or on from the newest checkpoint in `job.scratch`; leave the best weights in the model."""
    settings = training.settings
    steps_per_epoch = ceil(len(training.tokens) / settings.per_device_train_batch_size)
    total = max(1, ceil(settings.num_train_epochs * steps_per_epoch))
    scored = evaluation_steps(total, steps_per_epoch, settings.evaluations_per_epoch)
    tools = _prepare(training, total, job.seed)
    progress = _resume_or_begin(training, tools, job)
    training_mode(tools.model)
    saved, seconds, first = time.monotonic(), 0.0, progress.step
    order: list[np.ndarray] = []
    while progress.step < total and not progress.stopped:
        epoch, place = divmod(progress.step, steps_per_epoch)
        if not order or place == 0:
            order = epoch_order(training.tokens.lengths, settings.per_device_train_batch_size, job.seed, epoch)
        began = time.monotonic()
        loss, rate = _step(training, tools, order[place], progress.step)
        seconds += time.monotonic() - began
        progress.add_step(loss, rate)
        if progress.step in scored:
            _score(training, tools.model, progress, progress.step / steps_per_epoch)
        job.progress(progress.step, total, f"loss {loss:.3f}")
        if _checkpoint_due(settings, progress.step, saved) and progress.step < total:
            _save(training, tools, progress, job)
            saved = time.monotonic()
    _resume.put_weights(training.model, progress.best_weights)
    samples = (progress.step - first) * settings.per_device_train_batch_size
    return Outcome(
        progress.best, progress.best_step, progress.step, progress.history, samples / seconds if seconds else 0.0
    )


def evaluation_steps(total: int, steps_per_epoch: int, per_epoch: int) -> set[int]:
    """The steps after which the validation rows are scored: evenly spread over each epoch, and the last one."""
    parts = range(1, ceil(total / steps_per_epoch) * per_epoch + 1)
    steps = {max(1, round(part * steps_per_epoch / per_epoch)) for part in parts}
    return {step for step in steps if step <= total} | {total}


def _prepare(training: Training, total: int, seed: int) -> _Tools:
    on_gpu = torch.cuda.is_available()
    # On a CPU without AMX, bf16 takes longer than fp32.
    precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "no"
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision=precision)
    set_seed(seed)
    optimizer = make_optimizer(training.model, training.depths, training.settings)
    schedule = make_schedule(optimizer, training.settings, total)
    model, prepared = accelerator.prepare(training.upper or training.model, optimizer)
    return _Tools(accelerator, model, prepared, schedule)


def _step(training: Training, tools: _Tools, rows: np.ndarray, done: int) -> tuple[float, float]:
    """One optimizer step; its loss and learning rate (of the head)."""
    settings, tokens = training.settings, training.tokens
    parts = micro_batches(rows, tokens.lengths, settings.max_tokens_per_batch)
    pad = training.model.config.pad_token_id or 0
    batches = [collate(tokens, part, pad, tools.accelerator.device) for part in parts]
    targets = torch.cat([batch.targets.reshape(-1) for batch in batches])
    total = 0.0
    for batch in batches:
        with tools.accelerator.autocast():
            loss = training.loss(tools.model, batch, targets)
        tools.accelerator.backward(loss)
        total += loss.item()
    if not isfinite(total):
        raise UserError(
            f"training diverged: the loss is {total} at step {done + 1}",
            f"lower learning_rate (now {settings.learning_rate:g}, try {settings.learning_rate / 3:.1g})",
        )
    if settings.max_grad_norm:
        trained = [parameter for parameter in tools.model.parameters() if parameter.requires_grad]
        tools.accelerator.clip_grad_norm_(trained, settings.max_grad_norm)
    rate = float(tools.schedule.get_last_lr()[0])
    tools.optimizer.step()
    tools.schedule.step()
    tools.optimizer.zero_grad()
    return total, rate


def _score(training: Training, model: nn.Module, progress: Progress, epoch: float) -> None:
    """Score the validation rows; remember the weights if they are the best so far."""
    model.eval()
    metrics = training.evaluate(model)
    training_mode(model)
    if training.metric not in metrics:
        raise UserError(
            f"{training.metric} cannot be computed on these validation rows", "choose another metric_for_best_model"
        )
    better = progress.add_evaluation(metrics, training.metric, epoch, training.settings.early_stopping_patience)
    if better:
        progress.best_weights = _resume.take_weights(training.model, training.depths)


def _resume_or_begin(training: Training, tools: _Tools, job: Job) -> Progress:
    found = load_newest(job.scratch, job.reached)
    about = _belongs_to(job, tools)
    if found is not None and found[1]["inputs"] != about:
        remove_checkpoints(job.scratch)  # later steps than ours will make: they would hide our own
        found = None
    if found is None:
        return Progress(best_weights=_resume.take_weights(training.model, training.depths))
    parts, state = found
    _resume.put_weights(training.model, parts["weights"])
    _resume.put_optimizer(training.model, tools.optimizer.optimizer, parts["optimizer"])
    _resume.put_schedule(tools.optimizer.optimizer, tools.schedule, state["schedule"])
    _resume.put_random(parts["random"], state["random"])
    progress = Progress.of(state["progress"], parts["best"])
    job.reached("train.resumed", at=progress.step)
    return progress


def _belongs_to(job: Job, tools: _Tools) -> dict[str, list[str]]:
    """What a checkpoint belongs to: the content of every input, which may be rebuilt meanwhile, and the precision."""
    contents = {slot: [item.content for item in items] for slot, items in sorted(job.inputs.items())}
    return {**contents, "precision": [str(tools.accelerator.mixed_precision)]}


def _checkpoint_due(settings: TrainingSettings, step: int, saved: float) -> bool:
    if settings.save_steps and step % settings.save_steps == 0:
        return True
    return settings.save_minutes is not None and time.monotonic() - saved >= 60 * settings.save_minutes


def _save(training: Training, tools: _Tools, progress: Progress, job: Job) -> None:
    random_tensors, random_state = _resume.take_random()
    parts = {
        "weights": _resume.take_weights(training.model, training.depths),
        "optimizer": _resume.take_optimizer(training.model, tools.optimizer.optimizer),
        "random": random_tensors,
        "best": progress.best_weights,
    }
    state = {
        "progress": progress.as_json(),
        "inputs": _belongs_to(job, tools),
        "schedule": _resume.take_schedule(tools.schedule),
        "random": random_state,
    }
    save_checkpoint(job.scratch, progress.step, parts, state, job.reached)
