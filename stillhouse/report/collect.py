"""Everything the report of one artifact is made of, read from the store and the home into plain dicts.

A report must come out of whatever is left: of an old release the store keeps manifests alone, a crashed monitor leaves
half a line. What cannot be read is left out.
"""

import json
from pathlib import Path
from typing import Any

from stillhouse.method import Source
from stillhouse.report._predictions import look_at
from stillhouse.store import Manifest, Store

Facts = dict[str, Any]
MOST_LINES = 2000
"""Monitor runs that are read, the newest."""


def collect(home: Path, key: str, bundle: Path | None = None) -> Facts:
    """Facts about the artifact `key` and what it was made of; `bundle`: its registered files, if the store lost it."""
    store = Store(home)
    steps = store.lineage(key)
    release = next((step for step in reversed(steps) if step["kind"] == "release"), None)
    scores = next((step for step in reversed(steps) if step["kind"] == "scores"), None)
    model = _model_of(steps, key)
    facts: Facts = {
        "key": key,
        "recipe": steps[-1].get("recipe") if steps else None,
        "created": steps[-1]["measured"].get("created") if steps else None,
        "steps": [_step(step, {step["key"]: step["step"] for step in steps}) for step in steps],
        "verdict": _read(store, release, "verdict.json") or _json(bundle, "verdict.json"),
        "scores": _read(store, scores, "scores.json"),
        "roles": _roles(scores, steps),
        "about": _read(store, model, "stillhouse.json") or _json(bundle, "stillhouse.json"),
        "ladder": _read(store, model, "ladder.json") or _json(bundle, "ladder.json"),
        "rungs": [{"step": step["step"], **rung} for step in steps if (rung := _read(store, step, "rung.json"))],
        "data": [{"step": step["step"], **info} for step in steps if (info := _read(store, step, "data.json"))],
        "curves": [
            {"step": step["step"], "method": step["method"], "rows": rows, "manifest": step}
            for step in steps
            if (rows := read_lines(store.path(step["key"]) / "metrics.jsonl"))
        ],
        "predictions": _predictions(store, scores),
        "machine": (scores or {}).get("parts", {}).get("machine"),
    }
    return facts


def _model_of(steps: list[Manifest], key: str) -> Manifest | None:
    """The model that the release or the scores are about, else the artifact itself."""
    by_key = {step["key"]: step for step in steps}
    for step in reversed(steps):
        items = step["inputs"].get("model") if step["kind"] in ("release", "scores") else None
        if items:
            return by_key.get(items[0]["key"])
    return by_key.get(key)


def _step(manifest: Manifest, names: dict[str, str]) -> dict[str, Any]:
    """What the report says of a step, with sources by their names, not by their places on this machine."""
    inputs = [
        {"slot": slot, "key": item["key"], "step": names.get(item["key"], item["key"][:12])}
        for slot, items in manifest["inputs"].items()
        for item in items
    ]
    sources = [
        {"setting": name, **source, "name": Source(**source).title}
        for name, source in (manifest.get("sources") or {}).items()
    ]
    named = {source["setting"]: source["name"] for source in sources if source["setting"] in manifest["settings"]}
    wanted = ("key", "kind", "method", "recipe", "seed", "content")
    return {
        **{name: manifest.get(name) for name in wanted}, "name": manifest["step"], "inputs": inputs, "sources": sources,
        "settings": {**(manifest.get("settings") or {}), **named}, "metrics": manifest.get("metrics") or {},
        "versions": manifest.get("versions") or {}, "seconds": manifest["measured"].get("seconds"),
        "created": manifest["measured"].get("created"), "files": manifest["files"],
    }  # fmt: skip


def _roles(scores: Manifest | None, steps: list[Manifest]) -> dict[str, str]:
    """Names of the steps that made candidate, baseline and champion."""
    names = {step["key"]: step["step"] for step in steps}
    found = {}
    for role, slot in (("candidate", "model"), ("baseline", "baseline"), ("champion", "champion")):
        items = (scores or {"inputs": {}})["inputs"].get(slot)
        if items:
            found[role] = names.get(items[0]["key"], "")
    return found


def _predictions(store: Store, scores: Manifest | None) -> dict[str, Any]:
    path = store.path(scores["key"]) / "predictions.parquet" if scores else None
    if path is None or not path.is_file():
        return {}
    import pandas as pd

    try:
        return look_at(pd.read_parquet(path))
    except (OSError, ValueError):
        return {}


def _read(store: Store, manifest: Manifest | None, name: str) -> Any:
    return _json(store.path(manifest["key"]), name) if manifest and name in manifest["files"] else None


def _json(directory: Path | None, name: str) -> Any:
    try:
        return json.loads((directory / name).read_text(encoding="utf-8")) if directory else None
    except (OSError, ValueError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none when it is not there, without a line that a kill cut short."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-MOST_LINES:]
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def read_retrains(directory: Path) -> list[dict[str, Any]]:
    """Triggers of retraining and what came of them, the oldest first."""
    found = [(path.stem, _json(directory, path.name)) for path in sorted(directory.glob("*.json"))]
    return [{"id": name, **value} for name, value in found if isinstance(value, dict)]
