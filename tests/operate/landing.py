"""New rows for a retraining, and what the home says about retrainings."""

import json
from pathlib import Path

from tests.tiny_runs import made_up_rows


def land(home: Path, first: int, last: int) -> None:
    """Rows `first` to `last` of the made-up ones, and two that are no good, in the landing place."""
    rows = made_up_rows(last)[first:]
    path = home / "landing" / "tiny" / f"{first}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows) + "odd,strange\n,good\n")


def triggers(home: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((home / "retrain" / "tiny").glob("*.json"))]
