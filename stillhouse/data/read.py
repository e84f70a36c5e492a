"""Reading prepared data, and files to be predicted. Needs pandas and pyarrow, nothing else."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from stillhouse.data._clean import as_text
from stillhouse.data._tables import Layout, table_batches
from stillhouse.errors import UserError, nearest
from stillhouse.files import read_json

SPLITS = ("train", "validation", "test")


def load_split(directory: Path, split: str, columns: list[str] | None = None) -> pd.DataFrame:
    """One split of a `data` artifact, one row per example; `columns` picks some, in that order."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: one of {', '.join(SPLITS)}")
    return pd.read_parquet(directory / f"{split}.parquet", columns=columns, engine="pyarrow")


def load_labels(directory: Path) -> list[str]:
    """Names of the labels; a row's `label` (or `tags`) holds positions in this list."""
    return read_json(directory / "labels.json")


def load_info(directory: Path) -> dict[str, Any]:
    """`data.json`: problem, columns, source, report."""
    return read_json(directory / "data.json")


def iter_rows(path: Path, text: str, chunk: int = 10_000, layout: Layout | None = None) -> Iterator[pd.DataFrame]:
    """The rows of a CSV, TSV, JSONL or Parquet file in their order, up to `chunk` at a time, none left out.

    Every frame has the column `text` as strings (`""` where it is missing) and all other columns as they are.
    """
    chosen = layout or Layout(keep_all=True)
    batches = table_batches(path, chosen, Counter(), chunk)
    first = next(batches, None)
    if first is None or text not in first:
        raise UserError(f'{path} has no column "{text}"', nearest(text, set(first or {})))
    for batch in chain([first], batches):
        if batch[text] or batch is first:
            yield pd.DataFrame({**batch, text: [as_text(value) or "" for value in batch[text]]})
