"""Put together `scores.json` and `predictions.parquet`: every model on the same rows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.confidence import sure_figures
from stillhouse.data.read import load_split
from stillhouse.errors import UserError
from stillhouse.evaluate._mcnemar import mcnemar, right_rows
from stillhouse.evaluate._modules import quality
from stillhouse.evaluate._references import linear_builder, majority_logits
from stillhouse.evaluate._robustness import kinds_of, robustness
from stillhouse.evaluate._score import (
    Scored,
    TestRows,
    agreement,
    model_bytes,
    predictions,
    read_test,
    score_model,
    slice_masks,
)
from stillhouse.evaluate.figures import CLASSIFICATION
from stillhouse.evaluate.rows import rows_of
from stillhouse.files import write_json
from stillhouse.method import Job, Metrics
from stillhouse.metrics import bootstrap_interval, confusion, evaluate_predictions, paired_difference, per_class
from stillhouse.problems import find_problem
from stillhouse.scoring import decide

if TYPE_CHECKING:
    from stillhouse.evaluate.compare import Compare

ROLES = {"candidate": "model", "baseline": "baseline", "champion": "champion"}
"""Role in `scores.json` → input slot."""
_PAIRS = 7


def compare(settings: "Compare", job: Job) -> Metrics:
    """Fill `job.out`; the returned figures are those of the problem's main metric, size and speed."""
    test = read_test(job.path("data"))
    masks = {column: slice_masks(test, column) for column in settings.slices}
    tell = _teller(job)
    models: dict[str, Scored] = {}
    for role, slot in ROLES.items():
        if job.has(slot):
            tell(f"scoring {len(test.rows):,} test rows with the {role}")
            models[role] = score_model(role, job.inputs[slot][0], test, job)
    tell("references")
    report: dict[str, Any] = {
        "problem": test.problem, "split": "test", "rows": len(test.rows),
        "references": _references(settings, job, test),
    }  # fmt: skip
    tell("intervals")
    for role, model in models.items():
        report[role] = _model_report(settings, job.seed, test, model)
    report["differences"] = _differences(settings, job.seed, test, models)
    report["slices_by_role"] = {role: _slices(test, model, masks) for role, model in models.items()}
    report["slices"] = report["slices_by_role"]["candidate"]
    report.update(_old_rows(job, test, models))
    if settings.robustness_rows:
        tell("bad spelling, odd characters")
        report["robustness"] = _robustness(settings, job, test, models)
    tell("the candidate, row by row")
    share, change = agreement(models["candidate"], test, settings.agreement_rows)
    report.update(agreement=share, largest_change=change)
    tell("speed")
    _add_speed(settings, test, models, report)
    if settings.business:
        report["business"] = _business(settings.business, {role: report[role] for role in models})
    write_json(job.out / "scores.json", report)
    predictions(test, models["candidate"]).to_parquet(job.out / "predictions.parquet", index=False)
    return _line(report)


def _teller(job: Job) -> Callable[[str], None]:
    total, done = 6 + sum(job.has(slot) for slot in ROLES.values()), [0]

    def tell(note: str) -> None:
        job.progress(done[0], total, note)
        done[0] += 1

    return tell


def _references(settings: "Compare", job: Job, test: TestRows) -> dict[str, dict[str, float]]:
    """Figures of the commonest class and, for texts, of the linear model, both from the same training rows."""
    inputs, targets = rows_of(test.problem, load_split(job.path("data"), "train"))
    classes = len(test.labels)
    found = {"majority": majority_logits(test.problem, list(targets), test.truth, classes)}
    if settings.linear_reference and test.problem == CLASSIFICATION and len(np.unique(targets)) > 1:
        build = linear_builder(inputs, targets, test.rows, classes)
        directory = job.derived("linear-reference", {}, [job.inputs["data"][0].content], build)
        found["linear"] = np.load(directory / "logits.npy", allow_pickle=False)
    return {name: quality(test.problem, test.labels, test.truth, logits) for name, logits in found.items()}


def _model_report(settings: "Compare", seed: int, test: TestRows, model: Scored) -> dict[str, Any]:
    problem, labels = test.problem, test.labels
    figures = quality(problem, labels, test.truth, model.logits)
    intervals = {}
    for name in figures:
        low, high = bootstrap_interval(problem, labels, test.truth, model.logits, name, settings.resamples, seed)
        intervals[name] = {"low": low, "high": high}
    report: dict[str, Any] = {
        "metrics": figures, "intervals": intervals, "bytes": model_bytes(model.path),
        "per_class": per_class(problem, labels, test.truth, model.logits),
    }  # fmt: skip
    if problem == CLASSIFICATION:
        report["confusion"] = confusion(test.truth, model.logits, len(labels)).tolist()
        shares, served, sure = decide(np.asarray(model.logits), labels, model.scorer.about)
        confidence = shares[np.arange(len(served)), served]
        report["confidence"] = sure_figures(confidence, served == np.asarray(test.truth), sure)
    return report


