"""What the teachers say about every training row: computed once, kept as derived data."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from stillhouse.distill._features import Feature, recording
from stillhouse.errors import UserError
from stillhouse.method import Input, Job
from stillhouse.models import load_model, longest_input
from stillhouse.train._batches import by_length, collate
from stillhouse.train._predict import SCORING_TOKENS, predict_logits
from stillhouse.train._tokens import TokenizedData, load_array, map_new

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def teacher_logits(job: Job, teacher: Input, data: TokenizedData) -> np.ndarray:
    """The teacher's logits of the training rows, float32 [pieces, labels], or [tokens, labels] for words; mapped."""

    def build(directory: Path) -> None:
        model = ready(teacher, data)
        logits = predict_logits(model, data.train, lambda done, total: job.progress(done, total, "teacher"))
        np.save(directory / "train.npy", logits, allow_pickle=False)

    return load_array(job.derived("teacher-logits", data.identity, _contents(job, teacher), build) / "train.npy")


def validation_logits(job: Job, teacher: Input, data: TokenizedData) -> np.ndarray:
    """The same of the validation rows that decide."""

    def build(directory: Path) -> None:
        np.save(directory / "logits.npy", predict_logits(ready(teacher, data), data.validation), allow_pickle=False)

    parts = {**data.identity, "rows": len(data.validation)}
    return load_array(job.derived("teacher-validation", parts, _contents(job, teacher), build) / "logits.npy")


def teacher_features(
    job: Job, teacher: Input, data: TokenizedData, features: list[Feature]
) -> dict[Feature, np.ndarray]:
    """Of every training token, float16 [tokens, width] for each feature; mapped. Half precision is enough to aim at."""

    def build(directory: Path) -> None:
        model = ready(teacher, data)
        device = next(model.parameters()).device
        pad = model.config.pad_token_id or 0
        tokens, done = data.train, 0
        arrays: dict[Feature, np.memmap] = {}
        with recording(model, features) as recorder, torch.inference_mode():
            for pieces in by_length(tokens.lengths, SCORING_TOKENS):
                model(**collate(tokens, pieces, pad, device).inputs)
                for feature, values in recorder.take().items():
                    if feature not in arrays:
                        shape = (len(tokens.ids), values.shape[-1])
                        path = directory / f"{feature.name}.npy"
                        arrays[feature] = map_new(path, np.dtype(np.float16), shape)
                    found = values.to(torch.float16).cpu().numpy()
                    for row, piece in enumerate(pieces):
                        first, end = tokens.offsets[piece], tokens.offsets[piece + 1]
                        arrays[feature][first:end] = found[row, : end - first]
                done += len(pieces)
                job.progress(done, len(tokens), "inside the teacher")
        for array in arrays.values():
            array.flush()

    parts = {**data.identity, "features": sorted(feature.name for feature in features)}
    directory = job.derived("teacher-features", parts, _contents(job, teacher), build)
    return {feature: load_array(directory / f"{feature.name}.npy") for feature in features}


def ready(teacher: Input, data: TokenizedData) -> "PreTrainedModel":
    """The teacher in eval mode, on the GPU if there is one."""
    model = load_model(teacher.path)
    limit = longest_input(model)
    if limit is not None and data.identity["max_length"] > limit:
        raise UserError(f"max_length is more than teacher {teacher.path} can read", f"set max_length to {limit}")
    nn.Module.to(model, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return model.eval()


def _contents(job: Job, teacher: Input) -> list[str]:
    rows = [item.content for slot in ("data", "extra") for item in job.inputs.get(slot, [])]
    return [teacher.content, *rows]
