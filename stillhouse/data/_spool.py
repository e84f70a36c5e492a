"""Cleaned rows on disk, what decides about them in memory, and the finished splits."""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillhouse.data._decide import Index, Role, rank_of

_SLICE = 10_000
RESERVED = ("id", "text", "label", "words", "tags", "epoch")


class Spool:
    """Takes cleaned rows batch by batch into an Arrow file; memory grows by some 70 bytes a row, however long it is.

    Looking for near-duplicates takes 260 bytes a row more, afterwards.
    """

    def __init__(self, path: Path, schema: pa.Schema, seed: int) -> None:
        """`schema`: what a batch's `columns` hold, `id` apart."""
        self._path, self._seed = path, seed
        self._schema = pa.schema([pa.field("id", pa.string()), *schema])
        self._writer = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_file(self._writer, self._schema)
        self._ids = bytearray()
        self._ranks, self._labels, self._details = array("Q"), array("q"), array("Q")
        self._roles, self._words = array("b"), array("I")

    def add(self, role: Role, texts: list[str], labels: list[str], columns: dict[str, list[Any]]) -> None:
        """`texts` decide split and duplicates, `labels` (any string) contradictions; `columns` are what is kept."""
        digests = [hashlib.sha256(text.encode()) for text in texts]
        extras = [name for name in self._schema.names if name not in RESERVED]
        self._ids += b"".join(digest.digest() for digest in digests)
        self._ranks.extend(rank_of(text, self._seed) for text in texts)
        self._labels.extend(_short_hash(label, signed=True) for label in labels)
        rows = zip(*(columns[name] for name in extras), strict=True) if extras else [()] * len(texts)
        self._details.extend(_short_hash("\x1f".join(map(str, row))) for row in rows)
        self._roles.extend([role] * len(texts))
        self._words.extend(len(text.split()) for text in texts)
        filled = {"id": [digest.hexdigest() for digest in digests], **columns}
        self._stream.write(pa.record_batch([filled[name] for name in self._schema.names], schema=self._schema))

    def finish(self) -> tuple[pa.Table, Index, np.ndarray]:
        """(the rows, mapped from disk; their index; words of each)."""
        self._stream.close()
        self._writer.close()
        table = pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()
        index = Index(
            np.frombuffer(bytes(self._ids), dtype="S32"),
            np.asarray(self._ranks, dtype=np.uint64),
            np.asarray(self._labels, dtype=np.int64),
            np.asarray(self._details, dtype=np.uint64),
            np.asarray(self._roles, dtype=np.int8),
        )
        return table, index, np.asarray(self._words, dtype=np.int64)


def label_counts(table: pa.Table, rows: np.ndarray, column: str) -> dict[str, int]:
    """How often each label (or each tag in a list of them) occurs in `rows`."""
    counts: dict[str, int] = {}
    for part in _slices(table.select([column]), rows):
        values = _whole(part[column])
        values = values.flatten() if isinstance(values, pa.ListArray) else values
        for entry in values.value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


def write_split(
    table: pa.Table, rows: np.ndarray, epochs: np.ndarray, column: str, labels: list[str], path: Path
) -> None:
    """`rows` of `table` in that order as Parquet, labels replaced by their positions in `labels` (int32).

    Behind the labels comes `epoch` (int32): `epochs` [all rows of the table].
    """
    position = table.schema.get_field_index(column)
    nested = pa.types.is_list(table.schema.field(position).type)
    field = pa.field(column, pa.list_(pa.int32()) if nested else pa.int32())
    known = pa.array(labels, pa.string())
    added = pa.field("epoch", pa.int32())
    schema = table.schema.set(position, field).insert(position + 1, added)
    with pq.ParquetWriter(path, schema) as writer:
        for start, part in zip(range(0, len(rows), _SLICE), _slices(table, rows), strict=True):
            numbered = part.set_column(position, field, _numbered(part[column], known))
            came = pa.array(epochs[rows[start : start + _SLICE]], pa.int32())
            writer.write_table(numbered.add_column(position + 1, added, came))


def sorted_rows(index: Index, chosen: np.ndarray) -> np.ndarray:
    """Rows where `chosen` holds, by hash: the file does not depend on the order in which they came."""
    rows = np.flatnonzero(chosen)
    keys = (index.details[rows], index.labels[rows], index.ids[rows], index.ranks[rows])
    return rows[np.lexsort(keys)]


def text_reader(table: pa.Table, column: str) -> Callable[[int], str]:
    """The normalised text of a row: the text itself, or words joined by spaces."""
    values = table[column]
    if pa.types.is_list(values.type):
        return lambda row: " ".join(values[row].as_py())
    return lambda row: values[row].as_py()


def _numbered(values: pa.ChunkedArray, known: pa.Array) -> pa.Array:
    whole = _whole(values)
    among = pc.SetLookupOptions(value_set=known)
    if isinstance(whole, pa.ListArray):
        return pa.ListArray.from_arrays(whole.offsets, pc.call_function("index_in", [whole.values], among))
    return pc.call_function("index_in", [whole], among)


def _whole(values: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def _slices(table: pa.Table, rows: np.ndarray) -> Iterator[pa.Table]:
    for start in range(0, len(rows), _SLICE):
        yield table.take(pa.array(rows[start : start + _SLICE]))


def _short_hash(text: str, signed: bool = False) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), signed=signed)
