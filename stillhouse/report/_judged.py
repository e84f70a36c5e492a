"""Sections about the finished model: summary, quality, confusions, calibration, slices, errors, old against new."""

from typing import Any

from stillhouse.problems import PROBLEMS
from stillhouse.report._grids import NUMBERED, heat_map, reliability
from stillhouse.report._plots import interval_dots
from stillhouse.report._text import metric_name, number, signed, size, span

Section = dict[str, Any]
Facts = dict[str, Any]
MAP_CLASSES = 30
"""Of more classes the confusion matrix shows those with the most errors."""
REFERENCES = {"majority": "commonest label", "linear": "TF-IDF + linear"}
TONES = {"candidate": 1, "baseline": 0, "champion": 2}


def main_metric(facts: Facts) -> str:
    """The figure that decided: the gate's, else that of the problem."""
    scores = facts.get("scores") or {}
    asked = next((step["settings"].get("metric") for step in facts["steps"] if step["kind"] == "release"), None)
    known = (scores.get("candidate") or {}).get("metrics") or {}
    problem = PROBLEMS.get(scores.get("problem", ""))
    if asked is not None and asked in known:
        return asked
    return problem.metric if problem else next(iter(known), "accuracy")


def role_name(facts: Facts, role: str) -> str:
    """What a column about a model is called."""
    if role == "candidate":
        return "this model"
    step = facts["roles"].get(role)
    return f"{role} ({step})" if step and role == "baseline" else role


def roles_of(facts: Facts) -> list[str]:
    return [role for role in ("candidate", "champion", "baseline") if (facts.get("scores") or {}).get(role)]


def summary(facts: Facts) -> Section:
    """What it is, whether it passed, and the handful of figures that matter."""
    section: Section = {"id": "summary", "title": "Summary", "tiles": [], "rules": _rules(facts)}
    section["labels"] = _shown_labels((facts.get("about") or {}).get("labels") or [])
    scores = facts.get("scores")
    if not scores:
        return section
    metric, candidate = main_metric(facts), scores["candidate"]
    interval = candidate["intervals"].get(metric, {})
    tiles = [
        _tile(
            metric_name(metric), number(candidate["metrics"].get(metric)),
            span(interval.get("low"), interval.get("high")),
            [_against(facts, role, metric) for role in ("champion", "baseline")],
        )
    ]  # fmt: skip
    smaller, faster = [], []
    for role in ("champion", "baseline"):
        if role in scores:
            smaller.append(f"{scores[role]['bytes'] / candidate['bytes']:.1f} × smaller than the {role}")
        ratio = (scores.get("differences", {}).get(role) or {}).get("measured", {}).get("speedup")
        if ratio:
            faster.append(f"{ratio['median']:.1f} × the {role}’s ({span(ratio['low'], ratio['high'], 1)})")
    tiles.append(_tile("size on disk", size(candidate["bytes"]), "", smaller))
    measured = candidate.get("measured", {})
    if measured:
        tiles.append(_tile("texts per second", f"{measured['texts_per_second']:,.0f}", "", faster))
        slowest = f"95 % within {measured['latency_p95_ms']:.1f} ms"
        tiles.append(_tile("latency of one text", f"{measured['latency_p50_ms']:.1f} ms", slowest, []))
    tiles.append(_tile("test rows", f"{scores['rows']:,}", "seen by no step before", []))
    return {**section, "tiles": tiles}


def _shown_labels(labels: list[Any]) -> list[str]:
    """Of BIO tags the types."""
    words = [str(label) for label in labels]
    if "O" in words and any(word.startswith("B-") for word in words):
        return list(dict.fromkeys(word.partition("-")[2] for word in words if "-" in word))
    return words


def _tile(name: str, value: str, below: str, notes: list[str]) -> dict[str, Any]:
    return {"name": name, "value": value, "below": below, "notes": [note for note in notes if note]}


def _against(facts: Facts, role: str, metric: str) -> str:
    found = (facts["scores"].get("differences", {}).get(role) or {}).get(metric)
    return f"{signed(found['value'])} against the {role} ({span(found['low'], found['high'])})" if found else ""


