"""Fit temperature and cuts on validation rows, and write them into the model's `stillhouse.json`."""

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.confidence import calibration_error, fit_temperature, sure_cut, sure_figures
from stillhouse.errors import UserError
from stillhouse.evaluate.figures import CLASSIFICATION
from stillhouse.files import read_json, write_json
from stillhouse.method import Job, Metrics
from stillhouse.rungs import RECORDS, load_sample
from stillhouse.scorer import load_scorer
from stillhouse.scoring import UNSURE, decide

if TYPE_CHECKING:
    from stillhouse.calibrate.confidence import Confidence

LEAST_ROWS = 30
"""Of one predicted label; with fewer it gets the cut of all rows."""


def calibrate(settings: "Confidence", job: Job) -> Metrics:
    """Fill `job.out`; returned are the figures before and after on the rows that were used."""
    sample = load_sample(job, None, settings.max_rows)
    single = sample.problem == CLASSIFICATION
    if not single and (settings.target_accuracy or settings.smooth_half_life):
        raise UserError(f"{sample.problem} has neither unsure rows nor streams", "Leave these settings out")
    if UNSURE in sample.labels and settings.target_accuracy:
        raise UserError(f'"{UNSURE}" is a label of the data', "Leave out target_accuracy, or rename that label")
    job.progress(0, 2, f"scoring {len(sample.rows):,} validation rows")
    scores = load_scorer(job.path("model")).score(sample.rows)
    logits = np.asarray(scores) if single else np.concatenate(scores)
    truth = np.asarray(sample.truth) if single else np.concatenate(sample.truth)
    job.progress(1, 2, "temperature and cuts")
    for path in job.path("model").iterdir():
        if path.name not in RECORDS:
            shutil.copyfile(path, job.out / path.name)
    before = read_json(job.path("model") / "stillhouse.json")
    about: dict[str, Any] = {**before, "temperature": fit_temperature(logits, truth), "unsure_below": None}
    if settings.smooth_half_life:
        about["smoothing"] = {"half_life": settings.smooth_half_life, "by": settings.smooth_by}
    confidence, chosen, _ = _confident(logits, sample.labels, about)
    right = chosen == truth
    if settings.target_accuracy:
        about["unsure_below"] = _cuts(settings, sample.labels, confidence, chosen, right)
    write_json(job.out / "stillhouse.json", about)
    uncalibrated, same, _ = _confident(logits, sample.labels, before)
    found = {
        "temperature": about["temperature"],
        "calibration_error_before": calibration_error(uncalibrated, same == truth),
        **sure_figures(confidence, right, _confident(logits, sample.labels, about)[2]),
        "accuracy": float(right.mean()),
    }
    return (
        found if single else {name: value for name, value in found.items() if name not in ("coverage", "sure_accuracy")}
    )


def _confident(logits: np.ndarray, labels: list[str], about: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Probability of each row's label, the label, and whether it is sure."""
    probabilities, chosen, sure = decide(logits, labels, about)
    return probabilities[np.arange(len(chosen)), chosen], chosen, sure


def _cuts(
    settings: "Confidence", labels: list[str], confidence: np.ndarray, chosen: np.ndarray, right: np.ndarray
) -> dict[str, float]:
    assert settings.target_accuracy is not None
    wanted = (settings.target_accuracy, settings.min_coverage)
    common = sure_cut(confidence, right, *wanted)
    cuts = dict.fromkeys(labels, common)
    for index, label in enumerate(labels) if settings.per_label else ():
        mine = chosen == index
        if mine.sum() >= LEAST_ROWS:
            cuts[label] = sure_cut(confidence[mine], right[mine], *wanted)
    return cuts
