"""The gate's rules over parts of the test rows: slices, classes, older data, badly written rows.

A part with fewer than `min_slice_rows` rows is not judged by a rule that holds for all parts; a rule that names the
part, or finds none that is large enough, cannot be shown to hold and fails.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stillhouse.errors import UserError, nearest
from stillhouse.release._outcome import Outcome, at_least, at_most, not_applied, shown, unknown

if TYPE_CHECKING:
    from stillhouse.release.gate import Gate

OTHERS = ("baseline", "champion")
Figures = dict[str, Any]


def slice_floors(gate: "Gate", metric: str, scores: dict[str, Any]) -> Iterator[Outcome]:
    """`metric` of the candidate on every slice of a column, or on those that are named."""
    for column, floors in gate.slice_floors.items():
        slices, rule = _slices_of(column, "candidate", scores, "slice_floors"), f"slice_floors.{column}"
        if not isinstance(floors, dict):
            large, rest = _large_parts(rule, floors, gate, _rows(slices), column)
            yield from rest
            floors = dict.fromkeys(large, floors)
        for value, floor in floors.items():
            few = _too_few(f'{column} "{value}"', slices.get(value, {}).get("rows", 0), gate.min_slice_rows)
            named = f"{rule}.{value}"
            yield unknown(named, floor, few) if few else _floor(named, slices[value], metric, floor, column, value)


def _floor(rule: str, figures: Figures, metric: str, floor: float, column: str, value: str) -> Outcome:
    where = f'{column} "{value}"'
    if metric not in figures:
        return unknown(rule, floor, f"{where}: {metric} is not defined for its rows")
    found, limit = shown(figures[metric], floor)
    reason = f"{where}: {metric} {found} ({figures['rows']:,} rows) is below its floor {limit}"
    return at_least(rule, figures[metric], floor, reason)


def slice_losses(gate: "Gate", metric: str, scores: dict[str, Any]) -> Iterator[Outcome]:
    """What the candidate loses on each slice, against the baseline and against the champion."""
    for column, limit in gate.max_slice_loss.items():
        own = _slices_of(column, "candidate", scores, "max_slice_loss")
        for role in OTHERS:
            rule = f"max_slice_loss.{role}.{column}"
            if role not in scores:
                yield not_applied(rule, limit, f"the scores have no {role}")
                continue
            other = _slices_of(column, role, scores, "max_slice_loss")
            large, rest = _large_parts(rule, limit, gate, _rows(own), column)
            yield from rest
            for value in large:
                where = f'{column} "{value}"'
                yield _loss(f"{rule}.{value}", limit, metric, own[value], other.get(value, {}), where, f"the {role}'s")


def class_losses(gate: "Gate", scores: dict[str, Any]) -> Iterator[Outcome]:
    """What the candidate loses of each class's F1, against the baseline and against the champion."""
    limit = gate.max_class_loss
    if limit is None:
        return
    own = scores["candidate"]["per_class"]
    for role in OTHERS:
        rule = f"max_class_loss.{role}"
        if role not in scores:
            yield not_applied(rule, limit, f"the scores have no {role}")
            continue
        other = scores[role]["per_class"]
        large, rest = _large_parts(rule, limit, gate, {k: int(v["support"]) for k, v in own.items()}, "class")
        yield from rest
        for label in large:
            mine = {**own[label], "rows": own[label]["support"]}
            yield _loss(f"{rule}.{label}", limit, "f1", mine, other.get(label, {}), f'class "{label}"', f"the {role}'s")


