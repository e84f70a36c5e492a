"""How labelled texts are read and cleaned."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from stillhouse.data._clean import as_label, as_number, as_text, clean_text
from stillhouse.data._intake import Cleaned, Preparation
from stillhouse.data._places import Reading
from stillhouse.data._tables import SUFFIXES, Batch, Layout, table_batches
from stillhouse.data.text import Text
from stillhouse.errors import UserError


def text_preparation(settings: Text) -> Preparation:
    columns = {"text": settings.text, "label": settings.label}
    if settings.confidence:
        columns["confidence"] = settings.confidence
    return Preparation(
        problem="text-classification",
        reading=lambda counts: Reading(
            file=lambda path: _read_file(settings, path, counts),
            suffixes=frozenset() if settings.format == "folders" else frozenset(SUFFIXES),
            subset=settings.subset,
            given_splits=settings.given_splits,
            text=settings.text,
            label=settings.label,
            folders=settings.format in (None, "folders"),
        ),
        columns=columns,
        schema=pa.schema([("text", pa.string()), ("label", pa.string())]),
        label_column="label",
        clean=partial(_clean, settings),
        order_labels=order_labels,
        class_of=lambda label: label,
        threshold=settings.near_duplicate_threshold if settings.near_duplicates else None,
        max_train_rows=settings.max_train_rows,
        stratified=True,
        notes=partial(_notes, settings),
        normalize=settings.normalize,
        licence=settings.licence,
        language=settings.language,
    )


def order_labels(labels: list[str]) -> list[str]:
    """Sorted by name; by value where all are whole numbers."""
    numeric = all(label.lstrip("-").isdecimal() for label in labels)
    return sorted(set(labels), key=(lambda label: (int(label), label)) if numeric else None)


def _read_file(settings: Text, path: Path, counts: Counter[str]) -> Iterator[Batch]:
    if settings.format == "folders":
        raise UserError(f'{path} is a file, but format is "folders"', "Name a directory, or leave format out")
    form = None if settings.format == "hub" else settings.format
    names = tuple(settings.column_names) if settings.column_names else None
    return table_batches(path, Layout(form, settings.delimiter, names), counts)


def _clean(settings: Text, batch: Batch, counts: Counter[str]) -> Cleaned:
    kept: list[int] = []
    texts: list[str] = []
    labels: list[str] = []
    confidences = batch[settings.confidence] if settings.confidence else None
    counts["read"] += len(batch[settings.text])
    for row, (raw, label) in enumerate(zip(batch[settings.text], map(as_label, batch[settings.label]), strict=True)):
        text = clean_text(as_text(raw) or "", settings.normalize)
        if not text:
            counts["empty"] += 1
            continue
        if label is None:
            counts["no_label"] += 1
            continue
        if settings.labels and label in settings.labels:
            counts[f"mapped {label}"] += 1
            label = settings.labels[label]
        if label is None:
            counts["mapped_to_null"] += 1
            continue
        if confidences and not _sure(confidences[row], settings.min_confidence, counts):
            counts["low_confidence"] += 1
            continue
        kept.append(row)
        texts.append(text)
        labels.append(label)
    return kept, texts, labels, {"text": texts, "label": labels}


def _sure(confidence: object, least: float, counts: Counter[str]) -> bool:
    """A row without a confidence stays: nobody doubted it."""
    number = as_number(confidence)
    counts["without_confidence"] += number is None
    return number is None or number >= least


def _notes(settings: Text, counts: Counter[str]) -> list[str]:
    unused = [label for label in settings.labels or {} if not counts[f"mapped {label}"]]
    notes = [f"labels names {', '.join(unused)}, which no row has"] if unused else []
    if settings.min_confidence and counts["without_confidence"]:
        notes.append(f"{counts['without_confidence']} rows without a confidence were kept")
    return notes
