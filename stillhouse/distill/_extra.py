"""Texts without labels beside the training rows: only the teachers say what they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from stillhouse.data.read import held_out_ids, load_info, load_split
from stillhouse.errors import UserError
from stillhouse.method import Job
from stillhouse.models import tokenizer_json
from stillhouse.problems import find_problem
from stillhouse.train._stage import Candidate
from stillhouse.train._tokens import IGNORED, UNLABELLED, TokenizedData, Tokens, read_tokens, write_tokens


def with_extra(job: Job, student: Candidate, data: TokenizedData) -> TokenizedData:
    """`data`, its training rows followed by those of the artifact in slot `extra`, whose targets are `UNLABELLED`.

    Rows that are validation or test rows of `data` are left out.
    """
    if not job.has("extra"):
        return data
    problem, given = student.info["problem"], load_info(job.path("extra"))["problem"]
    if given != problem:
        raise UserError(f"the extra rows are {given}, the data is {problem}", "prepare them with the same method")
    kind, encode = find_problem(problem), (tokenizer_json(student.directory), student.info["max_length"])

    def build(directory: Path) -> None:
        held_out = held_out_ids(job.path("data"))
        frame = load_split(job.path("extra"), "train", columns=["id", kind.inputs, kind.targets])
        write_tokens(frame.loc[~frame["id"].isin(list(held_out))], "train", directory, *encode, kind)

    contents = [job.inputs[slot][0].content for slot in ("extra", "data")]
    directory = job.derived("extra-tokens", data.identity, contents, build)
    # What is computed from both lists is another's business: it has to know which extra rows these are.
    identity = {**data.identity, "extra": directory.name}
    return replace(data, identity=identity, train=_joined(data.train, read_tokens(directory, "train", kind)))


def _joined(train: Tokens, extra: Tokens) -> Tokens:
    """Both, the targets of the second hidden."""
    offsets = np.concatenate([train.offsets, extra.offsets[1:] + train.offsets[-1]])
    hidden = np.full(extra.targets.shape, UNLABELLED, np.int64)
    words = None
    if train.words is not None and extra.words is not None:
        hidden[extra.words < 0] = IGNORED
        words = np.concatenate([train.words, extra.words])
    ids, targets = np.concatenate([train.ids, extra.ids]), np.concatenate([train.targets, hidden])
    return Tokens(ids, offsets, targets, words)