def forgetting(gate: "Gate", metric: str, scores: dict[str, Any]) -> Iterator[Outcome]:
    """What the candidate loses against the champion on the rows that came before the newest data."""
    limit = gate.max_forgetting
    if limit is None:
        return
    if "champion" not in scores:
        yield not_applied("max_forgetting", limit, "the scores have no champion")
        return
    if "old_rows" not in scores:
        raise UserError("max_forgetting: the data has no column `epoch`", "prepare the data again, or drop the rule")
    old = scores["old_rows"]
    if not old["newest_epoch"]:
        yield not_applied("max_forgetting", limit, "there is no older data")
        return
    few = _too_few("older data", old["rows"], gate.min_slice_rows)
    if few:
        yield unknown("max_forgetting", limit, few)
        return
    own, other = (old["by_role"][role] for role in ("candidate", "champion"))
    yield _loss("max_forgetting", limit, metric, own, other, "older data", "the champion's")
    by_role = scores["slices_by_role"]
    for value, found in by_role["candidate"].get("epoch", {}).items():
        if value.isdecimal() and int(value) < old["newest_epoch"] and found["rows"] >= gate.min_slice_rows:
            other = by_role["champion"]["epoch"].get(value, {})
            yield _loss(f"max_forgetting.{value}", limit, metric, found, other, f"epoch {value}", "the champion's")


def robustness(gate: "Gate", metric: str, scores: dict[str, Any]) -> Iterator[Outcome]:
    """What the candidate loses on rows that were changed on purpose, against the same rows as they were."""
    limits = gate.max_robustness_loss
    if limits is None:
        return
    if "robustness" not in scores:
        raise UserError("max_robustness_loss: no changed rows were scored", "give evaluate.compare `robustness_rows`")
    found = scores["robustness"]["by_role"]["candidate"]
    limits = limits if isinstance(limits, dict) else dict.fromkeys(found["kinds"], limits)
    clean = {**found["clean"], "rows": scores["robustness"]["rows"]}
    for kind, limit in limits.items():
        if kind not in found["kinds"]:
            raise UserError(f'max_robustness_loss: there is no kind "{kind}"', nearest(kind, set(found["kinds"])))
        own = {**found["kinds"][kind], "rows": clean["rows"]}
        rule = f"max_robustness_loss.{kind}"
        yield _loss(rule, limit, metric, own, clean, f"rows with {kind}", "the unchanged rows'")


def _slices_of(column: str, role: str, scores: dict[str, Any], setting: str) -> dict[str, Figures]:
    columns = scores["slices_by_role"][role]
    if column not in columns:
        raise UserError(
            f'{setting}: the scores have no slices by "{column}"', f"give evaluate.compare `slices: [{column}]`"
        )
    return columns[column]


def _rows(slices: dict[str, Figures]) -> dict[str, int]:
    return {value: int(found["rows"]) for value, found in slices.items()}


def _large_parts(
    rule: str, limit: float, gate: "Gate", sizes: dict[str, int], what: str
) -> tuple[list[str], list[Outcome]]:
    """The parts that are large enough to be judged, and what there is to say of the others; none at all fails."""
    least = gate.min_slice_rows
    large = [part for part, rows in sizes.items() if rows >= least]
    rest = [
        not_applied(f"{rule}.{part}", limit, f"{rows} rows; judged from {least}")
        for part, rows in sizes.items()
        if rows < least
    ]
    if not large:
        rest.append(unknown(rule, limit, f"{rule}: no {what} has {least} test rows (min_slice_rows)"))
    return large, rest


def _too_few(where: str, rows: float, least: int) -> str:
    return f"{where} has {rows:,.0f} test rows; it takes {least} to judge it (min_slice_rows)" if rows < least else ""


def _loss(rule: str, limit: float, metric: str, own: Figures, other: Figures, where: str, whose: str) -> Outcome:
    if metric not in own or metric not in other:
        return unknown(rule, limit, f"{where}: {metric} is not defined for its rows")
    loss = other[metric] - own[metric]
    lost, allowed = shown(loss, limit)
    reason = f"""{where}: {metric} {own[metric]:.3f} ({own["rows"]:,} rows) is {lost} below {whose} \
{other[metric]:.3f}; at most {allowed} allowed"""
    return at_most(rule, loss, limit, reason)
