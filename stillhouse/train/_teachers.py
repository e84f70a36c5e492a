"""What the teachers say about every training row: computed once, kept as derived data."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.method import Input, Job
from stillhouse.models import load_model, longest_input, read_info, tokenizer_json
from stillhouse.train._frozen import above_kept_states
from stillhouse.train._labels import check_same_task, places
from stillhouse.train._predict import predict_logits
from stillhouse.train._tokens import TokenizedData, load_array

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


@dataclass(frozen=True)
class Taught:
    """The teachers' logits of the training rows."""

    logits: list[np.ndarray]
    """Of each teacher, float32 [pieces, known labels], or [tokens, known labels] for words."""
    columns: list[int]
    """Where the known labels are among those of the data, ascending."""


def check_teachers(job: Job, problem: str, labels: list[str], grow: bool) -> list[dict[str, Any]]:
    """`stillhouse.json` of every teacher: all do the data's task, with one tokenizer, and know the same labels."""
    infos = [read_info(teacher.path) for teacher in job.inputs["teachers"]]
    first = tokenizer_json(job.inputs["teachers"][0].path)
    for number, (teacher, info) in enumerate(zip(job.inputs["teachers"], infos, strict=True), start=1):
        check_same_task(info, f"teacher {number}", problem, labels, grow)
        if tokenizer_json(teacher.path) != first:
            raise UserError(f"teacher {number} has another tokenizer than teacher 1", "use teachers with one tokenizer")
        if set(info["labels"]) != set(infos[0]["labels"]):
            odd = sorted(set(info["labels"]) ^ set(infos[0]["labels"]))
            raise UserError(
                f"teacher {number} knows other labels than teacher 1 ({', '.join(odd[:5])})",
                "use teachers with the same labels",
            )
    return infos


def ask_teachers(job: Job, infos: list[dict[str, Any]], labels: list[str], data: TokenizedData) -> Taught:
    """What each teacher in the slot says about the training rows; `infos` as `check_teachers` returns them."""
    columns = sorted(places(infos[0]["labels"], labels))
    known = [labels[column] for column in columns]
    logits = []
    for teacher, info in zip(job.inputs["teachers"], infos, strict=True):
        found = teacher_logits(job, teacher, data)
        logits.append(found if info["labels"] == known else found[:, places(known, info["labels"])])
    return Taught(logits, columns)


def teacher_logits(job: Job, teacher: Input, data: TokenizedData) -> np.ndarray:
    """The teacher's logits of the training rows, float32 [pieces, labels], or [tokens, labels] for words; mapped."""

    def build(directory: Path) -> None:
        model, tokens = above_kept_states(job, ready(teacher, data), data, "train")
        logits = predict_logits(model, tokens, lambda done, total: job.progress(done, total, "teacher"))
        np.save(directory / "train.npy", logits, allow_pickle=False)

    return load_array(job.derived("teacher-logits", data.identity, contents(job, teacher), build) / "train.npy")


def validation_logits(job: Job, teacher: Input, data: TokenizedData) -> np.ndarray:
    """The same of the validation rows that decide."""

    def build(directory: Path) -> None:
        logits = predict_logits(*above_kept_states(job, ready(teacher, data), data, "validation"))
        np.save(directory / "logits.npy", logits, allow_pickle=False)

    parts = {**data.identity, "rows": len(data.validation)}
    return load_array(job.derived("teacher-validation", parts, contents(job, teacher), build) / "logits.npy")


def widened(logits: np.ndarray, known: list[str], labels: list[str]) -> np.ndarray:
    """`logits` [n, known] as [n, labels]: a label that is not known is far less likely than any other."""
    if known == labels:
        return logits
    wide = np.full((len(logits), len(labels)), logits.min(initial=0.0) - 30.0, logits.dtype)
    wide[:, places(known, labels)] = logits
    return wide


def ready(teacher: Input, data: TokenizedData) -> "PreTrainedModel":
    """The teacher in eval mode, on the GPU if there is one."""
    model = load_model(teacher.path)
    limit = longest_input(model)
    if limit is not None and data.identity["max_length"] > limit:
        raise UserError(f"max_length is more than teacher {teacher.path} can read", f"set max_length to {limit}")
    nn.Module.to(model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval()


def contents(job: Job, teacher: Input) -> list[str]:
    """What the derived data of a teacher is keyed by, beside the identity of the tokens."""
    rows = [item.content for slot in ("data", "extra") for item in job.inputs.get(slot, [])]
    return [teacher.content, *rows]