def _differences(settings: "Compare", seed: int, test: TestRows, models: dict[str, Scored]) -> dict[str, Any]:
    """Candidate minus the other model, figure by figure, from resampling the rows of both together."""
    found: dict[str, Any] = {}
    candidate = models["candidate"].logits
    for role in [name for name in models if name != "candidate"]:
        found[role] = {}
        for name in evaluate_predictions(test.problem, test.labels, test.truth, candidate):
            value, low, high = paired_difference(
                test.problem, test.labels, test.truth, candidate, models[role].logits, name, settings.resamples, seed
            )
            found[role][name] = {"value": value, "low": low, "high": high}
        right = [right_rows(test.problem, test.truth, logits) for logits in (candidate, models[role].logits)]
        test_of_two = mcnemar(right[0], right[1])
        found[role]["mcnemar"] = {
            "only_candidate": test_of_two["only_a"], "only_other": test_of_two["only_b"],
            "p_value": test_of_two["p_value"],
        }  # fmt: skip
    return found


def _old_rows(job: Job, test: TestRows, models: dict[str, Scored]) -> dict[str, Any]:
    """Every model on the test rows from before the newest data: did the candidate forget? `{}` without epochs."""
    if "epoch" not in test.frame.columns:
        return {}
    data = job.path("data")
    # Few new rows may leave none for the test; the newest data is new all the same.
    newest = max(load_split(data, split, columns=["epoch"])["epoch"].to_numpy().max() for split in ("train", "test"))
    old = np.flatnonzero((test.frame["epoch"] < newest).to_numpy())
    figures = {role: _slice(test, model, old) for role, model in models.items()} if len(old) else {}
    return {"old_rows": {"newest_epoch": int(newest), "rows": len(old), "by_role": figures}}


def _robustness(settings: "Compare", job: Job, test: TestRows, models: dict[str, Scored]) -> dict[str, Any]:
    """Candidate and champion; the baseline is not for release, and may be slow."""
    found = {
        role: robustness(model, job.inputs[ROLES[role]][0], test, settings.robustness_rows, job)
        for role, model in models.items()
        if role != "baseline"
    }
    rows = len(test.sample(settings.robustness_rows))
    return {"rows": rows, "kinds": kinds_of(find_problem(test.problem).unit), "by_role": found}


def _slices(
    test: TestRows, model: Scored, masks: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, dict[str, float]]]:
    """{column: {value: figures}} of one model."""
    return {
        column: {value: _slice(test, model, np.flatnonzero(mask)) for value, mask in values.items()}
        for column, values in masks.items()
    }


def _slice(test: TestRows, model: Scored, rows: np.ndarray) -> dict[str, float]:
    truth, logits = [test.truth[i] for i in rows], [model.logits[i] for i in rows]
    return {**evaluate_predictions(test.problem, test.labels, truth, logits), "rows": len(rows)}


def _add_speed(settings: "Compare", test: TestRows, models: dict[str, Scored], report: dict[str, Any]) -> None:
    """Speed of every model, and the candidate's against each other one, interleaved on the same rows."""
    from stillhouse.speed import measure_speed, speed_ratio

    rows = [test.rows[i] for i in test.sample(1000)]
    for role, model in models.items():
        report[role]["measured"] = measure_speed(model.scorer, rows, seconds=settings.speed_seconds)
    for role in [name for name in models if name != "candidate"]:
        # One pass of the slower model takes about half of `speed_seconds`, however long the texts are.
        pace = min(report[name]["measured"]["texts_per_second"] for name in (role, "candidate"))
        enough = [test.rows[i] for i in test.sample(max(32, min(1000, int(pace * settings.speed_seconds / 2))))]
        ratio = speed_ratio(models[role].scorer, models["candidate"].scorer, enough, pairs=_PAIRS)
        report["differences"][role]["measured"] = {"speedup": ratio}


def _business(weights: dict[str, float], reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One number for each model: the weighted sum of its figures. Measured, since speed may be among them."""
    scores = {}
    for role, report in reports.items():
        figures = {**report["metrics"], **report["measured"], "size_mb": report["bytes"] / 1e6}
        for name in [name for name in weights if name not in figures]:
            raise UserError(f'business: the {role} has no figure "{name}"', f"there are {', '.join(sorted(figures))}")
        scores[role] = float(sum(weight * figures[name] for name, weight in weights.items()))
    return {"weights": weights, "measured": scores}


def _line(report: dict[str, Any]) -> Metrics:
    """The figures that fit into one line of a table."""
    metric = find_problem(report["problem"]).metric
    candidate = report["candidate"]
    found = {metric: candidate["metrics"][metric], "accuracy": candidate["metrics"]["accuracy"]}
    for name in ("baseline", "champion"):
        if name in report:
            found[f"{name}_{metric}"] = report[name]["metrics"][metric]
    for name, figures in report["references"].items():
        found[f"{name}_{metric}"] = figures[metric]
    found["size_mb"] = candidate["bytes"] / 1e6
    found["texts_per_second"] = candidate["measured"]["texts_per_second"]
    found["agreement"] = report["agreement"]
    if "baseline" in report:
        found["speedup"] = report["differences"]["baseline"]["measured"]["speedup"]["median"]
    return found
