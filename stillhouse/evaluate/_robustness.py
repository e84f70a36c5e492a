"""What a model still gets right when a sample of the test rows is written badly (Ribeiro et al. 2020, CheckList)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.evaluate._perturb import TEXTS, WORDS, perturb
from stillhouse.evaluate._score import Scored, TestRows, align
from stillhouse.method import Input, Job
from stillhouse.metrics import Logits, evaluate_predictions
from stillhouse.problems import find_problem


def robustness(model: Scored, given: Input, test: TestRows, most: int, job: Job) -> dict[str, Any]:
    """`{"clean": METRICS, "kinds": {KIND: {**METRICS, "loss", "agreement"}}}` of `model` on at most `most` test rows.

    `loss` is that of the problem's main metric against the clean rows, `agreement` the share of labels that stay.
    """
    problem = find_problem(test.problem)
    places = test.sample(most)
    rows, truth = [test.rows[i] for i in places], [test.truth[i] for i in places]
    clean_logits = [model.logits[i] for i in places]
    clean = evaluate_predictions(test.problem, test.labels, truth, clean_logits)
    changed = {kind: [perturb(row, kind, job.seed) for row in rows] for kind in kinds_of(problem.unit)}
    build = _builder(model.scorer, [row for found in changed.values() for row in found])
    settings = {"rows": most, "seed": job.seed}
    directory = job.derived("robustness-logits", settings, [given.content, job.inputs["data"][0].content], build)
    flat = np.load(directory / "logits.npy", allow_pickle=False)
    found: dict[str, Any] = {}
    start = 0
    for kind in changed:
        sizes = [1 if problem.unit == "text" else len(row) for row in rows]
        part = flat[start : start + sum(sizes)]
        start += len(part)
        logits: Logits = part if problem.unit == "text" else np.split(part, np.cumsum(sizes)[:-1])
        logits = align(model.role, logits, model.scorer.labels, test.labels)
        figures = evaluate_predictions(test.problem, test.labels, truth, logits)
        loss = clean[problem.metric] - figures[problem.metric]
        found[kind] = {**figures, "loss": loss, "agreement": _same(clean_logits, logits)}
    return {"clean": clean, "kinds": found}


def kinds_of(unit: str) -> list[str]:
    """Names of what is done to the rows of a problem; words keep their number, so that their tags stay true."""
    return sorted(TEXTS if unit == "text" else WORDS)


def _builder(scorer: Any, rows: list[Any]) -> Callable[[Path], None]:
    """A builder of derived data: `logits.npy` of all rows (all their words), one after the other."""

    def build(directory: Path) -> None:
        scores = scorer.score(rows)
        flat = np.concatenate(scores) if isinstance(scores, list) else scores
        np.save(directory / "logits.npy", flat.astype(np.float32), allow_pickle=False)

    return build


def _same(before: Logits, after: Logits) -> float:
    """Share of decisions that stay."""
    pairs = [
        (np.atleast_2d(np.asarray(a)).argmax(axis=1), np.atleast_2d(np.asarray(b)).argmax(axis=1))
        for a, b in zip(before, after, strict=True)
        if np.size(a)
    ]
    decisions = sum(len(a) for a, _ in pairs)
    return float(sum((a == b).sum() for a, b in pairs) / decisions) if decisions else 1.0
