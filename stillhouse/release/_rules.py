"""The gate's rules over `scores.json`: each one a number, a limit and a sentence for when it fails."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stillhouse.errors import UserError, nearest
from stillhouse.evaluate.figures import check_known
from stillhouse.problems import find_problem
from stillhouse.release._champion import business_loss, champion_test
from stillhouse.release._outcome import Outcome, at_least, at_most, not_applied, shown, unknown
from stillhouse.release._slices import class_losses, forgetting, robustness, slice_floors, slice_losses

if TYPE_CHECKING:
    from stillhouse.release.gate import Gate


def apply_rules(gate: "Gate", scores: dict[str, Any]) -> list[Outcome]:
    """Every rule that the settings ask for, in the order of the settings."""
    metric = gate.metric or find_problem(scores["problem"]).metric
    check_known(metric, scores["problem"], "metric")
    figures = scores["candidate"]["metrics"]
    if metric not in figures or not math.isfinite(figures[metric]):
        return [unknown("metric", 0.0, f"the candidate has no {metric} that is a number")]
    return [
        *_floors(gate.floors, scores),
        _loss("max_loss", gate.max_loss, "baseline", metric, scores),
        _loss("max_loss_champion", gate.max_loss_champion, "champion", metric, scores),
        *champion_test(gate, metric, scores),
        *_class_floors(gate.class_floors, scores),
        *class_losses(gate, scores),
        *slice_floors(gate, metric, scores),
        *slice_losses(gate, metric, scores),
        *forgetting(gate, metric, scores),
        *robustness(gate, metric, scores),
        *_costs(gate, scores),
        *business_loss(gate, scores),
        _agreement(gate.min_agreement, scores),
    ]


def within_budget(ladder: dict[str, Any] | None) -> Iterator[Outcome]:
    """A model that `select.cheapest` let through although no rung was within its budget is not what was asked for."""
    if ladder is None or "within" not in ladder:
        return
    chosen = next(rung for rung in ladder["rungs"] if rung["name"] == ladder["chosen"])
    what = ", ".join(chosen["over_budget"])
    reason = f"no rung is within the budget of select.cheapest; the one that loses least, {chosen['name']}, {what}"
    # Speed is part of a budget: another day it may be met.
    yield Outcome("ladder", 1.0, float(ladder["within"]), ladder["within"], "" if ladder["within"] else reason, True)


def _floors(floors: dict[str, float], scores: dict[str, Any]) -> Iterator[Outcome]:
    figures = scores["candidate"]["metrics"]
    for name, floor in floors.items():
        check_known(name, scores["problem"], "floors")
        if name not in figures:
            raise UserError(
                f"floors: {name} is not defined for these test rows", "they hold only one class; drop the floor"
            )
        found, limit = shown(figures[name], floor)
        yield at_least(f"floors.{name}", figures[name], floor, f"{name} {found} is below its floor {limit}")


def _loss(rule: str, limit: float, role: str, metric: str, scores: dict[str, Any]) -> Outcome:
    if role not in scores:
        return not_applied(rule, limit, f"the scores have no {role}")
    own, other = scores["candidate"]["metrics"], scores[role]["metrics"]
    if metric not in own or metric not in other:
        raise UserError(f"metric: {metric} is not defined for these test rows", "choose another metric")
    loss = other[metric] - own[metric]
    lost, allowed = shown(loss, limit)
    reason = f"{metric} {own[metric]:.3f} is {lost} below the {role}'s {other[metric]:.3f}; at most {allowed} allowed"
    return at_most(rule, loss, limit, reason)


def _class_floors(floors: float | dict[str, float] | None, scores: dict[str, Any]) -> Iterator[Outcome]:
    classes = scores["candidate"]["per_class"]
    if not isinstance(floors, dict):
        floors = {} if floors is None else dict.fromkeys(classes, floors)
    for label, floor in floors.items():
        if label not in classes:
            raise UserError(f'class_floors: there is no class "{label}"', nearest(label, set(classes)))
        value = classes[label]["f1"]
        found, limit = shown(value, floor)
        yield at_least(f"class_floors.{label}", value, floor, f'F1 of "{label}" {found} is below its floor {limit}')


def _costs(gate: "Gate", scores: dict[str, Any]) -> Iterator[Outcome]:
    candidate = scores["candidate"]
    if gate.max_size_mb is not None:
        size, limit = candidate["bytes"] / 1e6, gate.max_size_mb
        found, allowed = shown(size, limit, 1)
        yield at_most("max_size_mb", size, limit, f"the model has {found} MB; at most {allowed} MB allowed")
    if gate.max_p95_ms is not None:
        time, limit = candidate["measured"]["latency_p95_ms"], gate.max_p95_ms
        found, allowed = shown(time, limit, 1)
        reason = f"95 % of single texts take up to {found} ms; at most {allowed} ms allowed"
        yield at_most("max_p95_ms", time, limit, reason, measured=True)
    if gate.min_speedup is not None:
        ratio, limit = _speedup(scores), gate.min_speedup
        found, required = shown(ratio["high"], limit, 2)
        reason = f"{ratio['median']:.2f} times the baseline's speed, {found} at best; at least {required} required"
        yield at_least("min_speedup", ratio["high"], limit, reason, measured=True)
    if gate.min_business_score is not None:
        if "business" not in scores:
            raise UserError("min_business_score: the scores have no business score", "give evaluate.compare `business`")
        score, limit = scores["business"]["measured"]["candidate"], gate.min_business_score
        found, required = shown(score, limit)
        reason = f"the business score {found} is below {required}"
        yield at_least("min_business_score", score, limit, reason, measured=True)


def _speedup(scores: dict[str, Any]) -> dict[str, float]:
    measured = scores.get("differences", {}).get("baseline", {}).get("measured")
    if not measured:
        raise UserError("min_speedup: the scores have no baseline", "give evaluate.compare a baseline input")
    return measured["speedup"]


def _agreement(limit: float, scores: dict[str, Any]) -> Outcome:
    value = scores["agreement"]
    found, allowed = shown(100 * (1 - value), 100 * (1 - limit), 2)
    reason = f"scored one by one, {found} % of the labels change; at most {allowed} % allowed"
    return at_least("min_agreement", value, limit, reason)
