"""A home with every artifact of a whole run, written by hand in a moment: made-up figures, hostile texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stillhouse.files import write_json
from stillhouse.keys import digest

SCRIPT = '<script>alert("x")</script>'
HOSTILE = [
    SCRIPT, "a\x00b\x07c", "\u202egnihton\u202c to read", "w" * 20_000, "שלום עולם, good", "</style><b>bold",
    "{{ 7*7 }} {% raw %}",
    '"><img src="http://example.org/x.png" onerror="alert(1)">', "😀 fine &amp; dandy",
]  # fmt: skip
LABELS = ["negative", "neutral", SCRIPT]
TAGS = ["O", "B-person", "I-person", "B-place", "I-place"]


def make_home(home: Path, problem: str = "text-classification", **changes: Any) -> str:
    """Write the artifacts of a run of the recipe `tiny` into `home`; the key of its release.

    `changes`: of `scores.json`.
    """
    words = problem == "token-classification"
    data = artifact(home, "data", "data", "prepare.text", {}, {"data.json": data_json(problem)}, seconds=3.0)
    models = {}
    for name, source in (("head", None), ("full", "head"), ("student", "full")):
        method = "distill.logits" if name == "student" else "train.stage"
        inputs = {"data": [data]} | ({} if source is None else {"model": [models[source]]})
        files = {"metrics.jsonl": curve(problem), "stillhouse.json": about(problem)}
        metrics = {"best_step": 20, "steps": 30, "trained_parameters": 12345}
        models[name] = artifact(home, name, "model.torch", method, inputs, files, metrics=metrics, seconds=12.5)
    onnx = artifact(home, "onnx", "model.onnx", "export.onnx", {"model": [models["student"]]}, {})
    int8 = artifact(
        home, "int8", "model.onnx", "quantize.int8", {"data": [data], "model": [onnx], "baseline": [models["full"]]},
        {"rung.json": rung()},
    )  # fmt: skip
    cheapest = artifact(
        home, "cheapest", "model.onnx", "select.cheapest", {"data": [data], "rungs": [onnx, int8]},
        {"ladder.json": ladder(), "rung.json": {"chosen": "int8"}, "stillhouse.json": about(problem)},
    )  # fmt: skip
    inputs = {"data": [data], "model": [cheapest], "baseline": [models["full"]], "champion": [models["head"]]}
    scores = artifact(
        home, "scores", "scores", "evaluate.compare", inputs, {"scores.json": scores_json(problem) | changes},
        parts={"machine": {"cpu": "A <CPU>", "cores": 2, "threads": 2, "flags": ["avx2"]}},
    )  # fmt: skip
    frame = token_predictions() if words else predictions()
    frame.to_parquet(home / "store" / "artifacts" / scores["key"] / "predictions.parquet", index=False)
    release = artifact(
        home, "release", "release", "release.gate", {"data": [data], "model": [cheapest], "scores": [scores]},
        {"verdict.json": verdict()},
    )  # fmt: skip
    return release["key"]


PLACE = "/home/somebody/private/rows.csv"


def artifact(
    home: Path, step: str, kind: str, method: str, inputs: dict[str, list[dict[str, Any]]], files: dict[str, Any], *,
    metrics: dict[str, float] | None = None, seconds: float = 1.0, parts: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One finished artifact with the manifest a worker writes, as far as anything here reads it."""
    key = digest(["tiny", step])
    directory = home / "store" / "artifacts" / key
    directory.mkdir(parents=True)
    for name, value in files.items():
        if isinstance(value, str):
            (directory / name).write_text(value, encoding="utf-8")
        else:
            write_json(directory / name, value)
    manifest = {
        "key": key, "kind": kind, "method": method, "step": step, "recipe": "tiny", "seed": 42, "content": digest(step),
        "settings": {"metric": None, "note": SCRIPT, "rate": 1e-3, **({"source": PLACE} if kind == "data" else {})},
        "metrics": metrics or {}, "parts": parts or {},
        "inputs": {s: [{k: i[k] for k in ("key", "kind", "content")} for i in items] for s, items in inputs.items()},
        "sources": {"source": source()} if kind == "data" else {}, "versions": {"numpy": "2.4"},
        "measured": {"seconds": seconds, "created": 1_700_000_000.0}, "files": {name: {"bytes": 1} for name in files},
    }  # fmt: skip
    write_json(directory / "manifest.json", manifest)
    return manifest


def source() -> dict[str, Any]:
    return {"name": PLACE, "digest": "d" * 64, "path": PLACE, "repository": None, "revision": None}


def about(problem: str) -> dict[str, Any]:
    return {"problem": problem, "labels": LABELS, "max_length": 64, "base": "hub:someorg/tiny", "licence": None}


