"""Benchmark 3: the whole ladder of two shipped recipes, its chosen model against the teacher in the pipeline."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, interleave, ratio, row
from benchmarks.peers_of_scoring import HubPipeline
from benchmarks.scoring_fp32 import EVERY, EVERY_NOTE
from benchmarks.tasks_of_training import KEPT, labelled

WORK = "the ladders of opinions (tweets) and news (articles): fine-tuned MiniLM-L6 → the cheapest accepted rung"
ANCHOR = "FastFormers 233.9x, 66.6x without the padding of its baseline (arXiv:2010.13382)"
TEXTS = {"opinions": 2000, "news": 400}
QUICK = {"opinions": ["data.max_train_rows=300"], "news": ["data.max_train_rows=100"]}


def measure(quick: bool) -> dict[str, Any]:
    rows, found = [], {}
    for name in TEXTS:
        steps = run_recipe(name, QUICK[name] if quick else [])
        ratios, found[name] = _compare(name, steps, quick)
        rows += ratios
    rows[0]["anchor"] = ANCHOR
    return {"rows": rows, "recipes": found, "notes": [EVERY_NOTE]}


def run_recipe(name: str, overrides: list[str]) -> dict[str, Path]:
    """Directories of a recipe's artifacts; made where `.stillhouse/benchmarks` does not have them."""
    home = KEPT / "recipes"
    command = [sys.executable, "-m", "flows.cli", "run", name, "--json", "--local"]
    command += [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "STILLHOUSE_HOME": str(home)}
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"{name}: exit {done.returncode}\n{done.stdout}")
    store = home / "store" / "artifacts"
    return {step["name"]: store / step["key"] for step in json.loads(done.stdout)["steps"]}


def _compare(name: str, steps: dict[str, Path], quick: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    from stillhouse.scorer import load_scorer

    texts = labelled(steps["data"], "test")[0][: 64 if quick else TEXTS[name]]
    some = {way: texts[::every] for way, every in EVERY.items()}
    scorer, length = load_scorer(steps["cheapest"]), load_scorer(steps["teacher"]).max_length
    pipeline = HubPipeline(steps["teacher"], length)
    best, tried = pipeline.best_batch_size(some["default"])
    names = [f"{name}: teacher in the pipeline, default", f"{name}: teacher in the pipeline, batch size {best}"]
    sides = {
        "ours": partial(scorer.score, texts),
        names[0]: partial(pipeline.score, some["default"]),
        names[1]: partial(pipeline.score, some["best"], best),
    }
    seconds = interleave(sides, 1 if quick else 5)
    for peer, way in zip(names, EVERY, strict=True):
        seconds[peer] = [round(each * len(texts) / len(some[way]), 4) for each in seconds[peer]]
    scores = json.loads((steps["scores"] / "scores.json").read_text())
    metric = scores["candidate"]["metrics"]["f1_macro"], scores["baseline"]["metrics"]["f1_macro"]
    smaller = scores["baseline"]["bytes"] / scores["candidate"]["bytes"]
    rows = [
        row(names[0], ratio(seconds, "ours", names[0]), 20.0),
        row(names[1], ratio(seconds, "ours", names[1]), 10.0),
        row(f"{name}: bytes", _exact(smaller), 10.0),
        row(f"{name}: share of the teacher's macro-F1 on the test rows", _exact(metric[0] / metric[1]), 0.99),
    ]
    ladder = json.loads((steps["cheapest"] / "ladder.json").read_text())
    return rows, {
        "seconds": seconds,
        "texts": len(texts),
        "seconds_by_batch_size": tried,
        "f1": metric,
        "ladder": ladder,
    }


def _exact(value: float) -> dict[str, float]:
    return dict.fromkeys(("median", "low", "high"), round(value, 3))