def _rules(facts: Facts) -> list[dict[str, Any]]:
    rules = ((facts.get("verdict") or {}).get("rules") or {}).items()
    return [
        {
            "name": name, "limit": rule.get("limit"), "value": rule.get("value", rule.get("measured")),
            "passed": rule.get("passed"), "note": rule.get("not_applied") or rule.get("reason") or "",
        }
        for name, rule in rules
    ]  # fmt: skip


def quality(facts: Facts) -> Section | None:
    """Every figure of every model on the same rows, with intervals and simple references; figures by class."""
    scores = facts.get("scores")
    if not scores:
        return None
    metric, roles = main_metric(facts), roles_of(facts)
    references = {name: found for name, found in (scores.get("references") or {}).items() if found}
    dots = [_dot(facts, role, metric) for role in roles if metric in scores[role]["metrics"]]
    dots += [
        {"name": REFERENCES.get(name, name), "value": found[metric], "tone": 3}
        for name, found in references.items() if metric in found
    ]  # fmt: skip
    table = [
        {
            "name": metric_name(name), "main": name == metric,
            "cells": [_cell(scores[role], name) for role in roles],
            "references": [found.get(name) for found in references.values()],
        }
        for name in scores["candidate"]["metrics"]
    ]  # fmt: skip
    classes = [{"label": label, **found} for label, found in scores["candidate"].get("per_class", {}).items()]
    plot = interval_dots(dots, f"{metric_name(metric)} on the test rows", "quality")
    return {
        "id": "quality", "title": "Quality", "plot": plot,
        "table": table, "heads": [role_name(facts, role) for role in roles],
        "references": [REFERENCES.get(name, name) for name in references], "rows": scores["rows"], "classes": classes,
        "agreement": scores.get("agreement"), "largest_change": scores.get("largest_change"),
    }  # fmt: skip


def _dot(facts: Facts, role: str, metric: str) -> dict[str, Any]:
    model = facts["scores"][role]
    return {
        "name": role_name(facts, role), "value": model["metrics"][metric], "tone": TONES[role],
        **(model["intervals"].get(metric) or {}),
    }  # fmt: skip


def _cell(model: dict[str, Any], name: str) -> dict[str, Any]:
    return {"value": model["metrics"].get(name), **(model["intervals"].get(name) or {})}


def confusion(facts: Facts) -> Section | None:
    """Which class is taken for which; of entities, which type."""
    entities = facts["predictions"].get("entities")
    matrix = (facts.get("scores") or {}).get("candidate", {}).get("confusion")
    if entities and len(entities["names"]) > 1:
        names, counts = entities["names"], entities["counts"]
        note = (
            "On the diagonal entities of the right type, be it with other words; (none): nothing was there, or found."
        )
    elif matrix:
        names, counts, note = _label_names(facts, len(matrix)), matrix, ""
    else:
        return None
    chosen = list(range(len(names)))
    if len(names) > MAP_CLASSES:
        chosen = sorted(sorted(chosen, key=lambda i: counts[i][i] - sum(counts[i]))[:MAP_CLASSES])
        note = f"The {MAP_CLASSES} of {len(names)} classes with the most errors, as shares of all their rows. {note}"
    filled = [i for i in chosen if sum(counts[i])] if entities else chosen
    plot = heat_map(
        [names[i] for i in filled], [names[i] for i in chosen], [[counts[i][j] for j in chosen] for i in filled],
        [sum(counts[i]) for i in filled],
    )  # fmt: skip
    commonest = sorted(
        (
            {"label": row, "predicted": column, "rows": found, "share": found / (sum(line) or 1)}
            for row, line in zip(names, counts, strict=True)
            for column, found in zip(names, line, strict=True)
            if row != column and found
        ),
        key=lambda pair: (-pair["rows"], pair["label"], pair["predicted"]),
    )[:10]
    return {
        "id": "confusion", "title": "Confusion matrix", "plot": plot, "note": note.strip(),
        "pairs": commonest, "numbered": len(chosen) <= NUMBERED,
        "unit": "entities" if entities else "rows",
    }  # fmt: skip


