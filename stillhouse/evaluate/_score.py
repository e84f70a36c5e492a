"""The test rows, and what one model says about them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillhouse.data.read import load_info, load_labels, load_split
from stillhouse.errors import UserError, nearest
from stillhouse.evaluate._references import UNKNOWN
from stillhouse.evaluate.rows import rows_of
from stillhouse.method import Input, Job
from stillhouse.metrics import probabilities
from stillhouse.problems import find_problem
from stillhouse.scorer import load_scorer
from stillhouse.scoring import UNSURE, decide

_NOT_THE_MODEL = {"manifest.json", "metrics.jsonl", "rung.json", "ladder.json", "ladder.svg"}
"""Records about a model: scoring needs none of them."""


@dataclass(frozen=True)
class TestRows:
    """The test split: `rows` are what a scorer takes, `truth` what the metrics take."""

    __test__ = False  # not a test class, whatever its name looks like

    problem: str
    labels: list[str]
    frame: pd.DataFrame
    rows: list[Any]
    truth: Any

    def sample(self, most: int) -> list[int]:
        """At most `most` positions, evenly spread over the rows."""
        return np.unique(np.linspace(0, len(self.rows) - 1, min(most, len(self.rows))).astype(int)).tolist()


@dataclass(frozen=True)
class Scored:
    """One model and its logits on the test rows, in the order of the data's labels."""

    role: str
    path: Path
    scorer: Any
    logits: Any


def read_test(directory: Path) -> TestRows:
    """The test rows of a `data` artifact."""
    problem, labels = load_info(directory)["problem"], load_labels(directory)
    frame = load_split(directory, "test")
    if frame.empty:
        raise UserError("the data has no test rows", "give prepare.* more rows, or its `test` setting a file")
    return TestRows(problem, labels, frame, *rows_of(problem, frame))


def score_model(role: str, model: Input, test: TestRows, job: Job) -> Scored:
    """Logits of all test rows, scored in one call; derived data, so that each model does it once for each data set."""
    scorer = load_scorer(model.path)
    if scorer.problem != test.problem:
        raise UserError(
            f"the {role} is a {scorer.problem} model, but the data is for {test.problem}", "connect matching steps"
        )

    def build(directory: Path) -> None:
        scores = scorer.score(test.rows)
        flat = np.concatenate(scores) if isinstance(scores, list) else scores
        np.save(directory / "logits.npy", flat.astype(np.float32), allow_pickle=False)

    contents = [model.content, job.inputs["data"][0].content]
    directory = job.derived("test-logits", {}, contents, build)
    logits = np.load(directory / "logits.npy", allow_pickle=False)
    if find_problem(test.problem).unit == "word":
        logits = np.split(logits, np.cumsum([len(words) for words in test.rows])[:-1])
    return Scored(role, model.path, scorer, align(role, logits, scorer.labels, test.labels))


def align(role: str, logits: Any, known: list[str], wanted: list[str]) -> Any:
    """`logits` with one column for each label of the data, in its order.

    A champion may come from older data: a label it never saw has no chance, one that is gone is left out. The
    candidate and the baseline must know exactly the labels of the data.
    """
    if known == wanted:
        return logits
    odd = sorted(set(known) ^ set(wanted))
    if odd and role != "champion":
        where = "the data" if odd[0] in wanted else f"the {role}"
        raise UserError(f'only {where} has the label "{odd[0]}" ({len(odd)} differ)', f"train the {role} on this data")
    columns = [known.index(label) if label in known else -1 for label in wanted]
    if isinstance(logits, list):
        return [_pick(scores, columns) for scores in logits]
    return _pick(np.asarray(logits), columns)


def _pick(scores: np.ndarray, columns: list[int]) -> np.ndarray:
    least = scores.max(axis=1, keepdims=True) + UNKNOWN if len(scores) else np.zeros((0, 1))
    return np.concatenate([scores, least], axis=1)[:, columns]


def agreement(model: Scored, test: TestRows, most: int) -> tuple[float, float]:
    """Share of decisions that stay the same when a row is scored alone, and the largest change of a probability."""
    same, decisions, largest = 0, 0, 0.0
    heat = model.scorer.about.get("temperature") or 1.0
    rows = [test.rows[index] for index in test.sample(most)]
    # Scored here and now: what is kept of the test rows may come from another machine.
    for row, together in zip(rows, model.scorer.score(rows), strict=True):
        pair = [np.atleast_2d(np.asarray(scores)) for scores in (model.scorer.score([row])[0], together)]
        if not pair[0].size:
            continue
        same += int((pair[0].argmax(axis=1) == pair[1].argmax(axis=1)).sum())
        decisions += len(pair[0])
        largest = max(largest, float(np.abs(probabilities(pair[0] / heat) - probabilities(pair[1] / heat)).max()))
    return (same / decisions if decisions else 1.0), largest


def model_bytes(directory: Path) -> int:
    """Bytes on disk of what scoring with this model needs."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name not in _NOT_THE_MODEL)
    return sum(path.stat().st_size for path in files)


def predictions(test: TestRows, model: Scored) -> pd.DataFrame:
    """One row per test row: id, input, true and predicted name(s), for classification outcome and `p_LABEL`, as served.

    `predicted` is what the figures count: the largest score.
    """
    logits = model.logits
    kind, names = find_problem(test.problem), np.asarray(test.labels, dtype=object)
    kept = test.frame[["id", kind.inputs]].reset_index(drop=True)
    if kind.unit == "word":
        guesses = [names[np.asarray(scores).argmax(axis=-1)].tolist() for scores in logits]
        return kept.assign(label=[names[row].tolist() for row in test.truth], predicted=guesses)
    shares, served, sure = decide(np.asarray(logits), test.labels, model.scorer.about)
    columns = {f"p_{label}": shares[:, index].astype(np.float32) for index, label in enumerate(test.labels)}
    chosen = {"label": names[test.truth], "predicted": names[np.asarray(logits).argmax(axis=1)]}
    chosen["outcome"] = np.where(sure, names[served], UNSURE)
    return pd.concat([kept, pd.DataFrame({**chosen, **columns})], axis=1)


def slice_masks(test: TestRows, column: str, most: int = 20) -> dict[str, np.ndarray]:
    """`{value: mask}` of the rows with each of the commonest values of `column`; the rest is `(other)`."""
    if column not in test.frame.columns:
        raise UserError(f'slices: the data has no column "{column}"', nearest(column, set(test.frame.columns)))
    values = test.frame[column].astype(object)
    values = values.map(str).where(values.notna() & (values != ""), "(missing)")
    # The commonest, equal counts in the order of their names.
    common = [value for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:most]]
    values = values.where(values.isin(common), "(other)")
    return {str(value): (values == value).to_numpy() for value in sorted(values.unique())}
