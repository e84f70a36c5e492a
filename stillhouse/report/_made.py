"""Sections about how the model was made: data, training, ladder, lineage, settings, versions."""

import json
from typing import Any

from stillhouse.problems import PROBLEMS
from stillhouse.report._grids import ladder_plot, step_graph
from stillhouse.report._plots import label_shares, learning_curve, stages_curve
from stillhouse.report._text import clip, figure, is_number

Section = dict[str, Any]
Facts = dict[str, Any]
CLASSES = 100
"""Rows of the table of classes; of entities and intents there may be hundreds."""
SPLITS = ("train", "validation", "test")


def data(facts: Facts) -> Section | None:
    """What was read, what was left out and why, how the labels are spread."""
    sets = [_data_set(info) for info in facts["data"]]
    return {"id": "data", "title": "Data", "sets": sets} if sets else None


def _data_set(info: dict[str, Any]) -> dict[str, Any]:
    report = info.get("report") or {}
    classes = report.get("classes") or {}
    counted = "entities" if info.get("problem") == "token-classification" else "rows"
    names = sorted(
        {label for found in classes.values() for label in found},
        key=lambda label: (-sum(found.get(label, 0) for found in classes.values()), label),
    )
    rows = report.get("rows") or {}
    left_out = [{"why": why.replace("_", " "), "rows": found} for why, found in (report.get("dropped") or {}).items()]
    return {
        "step": info["step"], "source": info.get("source") or {}, "licence": info.get("licence"),
        "language": info.get("language"), "problem": info.get("problem"), "rows": rows,
        "splits": [split for split in SPLITS if split in rows], "classes": names[:CLASSES],
        "more_classes": max(0, len(names) - CLASSES), "by_class": classes,
        "dropped": sorted(left_out, key=lambda entry: -entry["rows"]), "words": report.get("words") or {},
        "warnings": report.get("warnings") or [], "plot": label_shares(classes, counted),
    }  # fmt: skip


def training(facts: Facts) -> Section | None:
    """A learning curve for each stage that trained."""
    stages = []
    problem = PROBLEMS.get((facts.get("about") or {}).get("problem", ""))
    for curve in facts["curves"]:
        manifest, rows = curve["manifest"], curve["rows"]
        asked = (manifest.get("settings") or {}).get("metric_for_best_model")
        metric = asked or (problem.metric if problem else "f1_macro")
        metric = metric if any(metric in row for row in rows) else "accuracy"
        best = manifest["metrics"].get("best_step")
        kept = next((row for row in rows if row.get("step") == best), None) or rows[-1]
        stages.append({
            "name": curve["step"], "method": curve["method"],
            "plot": learning_curve(curve["step"], rows, metric, best),
            "metric": metric, "value": kept.get(metric), "best": best, "steps": manifest["metrics"].get("steps"),
            "loss": rows[-1].get("train_loss"), "seconds": manifest["measured"].get("seconds"),
            "parameters": manifest["metrics"].get("trained_parameters"),
        })  # fmt: skip
    if not stages:
        return None
    metric = stages[-1]["metric"]
    overview = stages_curve([(curve["step"], curve["rows"]) for curve in facts["curves"]], metric)
    return {"id": "training", "title": "Training", "stages": stages, "overview": overview}


def ladder(facts: Facts) -> Section | None:
    """What each compression step cost and brought; the rungs among which the model was chosen."""
    found, rungs = facts.get("ladder"), [rung for rung in facts["rungs"] if "method" in rung and "chosen" not in rung]
    if not found and not rungs:
        return None
    section: Section = {"id": "ladder", "title": "The ladder", "ladder": found, "rungs": rungs, "plots": []}
    if found and found.get("rungs"):
        section["plots"] = [ladder_plot(found, by) for by in ("speed", "bytes")]
    return section


def lineage(facts: Facts) -> Section | None:
    """The steps as a graph, and a table with keys."""
    steps = facts["steps"]
    if not steps:
        return None
    total = sum(step["seconds"] for step in steps if is_number(step["seconds"]))
    plot = step_graph(steps, facts["key"])
    sources = [{"step": step["name"], **source} for step in steps for source in step["sources"]]
    feeds: dict[str, dict[str, list[str]]] = {}
    for step in steps:
        for item in step["inputs"]:
            feeds.setdefault(step["key"], {}).setdefault(item["slot"], []).append(item["step"])
    return {
        "id": "lineage", "title": "Lineage", "plot": plot, "steps": steps, "total": total, "sources": sources,
        "feeds": feeds, "states": facts.get("states") or {},
    }  # fmt: skip


def settings(facts: Facts) -> Section | None:
    """Every setting of every step, defaults included."""
    tables = [
        {
            "name": step["name"], "method": step["method"], "seed": step["seed"],
            "rows": [{"name": name, "value": clip(shown(value), 1500)} for name, value in step["settings"].items()],
            "metrics": [{"name": name, "value": figure(value)} for name, value in step["metrics"].items()],
        }
        for step in facts["steps"]
    ]  # fmt: skip
    return {"id": "settings", "title": "Settings", "tables": tables} if tables else None


def shown(value: Any) -> str:
    """A setting as a recipe would say it."""
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def environment(facts: Facts) -> Section | None:
    """Versions of libraries, and the machine that measured the speed."""
    used: dict[str, set[str]] = {}
    for step in facts["steps"]:
        for name, version in step["versions"].items():
            used.setdefault(name, set()).add(str(version))
    versions = [{"name": name, "version": ", ".join(sorted(found))} for name, found in sorted(used.items())]
    now = [{"name": name, "version": version} for name, version in sorted((facts.get("installed") or {}).items())]
    if not versions and not now:
        return None
    return {
        "id": "environment", "title": "Versions and machine", "versions": versions, "installed": now,
        "machine": facts.get("machine"),
    }  # fmt: skip
