"""Run as a script in a fresh process: does a logged model give the predictions that the gate saw?

`python -I fresh_check.py MODEL_URI CHECK_JSON` prints one JSON line. It imports nothing of ours and refuses torch,
transformers and stillhouse to whatever the model imports: what passes here runs in a deployment without them.
"""

import importlib.abc
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

ABSENT = frozenset({"torch", "transformers", "stillhouse", "tasks", "pipelines", "flows"})

ABSENT_VALUE = 1e9


class Blocker(importlib.abc.MetaPathFinder):
    """Makes the packages `ABSENT` look as if they were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"a registered model must not need {name}", name=name)


def compare(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> dict[str, Any]:
    """How far predictions are from the expected rows: `{rows, changed, largest_change, example}`.

    `changed` counts rows with another label or outcome, or other entities (text, label, place); `largest_change`
    is the largest absolute difference of a probability or an entity's score, `ABSENT_VALUE` where there is no number.
    """
    changed, largest, example = 0, 0.0, ""
    for row, got in zip(rows, found, strict=True):
        if "entities" in row:
            wanted, there = row["entities"], json.loads(got["entities"])
            same = [_place(entity) for entity in wanted] == [_place(entity) for entity in there]
            pairs = [(a["score"], b["score"]) for a, b in zip(wanted, there, strict=same)]
        else:
            same = row["label"] == got["label"] and row.get("outcome") == got.get("outcome")
            pairs = [(p, got.get(f"p_{label}", ABSENT_VALUE)) for label, p in row["probabilities"].items()]
        largest = max([largest, *(_distance(a, b) for a, b in pairs)])
        if not same:
            changed += 1
            example = example or row["text"][:60]
    return {"rows": len(rows), "changed": changed, "largest_change": largest, "example": example}


def _distance(a: float, b: float) -> float:
    return min(abs(a - b), ABSENT_VALUE) if math.isfinite(b) else ABSENT_VALUE


def _place(entity: dict[str, Any]) -> tuple[str, int, int]:
    return entity["label"], entity["start"], entity["end"]


def main(model_uri: str, check: Path) -> None:
    """Load `model_uri` with MLflow, predict the texts of `check` in one call, print the comparison."""
    sys.meta_path.insert(0, Blocker())
    warnings.simplefilter("ignore")
    import mlflow
    import pandas as pd

    rows = json.loads(check.read_text(encoding="utf-8"))["rows"]
    model = mlflow.pyfunc.load_model(model_uri)
    texts = pd.DataFrame({"text": pd.Series([row["text"] for row in rows], dtype=object)})
    sys.stdout.write(json.dumps(compare(rows, model.predict(texts).to_dict("records"))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