def _label_names(facts: Facts, classes: int) -> list[str]:
    """Of the rows of the matrix, in the data's order: the keys of `scores.json` are sorted, they do not tell."""
    for labels in (facts["predictions"].get("labels"), (facts.get("about") or {}).get("labels")):
        if labels and len(labels) == classes:
            return [str(label) for label in labels]
    return [f"class {number}" for number in range(classes)]


def calibration(facts: Facts) -> Section | None:
    """Whether a confidence of 80 % is right 80 times of 100."""
    found = facts["predictions"].get("calibration")
    if not found:
        return None
    gap = found["confidence"] - found["accuracy"]
    kind = "too sure of itself" if gap > 0.01 else "too modest" if gap < -0.01 else "about as sure as it is right"
    plot = reliability(found["bins"], found["ece"])
    return {"id": "calibration", "title": "Calibration", "plot": plot, "kind": kind, **found}


def slices(facts: Facts) -> Section | None:
    """The main figure by the values of columns, of each model where that was computed."""
    scores = facts.get("scores") or {}
    metric = main_metric(facts)
    by_role = scores.get("slices_by_role") or {"candidate": scores.get("slices") or {}}
    roles = [role for role in ("candidate", "champion", "baseline") if by_role.get(role)]
    tables = []
    elsewhere = "epoch" if scores and _epochs(facts) else None
    for column, values in (by_role.get("candidate") or {}).items():
        if column == elsewhere:
            continue
        rows = [
            {
                "value": value, "rows": found.get("rows"),
                "cells": [by_role[role].get(column, {}).get(value, {}).get(metric) for role in roles],
            }
            for value, found in values.items()
        ]  # fmt: skip
        if rows:
            tables.append({"column": column, "rows": rows})
    if not tables:
        return None
    heads = [role_name(facts, role) for role in roles]
    return {
        "id": "slices", "title": "Slices", "tables": tables, "heads": heads, "metric": metric_name(metric),
        "tones": [TONES[role] for role in roles],
    }  # fmt: skip


def errors(facts: Facts) -> Section | None:
    """Examples: the errors it was surest of by pair of classes, or the sentences with most wrong entities."""
    pairs, entities = facts["predictions"].get("pairs"), facts["predictions"].get("entities")
    if not pairs and not (entities and entities["examples"]):
        return None
    return {"id": "errors", "title": "Examples of errors", "pairs": pairs or [], "entities": entities}


def comparison(facts: Facts) -> Section | None:
    """Old against new: paired differences with intervals, and what each data epoch gained or lost."""
    scores = facts.get("scores") or {}
    tables = []
    for role in ("champion", "baseline"):
        found = (scores.get("differences") or {}).get(role) or {}
        rows = [
            {"name": metric_name(name), "word": _word(each), "tone": TONES[role], **each}
            for name, each in found.items()
            if isinstance(each, dict) and {"value", "low", "high"} <= set(each)
        ]
        if rows:
            plot = interval_dots(rows, f"this model minus the {role}", f"difference-{role}", zero=True)
            speed = (found.get("measured") or {}).get("speedup")
            tables.append({"role": role_name(facts, role), "rows": rows, "plot": plot, "speed": speed})
    if not tables:
        return None
    return {"id": "comparison", "title": "Old against new", "tables": tables, "epochs": _epochs(facts)}


def _word(found: dict[str, float]) -> str:
    return "better" if found["low"] > 0 else "worse" if found["high"] < 0 else "no clear difference"


def _epochs(facts: Facts) -> dict[str, Any] | None:
    by_role = facts["scores"].get("slices_by_role") or {}
    new = (by_role.get("candidate") or {}).get("epoch")
    old_role = next((role for role in ("champion", "baseline") if (by_role.get(role) or {}).get("epoch")), None)
    if not new or old_role is None:
        return None
    metric, old = main_metric(facts), by_role[old_role]["epoch"]
    rows = []
    for value in sorted(new, key=lambda each: (not each.isdigit(), int(each) if each.isdigit() else 0, each)):
        pair = [side.get(value, {}).get(metric) for side in (new, old)]
        change = pair[0] - pair[1] if None not in pair else None
        rows.append({"value": value, "rows": new[value].get("rows"), "new": pair[0], "old": pair[1], "change": change})
    return {"rows": rows, "metric": metric_name(metric), "old": old_role}
