"""What `train.stage` does: build the model, train the chosen part of it, publish the best weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import nn

from stillhouse.errors import UserError
from stillhouse.files import write_text
from stillhouse.method import Job, Metrics
from stillhouse.models import (
    base_directory,
    from_base,
    licence_of,
    load_model,
    longest_input,
    read_info,
    save_model,
    tokenizer_json,
)
from stillhouse.problems import find_problem
from stillhouse.train._checkpoint import is_disk_full
from stillhouse.train._frozen import keep_states, layers_to_keep
from stillhouse.train._labels import check_same_task, fit_head
from stillhouse.train._loop import Outcome, Training, train
from stillhouse.train._loss import LossFunction, hard_loss, label_weights
from stillhouse.train._parts import set_trainable
from stillhouse.train._predict import best_metric, validation_metrics
from stillhouse.train._replay import with_replay
from stillhouse.train._soft import soft_and_hard_loss
from stillhouse.train._teachers import ask_teachers, check_teachers
from stillhouse.train._tokens import TokenizedData, tokenize_data
from stillhouse.train.settings import TrainingSettings
from stillhouse.train.stage import Stage

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

DEFAULT_LENGTH = 128
TRAINED_ALONG = "trained_along"
"""Name of a submodule that is trained with a model and not published."""


@dataclass(frozen=True)
class Candidate:
    """A model about to be trained, and what it will be published with."""

    model: "PreTrainedModel"
    directory: Path
    """Where its tokenizer is."""
    info: dict[str, Any]
    """`stillhouse.json`"""


def run_stage(stage: Stage, job: Job) -> Metrics:
    candidate = _candidate(stage, job)
    labels = candidate.info["labels"]
    teachers = _teachers(stage, job, candidate) if job.has("teachers") else []
    data, replayed = with_replay(stage.replay_ratio, job, tokenize(stage, job, candidate))
    depths = set_trainable(candidate.model, stage.train, stage.train_embeddings)
    layers = layers_to_keep(stage, candidate.model, depths, data)
    kept = keep_states(job, candidate.model, data, layers, stage) if layers else None
    data, upper = kept or (data, None)
    weights = label_weights(stage, labels, data.train.targets)
    if teachers:  # after the states are kept: a teacher with the same frozen layers starts from them
        loss = soft_and_hard_loss(stage, data, ask_teachers(job, teachers, labels, data), weights)
    else:
        loss = hard_loss(weights, stage.label_smoothing_factor)
    figures = train_and_publish(stage, job, candidate, data, (depths, loss), upper)
    return {**figures, **replayed, "states_of_layers": float(layers if kept else 0)}


def _teachers(stage: Stage, job: Job, candidate: Candidate) -> list[dict[str, Any]]:
    """The teachers' descriptions; they must read what the candidate reads."""
    infos = check_teachers(job, candidate.info["problem"], candidate.info["labels"], stage.grow_head)
    if tokenizer_json(job.inputs["teachers"][0].path) != tokenizer_json(candidate.directory):
        raise UserError("the teachers have another tokenizer than the model", "use teachers with the same tokenizer")
    return infos


