"""After a retraining: the new model's quality against the champion's, on all test rows and on those of each epoch."""

from pathlib import Path
from typing import Any

from flows.request import Result
from pipelines.retraining import EPOCH
from stillhouse.files import read_json
from stillhouse.problems import find_problem
from stillhouse.store import Store


def quality_of(result: Result, home: Path) -> dict[str, Any] | None:
    """`{metric, rows, candidate, champion, epochs: {EPOCH: {rows, candidate, champion}}}`; epoch 0 is the oldest data.

    None without an `evaluate.compare` step; `champion` is None where there was none to compare with.
    """
    step = next((step for step in result.steps if step["uses"] == "evaluate.compare"), None)
    if step is None:
        return None
    scores = read_json(Store(home).path(step["key"]) / "scores.json")
    metric = find_problem(scores["problem"]).metric
    by_role = scores.get("slices_by_role") or {"candidate": scores["slices"]}
    new, old = (by_role.get(role, {}).get(EPOCH, {}) for role in ("candidate", "champion"))
    epochs = {
        epoch: {"rows": figures["rows"], "candidate": figures[metric], "champion": old.get(epoch, {}).get(metric)}
        for epoch, figures in sorted(new.items(), key=lambda item: (len(item[0]), item[0]))
    }
    whole = {role: scores[role]["metrics"][metric] if role in scores else None for role in ("candidate", "champion")}
    return {"metric": metric, "rows": scores["rows"], **whole, "epochs": epochs}
