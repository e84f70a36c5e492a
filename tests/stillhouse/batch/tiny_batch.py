"""Batch predictions with a tiny model that is called registered, in this process or as a program to be killed.

`python -m tests.stillhouse.batch.tiny_batch MODEL SOURCE OUTPUT HOME`
"""

import csv
import sys
from pathlib import Path
from typing import Any

from stillhouse.batch.run import Batch
from stillhouse.batch.settings import Model, Settings
from stillhouse.batch.work import Work

TEXTS = ["the good crew", "bad flight", "", 'late, "was"\nfine', "paris was fine", "плохо 😀"]


def write_rows(path: Path, count: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["when", "topic", "text", "number"])
        for i in range(count):
            writer.writerow([f"2024-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z", f"t{i % 3}", TEXTS[i % 6], i])
    return path


def batch(
    model: Path, source: Path, output: Path, home: Path | None = None, version: int = 1, **settings: Any
) -> dict[str, Any]:
    """The account, with `anew`, the reason why earlier work was not used."""
    chosen = Model(model, "tiny", "tiny", version) if home else Model(model, str(model))
    work = Work(output)
    with work.locked():
        one = Batch(work, chosen, source, Settings(**settings), home)
        return {**one.predict(lambda *_: None), "anew": one.anew}


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:5]]
    batch(*paths, chunk_rows=20, topic="topic", time="when")
