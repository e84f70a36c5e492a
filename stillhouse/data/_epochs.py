"""When each row came: 0 with the first data, one more with every addition to data prepared before."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.data._decide import Index
from stillhouse.data.read import SPLITS


def epochs_of(index: Index, previous: Path | None) -> np.ndarray:
    """The epoch of every row of `index`, int32: that of the same text in `previous`, or one more than the largest."""
    if previous is None:
        return np.zeros(len(index.ids), dtype=np.int32)
    ids, epochs = _known(previous)
    order = np.argsort(ids)
    place = np.searchsorted(ids, index.ids, sorter=order)
    nearest = order[np.minimum(place, len(ids) - 1)]
    found = np.where(ids[nearest] == index.ids, epochs[nearest], epochs.max() + 1)
    return found.astype(np.int32)


def _known(previous: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids (`S32`) and epochs of all rows of an artifact; data made before there were epochs is epoch 0."""
    ids, epochs = [], []
    for split in SPLITS:
        path = previous / f"{split}.parquet"
        schema = pq.read_schema(path)
        # A string column of that name is one of the source, from before the name was taken.
        has = "epoch" in schema.names and pa.types.is_integer(schema.field("epoch").type)
        table = pq.read_table(path, columns=["id", "epoch"] if has else ["id"])
        ids += [bytes.fromhex(row) for row in table["id"].to_pylist()]
        epochs.append(table["epoch"].to_numpy() if has else np.zeros(len(table), dtype=np.int64))
    return np.array(ids, dtype="S32"), np.concatenate(epochs)
