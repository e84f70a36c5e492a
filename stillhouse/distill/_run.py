"""What every kind of distillation does: check the teachers, ask them once, train the student on what they said."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from stillhouse.distill._extra import with_extra
from stillhouse.distill._features import Feature, Recorder
from stillhouse.distill._matching import Matching
from stillhouse.distill._rounded import round_weights
from stillhouse.distill._student import make_student
from stillhouse.distill._teacher import teacher_features
from stillhouse.distill.settings import DistillSettings
from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.models import load_model
from stillhouse.problems import find_problem
from stillhouse.train._batches import Batch
from stillhouse.train._frozen import keep_states, layers_to_keep
from stillhouse.train._loss import LossFunction, label_weights
from stillhouse.train._parts import set_trainable
from stillhouse.train._predict import best_metric, word_logits
from stillhouse.train._replay import with_replay
from stillhouse.train._soft import of_tokens, soft_and_hard_loss
from stillhouse.train._stage import TRAINED_ALONG, Candidate, data_description, tokenize, train_and_publish
from stillhouse.train._teachers import ask_teachers, check_teachers, validation_logits, widened
from stillhouse.train._tokens import IGNORED, TokenizedData

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

MakeMatching = Callable[["PreTrainedModel", "PreTrainedModel"], Matching]
"""`make(student, teacher)`"""


def run_distillation(settings: DistillSettings, job: Job, make_matching: MakeMatching | None = None) -> Metrics:
    problem, labels, _ = data_description(job)
    infos = check_teachers(job, problem, labels, settings.grow_head)
    student = make_student(settings, job, infos[0])
    data, replayed = with_replay(settings.replay_ratio, job, tokenize(settings, job, student))
    weights = label_weights(settings, labels, data.train.targets)
    labelled = len(data.train)
    data = with_extra(job, student, data)
    taught = ask_teachers(job, infos, labels, data)
    loss = soft_and_hard_loss(settings, data, taught, weights, _shares(settings, job, infos, data))
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
    return {**figures, **replayed, "layers": float(student.model.config.num_hidden_layers), **more}


def _with_matching(
    loss: LossFunction, student: Candidate, data: TokenizedData, matching: Matching, features: dict[Feature, np.ndarray]
) -> LossFunction:
    """`loss`, plus the loss on the inside of both models; parts of a step count by what they decide."""
    recorder = Recorder(student.model, matching.ours, training_only=True)

    def both(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        outside = loss(model, batch, targets)
        theirs = {feature: of_tokens(values, data, batch) for feature, values in features.items()}
        inside = matching.loss(recorder.take(), theirs, batch.inputs["attention_mask"])
        share = (batch.targets != IGNORED).sum() / (targets != IGNORED).sum().clamp_min(1)
        return outside + share * inside

    return both


def _shares(
    settings: DistillSettings, job: Job, infos: list[dict[str, Any]], data: TokenizedData
) -> torch.Tensor | Literal["confidence"] | None:
    """Weights of the teachers that are the same for all rows, [teachers], or how they follow row by row."""
    from stillhouse.metrics import evaluate_predictions

    teachers, chosen = job.inputs["teachers"], settings.teacher_weights
    if isinstance(chosen, list):
        if len(chosen) != len(teachers):
            raise UserError(f"teacher_weights has {len(chosen)} numbers", f"there are {len(teachers)} teachers")
        return torch.tensor(chosen)
    if chosen != "validation" or len(teachers) == 1:
        return "confidence" if chosen == "confidence" else None
    problem, labels, _ = data_description(job)
    kind, metric = find_problem(problem), best_metric(settings.metric_for_best_model, problem)
    found = []
    for teacher, info in zip(teachers, infos, strict=True):
        logits: Any = widened(validation_logits(job, teacher, data), info["labels"], labels)
        scores = logits if kind.unit == "text" else word_logits(logits, data.validation, data.truth)
        found.append(max(1e-6, evaluate_predictions(problem, labels, data.truth, scores)[metric]))
    return torch.tensor(found)
