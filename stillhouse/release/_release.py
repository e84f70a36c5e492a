"""Judge the scores, then write `verdict.json` and the bundle."""

import math
from typing import TYPE_CHECKING, Any

from stillhouse.data.read import load_info
from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json, write_text
from stillhouse.method import Job, Metrics
from stillhouse.problems import find_problem
from stillhouse.release._bundle import write_bundle
from stillhouse.release._card import model_card
from stillhouse.release._outcome import Outcome
from stillhouse.release._rules import apply_rules, within_budget

if TYPE_CHECKING:
    from stillhouse.release.gate import Gate


def release(gate: "Gate", job: Job) -> Metrics:
    """Fill `job.out`. The bundle is complete also after a refusal: only a passed one is ever registered."""
    scores = read_json(job.path("scores") / "scores.json")
    _check_same_model(job)
    job.progress(0, 3, "rules")
    ladder_file = job.path("model") / "ladder.json"
    ladder = read_json(ladder_file) if ladder_file.is_file() else None
    outcomes = [*apply_rules(gate, scores), *within_budget(ladder)]
    metric = gate.metric or find_problem(scores["problem"]).metric
    verdict = {**make_verdict(outcomes, scores, job.against), "compared": _compared(metric, scores)}
    job.progress(1, 3, "bundle")
    bundle = job.out / "bundle"
    bundle.mkdir()
    data = job.path("data") if job.has("data") else None
    write_bundle(job.path("model"), data, bundle)
    job.progress(2, 3, "model card")
    info = load_info(data) if data else {}
    about = {
        **read_json(bundle / "stillhouse.json"), "language": info.get("language"), "data_licence": info.get("licence"),
    }  # fmt: skip
    write_text(bundle / "README.md", model_card(about, scores, verdict, job.lineage, job.recipe, ladder))
    for directory in (bundle, job.out):
        write_json(directory / "verdict.json", verdict)
    figures = {metric: verdict["metrics"][metric]} if metric in verdict["metrics"] else {}
    return {
        "passed": float(verdict["passed"]), **figures,
        "rules_failed": float(len(verdict["reasons"])), "size_mb": scores["candidate"]["bytes"] / 1e6,
    }  # fmt: skip


def make_verdict(outcomes: list[Outcome], scores: dict[str, Any], against: dict[str, Any] | None) -> dict[str, Any]:
    """`verdict.json`; measured values stand under `measured`, so that a slow day gives the same digest."""
    rules: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        entry: dict[str, Any] = {"limit": outcome.limit, "passed": outcome.passed}
        if outcome.measured:
            entry["measured"] = outcome.value
        elif outcome.value is not None:
            entry["value"] = outcome.value
        if outcome.passed is None:
            entry["not_applied"] = outcome.reason
        rules[outcome.rule] = entry
    candidate = scores["candidate"]
    measured = dict(candidate.get("measured", {}))
    measured.update(scores.get("differences", {}).get("baseline", {}).get("measured", {}))
    return {
        "passed": all(outcome.passed is not False for outcome in outcomes),
        "reasons": [outcome.reason for outcome in outcomes if outcome.passed is False],
        "rules": rules,
        "metrics": {**_finite(candidate["metrics"]), "size_mb": candidate["bytes"] / 1e6},
        "measured": measured,
        "against": against,
    }


def _finite(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _compared(metric: str, scores: dict[str, Any]) -> dict[str, Any]:
    """{role: {metric, value, low, high, mcnemar}}: the paired difference to each other model, candidate minus that."""
    found = {}
    for role, differences in scores.get("differences", {}).items():
        if metric in differences:
            found[role] = {"metric": metric, **differences[metric], "mcnemar": differences.get("mcnemar")}
    return found


def _check_same_model(job: Job) -> None:
    """Scores of another model would let anything through."""
    scored = next((item for item in job.lineage if item["key"] == job.inputs["scores"][0].key), None)
    if scored is None:
        return
    model = scored["inputs"]["model"][0]["key"]
    if model != job.inputs["model"][0].key:
        raise UserError("the scores are those of another model", "give release.gate and its scores step the same model")
