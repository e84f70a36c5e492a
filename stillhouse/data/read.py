"""Reading prepared data. Needs pandas and pyarrow, nothing else."""

from pathlib import Path
from typing import Any

import pandas as pd

from stillhouse.files import read_json

SPLITS = ("train", "validation", "test")


def load_split(directory: Path, split: str, columns: list[str] | None = None) -> pd.DataFrame:
    """One split of a `data` artifact, one row per example; `columns` picks some, in that order."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: one of {', '.join(SPLITS)}")
    return pd.read_parquet(directory / f"{split}.parquet", columns=columns, engine="pyarrow")


def held_out_ids(directory: Path) -> set[str]:
    """Ids of the validation and test rows, and nothing else of them: for who must keep them out of a training."""
    return {row for split in ("validation", "test") for row in load_split(directory, split, columns=["id"])["id"]}


def load_labels(directory: Path) -> list[str]:
    """Names of the labels; a row's `label` (or `tags`) holds positions in this list."""
    return read_json(directory / "labels.json")


def load_info(directory: Path) -> dict[str, Any]:
    """`data.json`: problem, columns, source, report."""
    return read_json(directory / "data.json")
