"""Which rows of a new file a model in use can learn from, and why not the others: one verdict for each row."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stillhouse.data._clean import Form, as_label, as_number, as_text, clean_text, storable
from stillhouse.data._tables import ROW, SPOILED, Batch
from stillhouse.errors import UserError, nearest
from stillhouse.json_values import plain

REASONS = {
    "malformed": "the row could not be read",
    "no_text": "no text",
    "garbage": "most of the text is no text",
    "too_long": "the text is too long",
    "no_label": "no label",
    "left_out_label": "a label that the recipe leaves out",
    "unknown_label": "a label that the model does not know",
    "low_confidence": "less confidence than the recipe wants",
    "no_id": "no id",
    "unknown_id": "an id that is not in the prediction log",
    "text_not_kept": "the prediction log did not keep the text",
}
"""Why a row was set aside."""
LONGEST_TEXT = 100_000
"""Characters; longer is a file that was split wrongly, not a text."""
GARBAGE_SHARE = 0.3
"""Of unprintable and replacement characters, white space aside."""
_JOINERS = re.compile("[\u200c\u200d]")
"""Zero-width, and part of emoji and of several scripts."""


@dataclass(frozen=True)
class Schema:
    """What the rows for a model must be like: columns by name, labels it knows, what its recipe does to them."""

    text: str = "text"
    label: str = "label"
    labels: tuple[str, ...] = ()
    renamed: dict[str, str | None] = field(default_factory=dict)
    """Labels that the recipe renames (None: rows of it are left out)."""
    confidence: str | None = None
    min_confidence: float = 0.0
    normalize: Form = "NFC"
    grow: bool = False
    """Take labels that the model does not know."""


@dataclass(frozen=True)
class Columns:
    """Where a file has what is needed; `label` may be missing (rows without labels), `text` too (labels by id)."""

    text: str | None
    label: str | None
    id: str | None


@dataclass(frozen=True)
class Judged:
    """One row: good when `reason` is ""."""

    row: int
    reason: str
    text: str | None
    label: str | None
    id: str | None
    content: dict[str, Any]
    """Its other columns; of a bad row everything, as it was."""


def find_columns(batch: Batch, schema: Schema, wanted: Columns, name: str) -> Columns:
    """The columns of a file: those that were asked for, else those of the recipe, else `text`, `label`, `id`."""
    there = [column for column in batch if column not in (ROW, SPOILED)]
    for column in (wanted.text, wanted.label, wanted.id):
        if column is not None and column not in there:
            raise UserError(f'{name} has no column "{column}"', nearest(column, set(there)))
    found = Columns(
        wanted.text or _first(there, schema.text, "text"),
        wanted.label or _first(there, schema.label, "label"),
        wanted.id or _first(there, "id"),
    )
    if found.text is not None and found.text == found.label:
        raise UserError(f'{name}: the column "{found.text}" is text and label at once', "Name two columns")
    if found.text is None and (found.label is None or found.id is None):
        raise UserError(
            f'{name} has no column "{schema.text}"; it has {", ".join(there) or "none"}',
            "Name the text's with --text; a file of labels for logged predictions has the columns id and label",
        )
    return found


def _first(there: list[str], *names: str) -> str | None:
    return next((name for name in names if name in there), None)


def judge(batch: Batch, schema: Schema, columns: Columns) -> Iterator[Judged]:
    """A verdict for every row of a batch read with `Layout(marked=True)`, in order."""
    own = {columns.text, columns.label, columns.id}
    names = [name for name in batch if name not in (ROW, SPOILED)]
    for position, number in enumerate(batch[ROW]):
        spoiled = batch[SPOILED][position] if SPOILED in batch else None
        if spoiled is not None:
            yield Judged(number, "malformed", None, None, None, {"unreadable": plain(spoiled)})
            continue
        row = {name: batch[name][position] for name in names}
        text, label, reason = _verdict(row, schema, columns)
        identity = as_text(row[columns.id]) if columns.id else None
        if columns.text is None and not reason and not (identity or "").strip():
            reason = "no_id"
        kept = row if reason else {name: value for name, value in row.items() if name not in own}
        yield Judged(number, reason, text, label, _stored(identity), {name: plain(kept[name]) for name in kept})


def _verdict(row: dict[str, Any], schema: Schema, columns: Columns) -> tuple[str | None, str | None, str]:
    """(text, label, reason)."""
    text: str | None = None
    if columns.text is not None:
        text, wrong = judge_text(as_text(row[columns.text]) or "", schema.normalize)
        if wrong:
            return None, None, wrong
    label = as_label(row[columns.label]) if columns.label else None
    if label is None:
        return text, None, "no_label"
    if label in schema.renamed:
        label = schema.renamed[label]
    if label is None:
        return text, None, "left_out_label"
    if label not in schema.labels and not schema.grow:
        return text, label, "unknown_label"
    if schema.confidence and schema.confidence in row:
        sure = as_number(row[schema.confidence])
        if sure is not None and sure < schema.min_confidence:
            return text, label, "low_confidence"
    return text, label, ""


def judge_text(raw: str, form: Form) -> tuple[str | None, str]:
    """(the text as it is stored, ""), or (None, what is wrong with it)."""
    text = clean_text(raw, form)
    if not _JOINERS.sub("", text):
        return None, "no_text"
    if _is_garbage(raw):
        return None, "garbage"
    return (None, "too_long") if len(text) > LONGEST_TEXT else (text, "")


def _is_garbage(text: str) -> bool:
    solid = _JOINERS.sub("", "".join(text.split()))
    wrong = sum(not character.isprintable() or character == "\ufffd" for character in solid)
    return wrong > GARBAGE_SHARE * len(solid)


def _stored(text: str | None) -> str | None:
    return text if text is None else storable(text)
