"""Everything that a preparation reads, cleaned and spooled: the source, given splits, the previous data."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.data._clean import as_text, storable
from stillhouse.data._decide import Index, Role
from stillhouse.data._places import Part, Reading, open_parts
from stillhouse.data._spool import RESERVED, Spool
from stillhouse.data._tables import Batch
from stillhouse.data.read import load_info, load_labels
from stillhouse.errors import UserError, nearest
from stillhouse.method import Job, Source

_PREVIOUS = {Role.TRAIN_PREVIOUS: "train", Role.VALIDATION_PREVIOUS: "validation", Role.TEST_PREVIOUS: "test"}
Cleaned = tuple[list[int], list[str], list[str], dict[str, list[Any]]]
"""(positions of the rows kept, their normalised texts, one string per distinct label, columns to store)."""


@dataclass(frozen=True)
class Preparation:
    """What differs from problem to problem."""

    problem: str
    reading: Callable[[Counter[str]], Reading]
    """Given where to count what was repaired or left out."""
    columns: dict[str, str]
    """`{what: name in the source}` of the columns that must be there."""
    schema: pa.Schema
    """Of the columns that `clean` returns."""
    label_column: str
    clean: Callable[[Batch, Counter[str]], Cleaned]
    order_labels: Callable[[list[str]], list[str]]
    class_of: Callable[[str], str | None]
    """The class that a label counts for in the report; None: for none."""
    threshold: float | None
    max_train_rows: int
    stratified: bool
    notes: Callable[[Counter[str]], list[str]]
    """Warnings of its own, from the counts."""
    normalize: str | None
    """Unicode form of the texts; travels with every model trained on them."""
    licence: str | None
    language: str | None


@dataclass(frozen=True)
class _Incoming:
    role: Role
    name: str
    part: Part
    asked: bool
    """By a setting of its own: then it must have rows."""


def read_all(job: Job, how: Preparation, counts: Counter[str], path: Path) -> tuple[pa.Table, Index, np.ndarray]:
    incoming = _incoming(job, how, counts)
    batches = incoming[0].part()
    first = next(batches, {})
    incoming[0] = replace(incoming[0], part=lambda: chain([first], batches))
    _require(first, how, incoming[0].name)
    content = {column for what, column in how.columns.items() if what in how.schema.names}
    extras = _extra_names([name for name in first if name not in content])
    previous = job.path("previous") if job.has("previous") else None
    older = pq.read_schema(previous / "train.parquet").names if previous else []
    stored = list(dict.fromkeys([*extras.values(), *(name for name in older if name not in RESERVED)]))
    origin = {**dict.fromkeys(stored, ""), **{new: old for old, new in extras.items()}}
    spool = Spool(path, pa.schema([*how.schema, *((name, pa.string()) for name in stored)]), job.seed)
    for each in incoming:
        before = counts["usable"]
        for batch in each.part():
            _require(batch, how, each.name)
            _add(spool, each.role, how.clean(batch, counts), batch, origin)
            counts["usable"] = counts["read"] - _lost(counts)
            job.progress(counts["read"], 0, f"reading {each.name}")
        if each.asked and counts["usable"] == before:
            raise UserError(f"{each.name}: none of its rows can be used", "Check its text and label columns")
    if previous:
        for role, split in _PREVIOUS.items():
            for texts, keys, columns in _previous_batches(previous, split, how, stored):
                counts["read"] += len(texts)
                spool.add(role, texts, keys, columns)
    return spool.finish()


def check_columns(sources: dict[str, Source], how: Preparation) -> None:
    """What `read_all` would say of the first rows' columns; what must be fetched first is not asked."""
    for source in sources.values():
        if source.path is not None:
            counts: Counter[str] = Counter()
            parts = open_parts(source, Path(), how.reading(counts), counts)
            _require(next(parts["train"](), {}), how, source.name)


def _lost(counts: Counter[str]) -> int:
    return sum(counts[reason] for reason in ("empty", "no_label", "mapped_to_null", "low_confidence"))


def _add(spool: Spool, role: Role, cleaned: Cleaned, batch: Batch, origin: dict[str, str]) -> None:
    """`origin`: column of the source for each further column to store, `""` where only the previous data has it."""
    kept, texts, labels, columns = cleaned
    if not kept:
        return
    for name, column in origin.items():
        values = batch.get(column) if column else None
        columns[name] = [_extra(values[row]) for row in kept] if values else [None] * len(kept)
    spool.add(role, texts, labels, columns)


def _extra(value: Any) -> str | None:
    text = as_text(value)
    return text if text is None else storable(text)


def _incoming(job: Job, how: Preparation, counts: Counter[str]) -> list[_Incoming]:
    source = job.sources["source"]
    reading = how.reading(counts)
    downloads = job.scratch / "downloads"
    parts = open_parts(source, downloads, reading, counts)
    incoming = [_Incoming(Role.NEW, source.name, parts["train"], False)]
    for split, role in (("validation", Role.VALIDATION_GIVEN), ("test", Role.TEST_GIVEN)):
        if own := job.sources.get(split):
            held_out = open_parts(own, downloads, replace(reading, given_splits=True), counts)
            incoming.append(_Incoming(role, own.name, held_out.get(split) or held_out["train"], True))
        elif split in parts:
            incoming.append(_Incoming(role, f"{source.name} ({split})", parts[split], False))
    return incoming


def _require(batch: Batch, how: Preparation, name: str) -> None:
    for what, column in how.columns.items():
        if column not in batch:
            raise UserError(f'{name} has no column "{column}" (setting {what})', nearest(column, set(batch)))


def _extra_names(columns: list[str]) -> dict[str, str]:
    """`{column: name to store it under}`: the artifact's own names stay its own."""
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in RESERVED or name in names.values() or (name != column and name in columns):
            name = f"source_{name}"
        names[column] = name
    return names


def previous_labels(job: Job, problem: str) -> list[str]:
    """Labels of the previous data, in their order: a model trained on it keeps its outputs."""
    if not job.has("previous"):
        return []
    found = load_info(job.path("previous"))["problem"]
    if found != problem:
        raise UserError(f"the previous data is for {found}, this step prepares {problem}", "Give data of one problem")
    return load_labels(job.path("previous"))


def _previous_batches(
    directory: Path, split: str, how: Preparation, stored: list[str]
) -> Iterator[tuple[list[str], list[str], dict[str, list[Any]]]]:
    """Rows prepared before: cleaned already, and in a split that they keep."""
    labels = load_labels(directory)
    content = how.schema.names[0]
    with pq.ParquetFile(directory / f"{split}.parquet") as file:
        for batch in file.iter_batches():
            rows = batch.to_pydict()
            names = [_label_names(value, labels) for value in rows[how.label_column]]
            texts = [text if isinstance(text, str) else " ".join(text) for text in rows[content]]
            keys = [name if isinstance(name, str) else " ".join(name) for name in names]
            further = {name: rows.get(name, [None] * len(texts)) for name in stored}
            yield texts, keys, {content: rows[content], how.label_column: names, **further}


def _label_names(value: Any, labels: list[str]) -> Any:
    return labels[value] if isinstance(value, int) else [labels[item] for item in value]