def train_and_publish(
    settings: TrainingSettings,
    job: Job,
    candidate: Candidate,
    data: TokenizedData,
    what: tuple[dict[str, int], LossFunction],
    upper: nn.Module | None = None,
) -> Metrics:
    """Train the parameters `what[0]` with the loss `what[1]`; fill `job.out`; the figures of the best weights.

    `upper`: the part of the model that is run, when `data` has the states of the part below it.
    """
    problem, labels = candidate.info["problem"], candidate.info["labels"]
    metric = best_metric(settings.metric_for_best_model, problem)
    depths, loss = what
    outcome = train(
        Training(
            candidate.model,
            depths,
            data.train,
            loss,
            lambda model: validation_metrics(model, data, problem, labels),
            metric,
            settings,
            upper,
        ),
        job,
    )
    try:
        _publish(candidate, outcome, job.out)
    except (OSError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        fix = "free some space and run again: training goes on from the last checkpoint"
        raise UserError(f"no space left on the disk for the model in {job.out}", fix) from error
    return _figures(candidate, data, outcome, metric, depths)


def _publish(candidate: Candidate, outcome: Outcome, out: Path) -> None:
    candidate.model._modules.pop(TRAINED_ALONG, None)
    save_model(candidate.model, candidate.directory, candidate.info, out)
    lines = [json.dumps(entry, sort_keys=True, allow_nan=False) + "\n" for entry in outcome.history]
    write_text(out / "metrics.jsonl", "".join(lines))


def tokenize(settings: TrainingSettings, job: Job, candidate: Candidate) -> TokenizedData:
    """The job's data as tokens for the candidate."""
    info = candidate.info
    tokenizer = tokenizer_json(candidate.directory)
    return tokenize_data(job, info["problem"], tokenizer, info["max_length"], settings.max_eval_samples)


def data_description(job: Job) -> tuple[str, list[str], str | None]:
    """Problem, labels and Unicode form of the data in slot `data`."""
    from stillhouse.data.read import load_info, load_labels

    info = load_info(job.path("data"))
    find_problem(info["problem"])
    return info["problem"], load_labels(job.path("data")), info["normalize"]


def input_length(asked: int | None, given: int | None, model: "PreTrainedModel") -> int:
    """max_length: as asked, else as the input model has it, else 128; never beyond the model's positions."""
    limit = longest_input(model)
    if asked is not None and limit is not None and asked > limit:
        raise UserError(f"max_length: {asked} is more than the model can read", f"set max_length to at most {limit}")
    length = asked or given or DEFAULT_LENGTH
    return length if limit is None else min(length, limit)


def description(
    problem: str, labels: list[str], normalize: str | None, length: int, base: str, licence: str | None
) -> dict[str, Any]:
    """The content of `stillhouse.json`."""
    return {
        "problem": problem,
        "labels": labels,
        "normalize": normalize,
        "max_length": length,
        "thresholds": None,
        "base": base,
        "licence": licence,
    }


def new_candidate(settings: TrainingSettings, job: Job, given_length: int | None = None) -> Candidate:
    """The job's `base` with a new head."""
    problem, labels, normalize = data_description(job)
    source = job.sources["base"]
    directory = base_directory(source)
    model = from_base(directory, problem, labels, job.seed, settings.dropout)
    length = input_length(settings.max_length, given_length, model)
    return Candidate(
        model, directory, description(problem, labels, normalize, length, source.title, licence_of(directory))
    )


def _candidate(stage: Stage, job: Job) -> Candidate:
    if not job.has("model"):
        return new_candidate(stage, job)
    problem, labels, normalize = data_description(job)
    directory = job.path("model")
    info = read_info(directory)
    check_same_task(info, "the input model", problem, labels, stage.grow_head)
    model = load_model(directory, stage.dropout)
    info = fit_head(model, info, labels)
    length = input_length(stage.max_length, info["max_length"], model)
    changed = {"normalize": normalize, "max_length": length, "thresholds": None}
    return Candidate(model, directory, {**info, **changed})


def _figures(
    candidate: Candidate, data: TokenizedData, outcome: Outcome, metric: str, depths: dict[str, int]
) -> Metrics:
    best = next(entry for entry in outcome.history if entry["step"] == outcome.best_step)
    shown = {name: value for name, value in best.items() if name not in ("step", "epoch", "learning_rate")}
    trained = sum(p.numel() for name, p in candidate.model.named_parameters() if name in depths)
    return {
        **shown,
        metric: outcome.best,
        "best_step": outcome.best_step,
        "steps": outcome.steps,
        "trained_parameters": trained,
        "texts_cut": data.cut,
        "train_rows": len(data.train),
        "samples_per_second": round(outcome.samples_per_second, 1),
    }
