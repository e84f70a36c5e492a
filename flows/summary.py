"""After a run: each rung's quality, size and speed, and what to type next."""

from pathlib import Path
from typing import Any

from flows.request import Result
from flows.terminal import size
from stillhouse.files import read_json
from stillhouse.store import Store


def rung_rows(result: Result, home: Path) -> list[dict[str, Any]]:
    """Rows `{model, quality, size, speed, note}`: references, teacher, rungs, the released model."""
    store = Store(home)
    scores_step = next((s for s in result.steps if s["uses"] == "evaluate.compare"), None)
    if scores_step is None:
        return []
    scores = read_json(store.path(scores_step["key"]) / "scores.json")
    metric = "entity_f1" if scores["problem"] == "token-classification" else "f1_macro"
    rows = []
    for name, note in (("majority", "always the most frequent label"), ("linear", "TF-IDF + logistic regression")):
        figures = scores["references"].get(name)
        if figures and metric in figures:
            rows.append({"model": name, "quality": f"{figures[metric]:.4f}", "note": note})
    ratio = scores.get("differences", {}).get("baseline", {}).get("measured", {}).get("speedup")
    for name in ("baseline", "candidate"):
        model = scores.get(name)
        if not model:
            continue
        faster = f"{ratio['median']:.1f}x the baseline's speed" if name == "candidate" and ratio else ""
        smaller = scores.get("baseline") and f", {scores['baseline']['bytes'] / model['bytes']:.1f}x smaller"
        interval = model["intervals"].get(metric)
        shown = f"{model['metrics'][metric]:.4f}"
        if interval:
            shown += f" [{interval['low']:.3f}, {interval['high']:.3f}]"
        rows.append({
            "model": name, "quality": shown, "size": size(model["bytes"]),
            "speed": f"{model['measured']['texts_per_second']:,.0f}",
            "note": faster + (smaller or "") if name == "candidate" else "",
        })  # fmt: skip
    rows += _rungs(result, store)
    return rows


def _rungs(result: Result, store: Store) -> list[dict[str, Any]]:
    rows = []
    for step in result.steps:
        path = store.path(step["key"]) / "rung.json"
        if not path.is_file():
            continue
        rung = read_json(path)
        measured = rung.get("measured", {})
        speed = measured.get("texts_per_second")
        rows.append({
            "model": f"rung {step['name']}", "quality": f"{rung['quality']['value']:.4f} (validation)",
            "size": size(rung["bytes"]), "speed": f"{speed:,.0f}" if speed else "",
            "note": "accepted" if rung["accepted"] else f"rejected: {rung['reason']}",
        })  # fmt: skip
    return rows


def next_commands(result: Result, recipe: str) -> list[str]:
    """What a person would type now."""
    if result.model:
        name = result.model["name"]
        return [f'stillhouse predict {name} "your text here"', "stillhouse models", f"stillhouse export {name} DIR"]
    if result.gate and not result.gate["passed"]:
        return [f"stillhouse plan {recipe} --explain", f"stillhouse run {recipe} --set release.max_loss=0.05"]
    return [f"stillhouse plan {recipe} --explain"]
