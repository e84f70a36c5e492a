"""What the teachers say about every training row: computed once, kept as derived data."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.method import Input, Job
from stillhouse.models import load_model, longest_input
from stillhouse.train._predict import predict_logits
from stillhouse.train._tokens import TokenizedData, load_array


def teacher_logits(job: Job, teacher: Input, data: TokenizedData) -> np.ndarray:
    """The teacher's logits of the training rows, float32 [pieces, labels], or [tokens, labels] for words; mapped."""

    def build(directory: Path) -> None:
        model = load_model(teacher.path)
        limit = longest_input(model)
        if limit is not None and data.identity["max_length"] > limit:
            raise UserError(f"max_length is more than teacher {teacher.path} can read", f"set max_length to {limit}")
        _ready(model)
        logits = predict_logits(model, data.train, lambda done, total: job.progress(done, total, "teacher"))
        np.save(directory / "train.npy", logits, allow_pickle=False)

    contents = [teacher.content, job.inputs["data"][0].content]
    return load_array(job.derived("teacher-logits", data.identity, contents, build) / "train.npy")


def _ready(model: nn.Module) -> None:
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
