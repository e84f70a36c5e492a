"""Old rows beside new ones: the replay buffer of a training that goes on with added data.

Trained on new rows alone, a network forgets what it knew (McCloskey and Cohen 1989); old rows in every batch prevent
most of it (experience replay, Rolnick et al., arXiv:1811.11682). The old rows are drawn once for a stage: what teachers
and frozen layers say is computed for them alone, and a run that is resumed has the same rows.
"""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from stillhouse.errors import UserError
from stillhouse.method import Job, Metrics
from stillhouse.problems import Problem, find_problem
from stillhouse.train._tokens import TokenizedData, Tokens


def with_replay(ratio: float, job: Job, data: TokenizedData) -> tuple[TokenizedData, Metrics]:
    """`data` with all new training rows and `ratio` as many old ones, and how many those are; all without `replay`.

    A row is old if its id is among the training rows of the artifact in slot `replay`.
    """
    if not job.has("replay"):
        return data, {}
    old = old_rows(job.path("data"), job.path("replay"))
    chosen = draw(old, ratio, job.seed)
    rows = piece_rows(data.train, job.path("data"), find_problem(data.identity["problem"]))
    pieces = np.flatnonzero(chosen[rows])
    # What is computed from these rows is another's business: it has to know which they are.
    identity = {**data.identity, "pieces": sha256(pieces.astype("<i8").tobytes()).hexdigest()}
    new = int((~old).sum())
    figures = {"new_rows": float(new), "replayed_rows": float(int(chosen.sum()) - new)}
    return replace(data, identity=identity, train=data.train.only(pieces)), figures


def old_rows(data: Path, replay: Path) -> np.ndarray:
    """Of every training row of `data`, whether it is one of `replay`, bool [rows]; there must be both kinds."""
    from stillhouse.data.read import load_split

    ids, before = (load_split(directory, "train", columns=["id"])["id"] for directory in (data, replay))
    old = ids.isin(before.tolist()).to_numpy()
    if old.all():
        raise UserError(
            f"the input data has no training row that the input replay lacks ({len(old)} in all)",
            "add new rows to data, or leave the input replay out to train on all of them",
        )
    if not old.any():
        raise UserError(
            "the input data has no training row of the input replay",
            "data must hold old and new rows: give prepare.* the replay data as `previous`",
        )
    return old


def draw(old: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """bool [rows]: all rows that are not `old`, and `ratio` times as many that are, as far as there are so many."""
    chosen = ~old
    wanted = min(int(old.sum()), round(ratio * int(chosen.sum())))
    chosen[np.random.default_rng([seed, len(old)]).choice(np.flatnonzero(old), wanted, replace=False)] = True
    return chosen


def piece_rows(tokens: Tokens, data: Path, kind: Problem) -> np.ndarray:
    """The row that each piece belongs to, int64 [pieces]: a long sentence of words is several pieces."""
    from stillhouse.data.read import load_split

    if tokens.words is None:
        return np.arange(len(tokens))
    ends = np.cumsum(load_split(data, "train", columns=[kind.inputs])[kind.inputs].map(len).to_numpy())
    any_word = np.maximum.reduceat(np.asarray(tokens.words), tokens.offsets[:-1])
    return np.searchsorted(ends, any_word, side="right")
