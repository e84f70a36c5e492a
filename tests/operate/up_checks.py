"""What tests ask of an `up`: recipes with names of their own, its processes, what MLflow holds, nothing doubled."""

import urllib.parse
from pathlib import Path

from flows.marked import marked
from tests.operate.up_process import Up

TRAIN = "train/train"
STEPS = {"data", "head", "full", "student", "onnx", "int8", "scores", "release"}


def variant(recipe: Path, directory: Path, name: str) -> str:
    """The same recipe under a name of its own: one experiment, one registered model."""
    path = directory / f"{name}.yaml"
    path.write_text(f"extends: {recipe}\nname: {name}\n")
    return str(path)


def mlflow_runs(up: Up, name: str) -> list[dict]:
    """All MLflow runs of a recipe: `{name, status, parent, key}`."""
    query = urllib.parse.urlencode({"experiment_name": name})
    experiment = up.mlflow_ask(f"api/2.0/mlflow/experiments/get-by-name?{query}")["experiment"]["experiment_id"]
    found = up.mlflow_ask("api/2.0/mlflow/runs/search", {"experiment_ids": [experiment], "max_results": 1000})["runs"]
    runs = []
    for run in found:
        tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
        runs.append({
            "name": run["info"]["run_name"], "status": run["info"]["status"], "id": run["info"]["run_id"],
            "parent": tags.get("mlflow.parentRunId"), "key": tags.get("stillhouse.key"),
        })  # fmt: skip
    return runs


def check_nothing_lost_or_doubled(up: Up, name: str, steps: set[str]) -> None:
    """One finished parent run, every step recorded once, one version, which is champion."""
    runs = mlflow_runs(up, name)
    assert "RUNNING" not in {run["status"] for run in runs}
    assert [run["status"] for run in runs if run["parent"] is None].count("FINISHED") == 1
    recorded = [run["name"] for run in runs if run["parent"] and run["status"] == "FINISHED"]
    assert sorted(recorded) == sorted(steps), "a step is missing, or twice"
    versions = next(model for model in up.cli.json("models") if model["name"] == name)["versions"]
    assert [(version["version"], version["aliases"]) for version in versions] == [(1, ["champion"])]


def processes(up: Up, word: str) -> list[int]:
    """Processes of `up` with this word in their command line."""
    found = []
    for pid, run in marked(up.home).items():
        if not run and word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " "):
            found.append(pid)
    return found
