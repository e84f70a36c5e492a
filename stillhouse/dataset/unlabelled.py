"""Texts that came without a label: set aside, and on request something that only the teachers explain."""

from pathlib import Path

import pyarrow as pa

from stillhouse.dataset.data_set import DataSet, read_rejected, write_parquet

FEWEST = 100
"""Distinct texts; with fewer a preparation cannot split them, and a distillation would hardly notice."""


def unlabelled_texts(data_set: DataSet, until: int) -> list[str]:
    """Distinct texts of the rows without a label in the additions up to `until`, sorted."""
    found: set[str] = set()
    for entry in data_set.manifest()["epochs"]:
        if entry["number"] <= until and entry["rejected"].get("no_label"):
            rows = read_rejected(data_set.root / entry["rejected_file"])
            found.update(row["text"] for row in rows if row["reason"] == "no_label" and row["text"])
    return sorted(found)


def write_unlabelled(data_set: DataSet, until: int, labels: list[str]) -> Path | None:
    """A Parquet file of these texts for the slot `extra`; None when there are too few.

    The column `label` only satisfies the preparation, which wants to see two classes: the slot hides all labels.
    """
    texts = unlabelled_texts(data_set, until)
    if len(texts) < FEWEST:
        return None
    path = data_set.root / "joined" / f"unlabelled-{until:04d}.parquet"
    placeholders = [labels[position % len(labels)] for position in range(len(texts))]
    write_parquet(path, pa.table({"text": texts, "label": placeholders}))
    return path