def data_json(problem: str) -> dict[str, Any]:
    classes = {split: dict(zip(LABELS, counts, strict=True)) for split, counts in SPLITS.items()}
    report = {
        "rows": {"read": 500, "train": 300, "validation": 90, "test": 90}, "classes": classes,
        "dropped": {"duplicate": 15, "near_held_out": 5}, "warnings": [f"a line says {SCRIPT}"],
        "words": {"mean": 12.3, "p50": 11.0, "p95": 30.0, "max": 99.0},
    }  # fmt: skip
    return {"problem": problem, "source": {"name": "rows.csv"}, "language": "en", "licence": None, "report": report}


SPLITS = {"train": (150, 100, 50), "validation": (45, 30, 15), "test": (40, 35, 15)}


def curve(problem: str) -> str:
    metric = "entity_f1" if problem == "token-classification" else "f1_macro"
    rows = [{"step": 10 * n, "train_loss": 1.2 / n, "learning_rate": 1e-4, metric: 0.5 + 0.05 * n} for n in (1, 2, 3)]
    return "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "trai'


def rung() -> dict[str, Any]:
    return {
        "method": "quantize.int8", "metric": "f1_macro", "quality": {"value": 0.71, "low": 0.69, "high": 0.73},
        "baseline": {"value": 0.72, "low": 0.7, "high": 0.74}, "loss": 0.01, "bytes": 6_000_000,
        "bytes_before": 24_000_000, "accepted": True, "reason": "4.0 times smaller",
        "measured": {"speedup": {"median": 1.9, "low": 1.7, "high": 2.1}, "texts_per_second": 400.0},
    }  # fmt: skip


def ladder() -> dict[str, Any]:
    rungs = [
        {
            "name": name, "key": "k", "quality": {"value": value, "low": value - 0.02, "high": value + 0.02},
            "bytes": size, "loss": 0.72 - value, "over_budget": over,
            "measured": {"texts_per_second": speed, "latency_p95_ms": 4.0, "latency_p50_ms": 2.0, "pareto": not over},
        }
        for name, value, size, speed, over in (
            ("onnx", 0.715, 24_000_000, 210.0, ["has 24.00 MB, 12 allowed"]), ("int8", 0.71, 6_000_000, 400.0, []),
        )
    ]  # fmt: skip
    return {"metric": "f1_macro", "baseline": 0.72, "chosen": "int8", "within": True, "rungs": rungs}


def figures(problem: str, value: float) -> dict[str, Any]:
    names = ["entity_f1", "accuracy"] if problem == "token-classification" else ["f1_macro", "accuracy"]
    found = {
        "metrics": dict.fromkeys(names, value), "bytes": 6_000_000,
        "intervals": {name: {"low": value - 0.02, "high": value + 0.02} for name in names},
        "per_class": {
            name: {"precision": 0.8, "recall": 0.6, "f1": 0.7, "support": 30}
            for name in (("person", "place") if problem == "token-classification" else LABELS)
        },
        "measured": {"texts_per_second": 400.0, "latency_p50_ms": 2.0, "latency_p95_ms": 4.5},
    }  # fmt: skip
    if problem == "text-classification":
        found["confusion"] = [[30, 6, 4], [5, 25, 5], [3, 4, 8]]
    return found


def scores_json(problem: str) -> dict[str, Any]:
    metric = "entity_f1" if problem == "token-classification" else "f1_macro"
    epochs = {
        role: {"0": {metric: 0.70, "rows": 60}, "1": {metric: value, "rows": 30}} for role, value in EPOCHS.items()
    }
    topics = {role: {SCRIPT: {metric: 0.66, "rows": 50}, "b": {metric: 0.7, "rows": 40}} for role in EPOCHS}
    by_role = {role: {"topic": topics[role], "epoch": epochs[role]} for role in EPOCHS}
    difference = {
        metric: {"value": 0.03, "low": 0.01, "high": 0.05},
        "accuracy": {"value": 0, "low": -0.01, "high": 0.01},
    }
    return {
        "problem": problem, "split": "test", "rows": 90, "candidate": figures(problem, 0.71),
        "baseline": figures(problem, 0.72), "champion": figures(problem, 0.68),
        "references": {"majority": {metric: 0.2, "accuracy": 0.4}, "linear": {metric: 0.65, "accuracy": 0.7}},
        "differences": {
            "champion": {**difference, "measured": {"speedup": {"median": 1.0, "low": 0.9, "high": 1.1}}},
            "baseline": {**difference, "measured": {"speedup": {"median": 5.0, "low": 4.5, "high": 5.5}}},
        },
        "slices_by_role": by_role, "slices": by_role["candidate"], "agreement": 0.999, "largest_change": 0.001,
    }  # fmt: skip


