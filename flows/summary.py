"""After a run: each rung's quality, size and speed, and what to type next."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from flows.request import Result
from flows.terminal import size
from stillhouse.files import read_json
from stillhouse.problems import find_problem
from stillhouse.store import Store


def rung_rows(result: Result, home: Path) -> list[dict[str, Any]]:
    """Rows `{model, quality, size, speed, note, reason}`: references, then baseline and candidate on test rows, then
    the rungs."""
    store = Store(home)
    scores_step = next((s for s in result.steps if s["uses"] == "evaluate.compare"), None)
    if scores_step is None:
        return []
    scores = read_json(store.path(scores_step["key"]) / "scores.json")
    metric = find_problem(scores["problem"]).metric
    rows = [{"model": "", "quality": metric}]
    for name, note in (("majority", "most frequent label"), ("linear", "TF-IDF + logistic reg.")):
        figures = (scores.get("references") or {}).get(name)
        if figures and metric in figures:
            rows.append({"model": name, "quality": f"{figures[metric]:.4f}       ", "note": note})
    names = _model_names(store, scores_step["key"])
    rows += [_model_row(names[role], scores, role, metric) for role in ("baseline", "candidate") if scores.get(role)]
    return rows + _rungs(result, store)


def _model_names(store: Store, key: str) -> dict[str, str]:
    """Step that made the baseline, and the candidate."""
    inputs = (store.manifest(key) or {"inputs": {}})["inputs"]
    names = {}
    for role, slot in (("baseline", "baseline"), ("candidate", "model")):
        manifest = store.manifest(inputs[slot][0]["key"]) if inputs.get(slot) else None
        names[role] = manifest["step"] if manifest else ""
    return names


def _model_row(name: str, scores: dict[str, Any], role: str, metric: str) -> dict[str, Any]:
    model, baseline = scores[role], scores.get("baseline")
    quality = f"{model['metrics'][metric]:.4f}"
    interval = model["intervals"].get(metric)
    if interval:
        quality += f" ±{(interval['high'] - interval['low']) / 2:.3f}"
    row = {"model": name, "quality": quality, "size": size(model["bytes"]), "note": role}
    if role == "candidate" and baseline:
        ratio = scores["differences"]["baseline"]["measured"]["speedup"]
        faster = f"{ratio['median']:.1f}x [{ratio['low']:.1f}, {ratio['high']:.1f}] faster"
        smaller = f"{baseline['bytes'] / model['bytes']:.1f}x smaller"
        row["against"] = f"{name} against the baseline: {faster} (passes in turn), {smaller}"
    return {**row, "speed": f"{model['measured']['texts_per_second']:,.0f}"}


def _rungs(result: Result, store: Store) -> list[dict[str, Any]]:
    rows = []
    for step in result.steps:
        path = store.path(step["key"]) / "rung.json"
        if not path.is_file():
            continue
        rung = read_json(path)
        speed = rung.get("measured", {}).get("texts_per_second")
        verdict = f"takes {rung['chosen']}" if "chosen" in rung else "accepted" if rung["accepted"] else "rejected"
        rows.append({
            "model": step["name"], "quality": f"{rung['quality']['value']:.4f}       ",
            "size": size(rung["bytes"]), "speed": f"{speed:,.0f}" if speed else "", "note": f"on validation: {verdict}",
            "reason": "" if rung["accepted"] else rung["reason"],
        })  # fmt: skip
    return rows


def next_commands(result: Result, recipe: str) -> list[str]:
    """What a person would type now, by the name under which they called this program."""
    this = program()
    if result.model:
        name = result.model["name"]
        return [f'{this} predict {name} "your text here"', f"{this} models", f"{this} export {name} DIR"]
    scores = next((step["key"][:12] for step in result.steps if step["uses"] == "evaluate.compare"), None)
    if result.refusal and scores:
        return [f"{this} store show {scores}", f"{this} plan {recipe} --explain"]
    return [f"{this} plan {recipe} --explain"]


def program() -> str:
    """`stillhouse` where that is on the path, else the path it was called by."""
    called = Path(sys.argv[0])
    if shutil.which("stillhouse") or called.stem != "stillhouse":
        return "stillhouse"
    return os.path.relpath(called) if called.is_absolute() else str(called)
