"""The student, its loss, and their training."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stillhouse.distill._teacher import teacher_logits
from stillhouse.distill.logits import Logits
from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.models import encoder_layers, keep_layers, load_model, read_info, tokenizer_json
from stillhouse.train._batches import Batch, pad_pieces
from stillhouse.train._loss import LossFunction, cross_entropy_share, label_weights
from stillhouse.train._parts import set_trainable
from stillhouse.train._stage import (
    Candidate,
    check_same_task,
    data_description,
    input_length,
    new_candidate,
    tokenize,
    train_and_publish,
)
from stillhouse.train._tokens import IGNORED, TokenizedData


def run_distillation(settings: Logits, job: Job) -> Metrics:
    infos = _check_teachers(job)
    student = _student(settings, job, infos[0])
    data = tokenize(settings, job, student)
    taught = [teacher_logits(job, teacher, data) for teacher in job.inputs["teachers"]]
    depths = set_trainable(student.model, "all", settings.train_embeddings)
    weights = label_weights(settings, student.info["labels"], data.train.targets)
    loss = distillation_loss(settings, data, taught, weights)
    figures = train_and_publish(settings, job, student, data, (depths, loss))
    return {**figures, "layers": float(student.model.config.num_hidden_layers)}


def soft_targets(teachers: list[torch.Tensor], temperature: float) -> torch.Tensor:
    """Mean over the teachers of their probabilities at `temperature`; each tensor is [rows, labels]."""
    return torch.stack([torch.softmax(logits.float() / temperature, dim=-1) for logits in teachers]).mean(dim=0)


def soft_loss(student: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Sum over the rows of KL(targets || student at `temperature`) * temperature^2; both are [rows, labels].

    The factor keeps the gradient's size independent of the temperature (arXiv:1503.02531, section 2.1).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(log_student, targets, reduction="sum") * temperature**2


def evenly_spread(count: int, layers: int) -> list[int]:
    """`count` of `layers` indices, first and last included: 3 of 6 are 0, 2, 5. One layer is the first."""
    if count == 1:
        return [0]
    return [round(at * (layers - 1) / (count - 1)) for at in range(count)]


def distillation_loss(
    settings: Logits, data: TokenizedData, taught: list[np.ndarray], weights: torch.Tensor | None
) -> LossFunction:
    """alpha * soft loss + (1 - alpha) * cross-entropy, each a mean over what the optimizer step decides."""
    tokens = data.train

    def of_batch(logits: np.ndarray, batch: Batch) -> torch.Tensor:
        rows = logits[batch.pieces] if tokens.words is None else pad_pieces(logits, tokens.offsets, batch.pieces, 0.0)
        return torch.from_numpy(np.array(rows, np.float32)).to(batch.targets.device)

    def loss(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        logits = model(**batch.inputs).logits
        decided = batch.targets != IGNORED
        soft = soft_targets([of_batch(rows, batch)[decided] for rows in taught], settings.temperature)
        count = (targets != IGNORED).sum().clamp_min(1)
        against_teachers = soft_loss(logits[decided], soft, settings.temperature) / count
        own = None if weights is None else weights.to(logits.device)
        against_labels = cross_entropy_share(logits, batch.targets, targets, own, settings.label_smoothing_factor)
        return settings.alpha * against_teachers + (1 - settings.alpha) * against_labels

    return loss


def _check_teachers(job: Job) -> list[dict[str, Any]]:
    """`stillhouse.json` of every teacher: all do the data's task, with one tokenizer."""
    problem, labels, _ = data_description(job)
    infos = [read_info(teacher.path) for teacher in job.inputs["teachers"]]
    first = tokenizer_json(job.inputs["teachers"][0].path)
    for number, (teacher, info) in enumerate(zip(job.inputs["teachers"], infos, strict=True), start=1):
        check_same_task(info, f"teacher {number}", problem, labels)
        if tokenizer_json(teacher.path) != first:
            raise UserError(f"teacher {number} has another tokenizer than teacher 1", "use teachers with one tokenizer")
    return infos


def _student(settings: Logits, job: Job, info: dict[str, Any]) -> Candidate:
    teacher = job.inputs["teachers"][0].path
    if settings.layers is None:
        student = new_candidate(settings, job, info["max_length"])
        if tokenizer_json(student.directory) != tokenizer_json(teacher):
            raise UserError(
                f"{settings.base} has another tokenizer than the teacher", "choose a base with the same one"
            )
        return student
    model = load_model(teacher, settings.dropout)
    keep_layers(model, kept_layers(settings.layers, len(encoder_layers(model)[1])))
    length = input_length(settings.max_length, info["max_length"], model)
    normalize = data_description(job)[2]
    return Candidate(model, teacher, {**info, "normalize": normalize, "max_length": length, "thresholds": None})


def kept_layers(asked: int | list[int], available: int) -> list[int]:
    """The indices that `layers` means for a teacher with `available` layers, checked."""
    fix = f"the teacher has {available} layers: a number of them, or a list out of 0 to {available - 1}"
    if isinstance(asked, int):
        if not 1 <= asked <= available:
            raise UserError(f"layers: {asked} is not possible", fix)
        return evenly_spread(asked, available)
    if not asked or sorted(set(asked)) != asked or asked[0] < 0 or asked[-1] >= available:
        raise UserError(f"layers: {asked} is not an increasing list of the teacher's layers", fix)
    return asked