EPOCHS = {"candidate": 0.74, "baseline": 0.71, "champion": 0.6}


def verdict(passed: bool = True) -> dict[str, Any]:
    rules = {
        "max_loss": {"limit": 0.03, "value": 0.01, "passed": True},
        "class_floors.<b>": {"limit": 0.9, "value": 0.7, "passed": passed},
        "max_loss_champion": {"limit": 0.01, "passed": None, "not_applied": "the scores have no champion"},
    }
    reasons = [] if passed else [f"F1 of {SCRIPT} is below its floor"]
    return {"passed": passed, "reasons": reasons, "rules": rules, "against": {"version": 3, "digest": "x"}}


def predictions(rows: int = 300) -> pd.DataFrame:
    """Three classes, answers that are right as often as they are sure; each hostile text once among the errors."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, rows)
    truth[: len(HOSTILE)] = np.arange(len(HOSTILE)) % 3  # three for each pair: as many as are shown
    logits = random.normal(size=(rows, 3)) + 2 * np.eye(3)[truth]
    logits[: len(HOSTILE)] = 4 * np.eye(3)[(truth[: len(HOSTILE)] + 1) % 3]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    texts = [HOSTILE[row] if row < len(HOSTILE) else f"text {row}" for row in range(rows)]
    names = np.asarray(LABELS, dtype=object)
    columns = {f"p_{label}": shares[:, place].astype(np.float32) for place, label in enumerate(LABELS)}
    return pd.DataFrame(
        {"id": range(rows), "text": texts, "label": names[truth], "predicted": names[shares.argmax(axis=1)], **columns}
    )


def token_predictions() -> pd.DataFrame:
    """One sentence for each kind of error, and one that is right."""
    rows = [
        ("Ann Lee saw Paris", "B-person I-person O B-place", "B-person I-person O B-place"),
        (f"Ann {SCRIPT} saw Paris", "B-person I-person O B-place", "B-person O O B-person"),
        ("so Ann went home", "O B-person O O", "O O B-place O"),
    ]
    columns = [[part.split() for part in row] for row in rows]
    return pd.DataFrame([{"id": n, "words": w, "label": t, "predicted": g} for n, (w, t, g) in enumerate(columns)])


def add_watch(home: Path, name: str) -> None:
    """Eight monitor runs, the last two with alarms, and three retrainings."""
    lines = []
    for run in range(8):
        auc = 0.52 + 0.03 * run
        tests = [
            {"name": "input drift", "rows": 500, "effect": auc, "threshold": 0.6, "p_value": 0.5 / (run + 1) ** 3,
             "alarm": auc > 0.66, "detail": {"statistic": "auc"}},
            {"name": f"prediction drift {SCRIPT}", "rows": 500, "effect": 0.02 * run, "threshold": 0.1, "p_value": 0.2,
             "alarm": False, "detail": {}},
        ]  # fmt: skip
        surges = [
            {
                "topic": SCRIPT,
                "label": "negative",
                "count": 40,
                "rows": 50,
                "share": 0.8,
                "expected": 0.4,
                "p_value": 1e-9,
                "state": "alert",
            }
        ]
        lines.append({
            "time": 1.8e9, "version": 1, "window": {"start": 1.7e9, "end": 1.7e9 + 86_400 * run}, "rows": 500,
            "tests": tests, "surge": {"table": surges if run == 7 else []},
            "quality": {"rows": 200, "accuracy": {"value": 0.8 - 0.01 * run, "low": 0.7, "high": 0.9}},
            "estimate": {"accuracy": 0.79 - 0.01 * run}, "notes": ["labels of 20 rows: quality is not tested"],
        })  # fmt: skip
    path = home / "monitor" / name / "history.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[-1]]) + '{"time": "soon"}\n{"ti')
    quality = {
        "metric": "f1_macro",
        "candidate": 0.74,
        "champion": 0.7,
        "rows": 90,
        "epochs": {"0": {"candidate": 0.7, "champion": 0.71}},
    }
    triggers = [
        {"reason": "schedule", "state": "nothing-new", "why": "no new data", "times": 3},
        {"reason": "drift", "state": "refused", "why": f"F1 of {SCRIPT}", "ended": 1.7e9 + 600},
        {"reason": "new data", "state": "released", "version": 4, "quality": quality, "ended": 1.7e9 + 900},
    ]
    for number, trigger in enumerate(triggers):
        write = {"id": f"t{number}", "name": name, "created": 1.7e9, **trigger}
        (home / "retrain" / name).mkdir(parents=True, exist_ok=True)
        write_json(home / "retrain" / name / f"t{number}.json", write)
    (home / "retrain" / name / "torn.json").write_text('{"id": ')
