"""What every kind of distillation does: check the teachers, ask them once, train the student on what they said."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from stillhouse.distill._extra import with_extra
from stillhouse.distill._features import Feature, Recorder
from stillhouse.distill._logits import confidences, soft_loss, soft_targets
from stillhouse.distill._matching import Matching
from stillhouse.distill._rounded import round_weights
from stillhouse.distill._student import make_student
from stillhouse.distill._teacher import teacher_features, teacher_logits, validation_logits
from stillhouse.distill.settings import DistillSettings
from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.models import load_model, read_info, tokenizer_json
from stillhouse.problems import find_problem
from stillhouse.train._batches import Batch, pad_pieces
from stillhouse.train._frozen import keep_states, layers_to_keep
from stillhouse.train._loss import LossFunction, cross_entropy_share, label_weights
from stillhouse.train._parts import set_trainable
from stillhouse.train._predict import best_metric, word_logits
from stillhouse.train._stage import (
    TRAINED_ALONG,
    Candidate,
    check_same_task,
    data_description,
    tokenize,
    train_and_publish,
)
from stillhouse.train._tokens import IGNORED, UNLABELLED, TokenizedData

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

MakeMatching = Callable[["PreTrainedModel", "PreTrainedModel"], Matching]
"""`make(student, teacher)`"""


def run_distillation(settings: DistillSettings, job: Job, make_matching: MakeMatching | None = None) -> Metrics:
    infos = _check_teachers(job)
    student = make_student(settings, job, infos[0])
    data = tokenize(settings, job, student)
    weights = label_weights(settings, student.info["labels"], data.train.targets)
    labelled = len(data.train)
    data = with_extra(job, student, data)
    taught = [teacher_logits(job, teacher, data) for teacher in job.inputs["teachers"]]
    shares = _fixed_shares(settings, job, student.info, data)
    loss = logits_loss(settings, data, taught, weights, shares)
    if settings.weight_bits is not None:
        round_weights(student.model, settings.weight_bits)
    if make_matching is not None:
        matching = make_matching(student.model, load_model(job.inputs["teachers"][0].path))
        if matching.extra is not None:
            student.model.add_module(TRAINED_ALONG, matching.extra)
        features = teacher_features(job, job.inputs["teachers"][0], data, matching.theirs)
        loss = _with_matching(loss, student, data, matching, features)
    depths = set_trainable(student.model, settings.train, settings.train_embeddings)
    # What is matched inside the student, or rounded on the way, is not to be had from states that are kept.
    layers = 0 if make_matching or settings.weight_bits else layers_to_keep(settings, student.model, depths, data)
    kept = keep_states(job, student.model, data, layers, settings) if layers else None
    data, upper = kept or (data, None)
    figures = train_and_publish(settings, job, student, data, (depths, loss), upper)
    figures["states_of_layers"] = float(layers if kept else 0)
    more = {"extra_rows": float(len(data.train) - labelled)} if job.has("extra") else {}
    return {**figures, "layers": float(student.model.config.num_hidden_layers), **more}


def logits_loss(
    settings: DistillSettings,
    data: TokenizedData,
    taught: list[np.ndarray],
    weights: torch.Tensor | None,
    shares: torch.Tensor | None = None,
) -> LossFunction:
    """alpha * soft loss + (1 - alpha) * cross-entropy, each a mean over what the optimizer step decides.

    What is `UNLABELLED` counts in the first alone.
    """

    def loss(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        logits = model(**batch.inputs).logits
        decided = batch.targets != IGNORED
        each = [_of_batch(rows, data, batch)[decided] for rows in taught]
        wanted = confidences(each) if settings.teacher_weights == "confidence" else shares
        soft = soft_targets(each, settings.temperature, wanted)
        count = (targets != IGNORED).sum().clamp_min(1)
        against_teachers = soft_loss(logits[decided], soft, settings.temperature) / count
        own = None if weights is None else weights.to(logits.device)
        against_labels = cross_entropy_share(
            logits, _labelled(batch.targets), _labelled(targets), own, settings.label_smoothing_factor
        )
        return settings.alpha * against_teachers + (1 - settings.alpha) * against_labels

    return loss


def _labelled(targets: torch.Tensor) -> torch.Tensor:
    return torch.where(targets == UNLABELLED, IGNORED, targets)


def _with_matching(
    loss: LossFunction, student: Candidate, data: TokenizedData, matching: Matching, features: dict[Feature, np.ndarray]
) -> LossFunction:
    """`loss`, plus the loss on the inside of both models; parts of a step count by what they decide."""
    recorder = Recorder(student.model, matching.ours, training_only=True)

    def both(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        outside = loss(model, batch, targets)
        theirs = {feature: _padded(values, data, batch) for feature, values in features.items()}
        inside = matching.loss(recorder.take(), theirs, batch.inputs["attention_mask"])
        share = (batch.targets != IGNORED).sum() / (targets != IGNORED).sum().clamp_min(1)
        return outside + share * inside

    return both


def _of_batch(logits: np.ndarray, data: TokenizedData, batch: Batch) -> torch.Tensor:
    """The rows of a batch out of a teacher's logits."""
    if data.train.words is None:
        return torch.from_numpy(np.array(logits[batch.pieces], np.float32)).to(batch.targets.device)
    return _padded(logits, data, batch)


def _padded(values: np.ndarray, data: TokenizedData, batch: Batch) -> torch.Tensor:
    """float32 [pieces, width, ...] out of values of all tokens."""
    rows = pad_pieces(values, data.train.offsets, batch.pieces, 0.0)
    return torch.from_numpy(rows).float().to(batch.targets.device)


def _fixed_shares(
    settings: DistillSettings, job: Job, info: dict[str, Any], data: TokenizedData
) -> torch.Tensor | None:
    """Weights of the teachers that are the same for all rows, [teachers]; None: uniform, or by row."""
    from stillhouse.metrics import evaluate_predictions

    teachers, chosen = job.inputs["teachers"], settings.teacher_weights
    if isinstance(chosen, list):
        if len(chosen) != len(teachers):
            raise UserError(f"teacher_weights has {len(chosen)} numbers", f"there are {len(teachers)} teachers")
        return torch.tensor(chosen)
    if chosen != "validation" or len(teachers) == 1:
        return None
    kind, metric = find_problem(info["problem"]), best_metric(settings.metric_for_best_model, info["problem"])
    found = []
    for teacher in teachers:
        logits: Any = validation_logits(job, teacher, data)
        scores = logits if kind.unit == "text" else word_logits(logits, data.validation, data.truth)
        found.append(max(1e-6, evaluate_predictions(info["problem"], info["labels"], data.truth, scores)[metric]))
    return torch.tensor(found)


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
