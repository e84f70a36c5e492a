"""What happens inside a teacher on every training row: computed once, kept as derived data."""

from pathlib import Path

import numpy as np
import torch

from stillhouse.distill._features import Feature, recording
from stillhouse.method import Input, Job
from stillhouse.train._batches import by_length, collate
from stillhouse.train._predict import SCORING_TOKENS
from stillhouse.train._teachers import contents, ready
from stillhouse.train._tokens import TokenizedData, load_array, map_new


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
    directory = job.derived("teacher-features", parts, contents(job, teacher), build)
    return {feature: load_array(directory / f"{feature.name}.npy") for feature in features}
