"""How tagged sentences are read and cleaned."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from stillhouse.data._clean import as_text
from stillhouse.data._conll import clean_words, sentences, to_bio
from stillhouse.data._intake import Cleaned, Preparation
from stillhouse.data._places import Reading
from stillhouse.data._tables import SUFFIXES, Batch, Layout, table_batches
from stillhouse.data.tokens import Tokens
from stillhouse.errors import UserError

_CONLL_SUFFIXES = frozenset({".conll", ".conllu", ".bio", ".iob", ".iob2", ".txt", ".tsv"})
_ROW_SUFFIXES = frozenset({".jsonl", ".ndjson", ".parquet"})
_BATCH = 2_000
_LONG = 1_000


def token_preparation(settings: Tokens) -> Preparation:
    return Preparation(
        problem="token-classification",
        reading=lambda counts: Reading(
            file=lambda path: _read_file(settings, path, counts),
            suffixes=_CONLL_SUFFIXES | _ROW_SUFFIXES,
            subset=settings.subset,
            given_splits=settings.given_splits,
        ),
        columns={"words": settings.words, "tags": settings.tags},
        schema=pa.schema([("words", pa.list_(pa.string())), ("tags", pa.list_(pa.string()))]),
        label_column="tags",
        clean=partial(_clean, settings),
        order_labels=order_tags,
        class_of=lambda tag: tag[2:] if tag.startswith("B-") else None,
        threshold=settings.near_duplicate_threshold if settings.near_duplicates else None,
        max_train_rows=settings.max_train_rows,
        stratified=False,
        notes=_notes,
        normalize=settings.normalize,
        licence=settings.licence,
        language=settings.language,
    )


def order_tags(tags: list[str]) -> list[str]:
    """`O`, then B and I of each type: both, also where no entity has a second word, so that no later row is unknown."""
    kinds = sorted({tag[2:] for tag in tags if tag != "O"})
    return ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]


def _read_file(settings: Tokens, path: Path, counts: Counter[str]) -> Iterator[Batch]:
    suffix = path.suffix.lower()
    form = settings.format or (SUFFIXES[suffix] if suffix in _ROW_SUFFIXES else "conll")
    if form != "conll":
        yield from table_batches(path, Layout(form), counts)
        return
    words: list[Any] = []
    tags: list[Any] = []
    for sentence, marks in sentences(path, settings.word_column, settings.tag_column, counts):
        words.append(sentence)
        tags.append(marks)
        if len(words) == _BATCH:
            yield {settings.words: words, settings.tags: tags}
            words, tags = [], []
    yield {settings.words: words, settings.tags: tags}


def _clean(settings: Tokens, batch: Batch, counts: Counter[str]) -> Cleaned:
    kept: list[int] = []
    all_words: list[list[str]] = []
    all_tags: list[list[str]] = []
    counts["read"] += len(batch[settings.words])
    for row, (raw, marks) in enumerate(zip(batch[settings.words], batch[settings.tags], strict=True)):
        if not raw:
            counts["empty"] += 1
            continue
        if not marks or None in marks:
            counts["no_label"] += 1
            continue
        if not isinstance(raw, list) or not isinstance(marks, list):
            raise UserError(
                f'the columns "{settings.words}" and "{settings.tags}" must hold lists', "One item for each word"
            )
        if len(raw) != len(marks):
            counts["read"] -= 1
            counts["malformed"] += 1
            continue
        words, tags = clean_words([as_text(word) or "" for word in raw], list(map(str, marks)), settings.normalize)
        if not words:
            counts["empty"] += 1
            continue
        counts["long_sentences"] += len(words) > _LONG
        kept.append(row)
        all_words.append(words)
        all_tags.append(to_bio(tags, counts))
    columns = {"words": all_words, "tags": all_tags}
    return kept, [" ".join(words) for words in all_words], [" ".join(tags) for tags in all_tags], columns


def _notes(counts: Counter[str]) -> list[str]:
    notes = []
    if counts["tags_inside_without_begin"]:
        notes.append(f"{counts['tags_inside_without_begin']} entities began with I: made B")
    if counts["tags_other_scheme"]:
        notes.append(f"{counts['tags_other_scheme']} tags of the BIOES or BILOU scheme rewritten as BIO")
    if counts["tags_unknown_prefix"]:
        notes.append(f"{counts['tags_unknown_prefix']} tags without a known prefix read as inside an entity")
    if counts["long_sentences"]:
        notes.append(f"{counts['long_sentences']} sentences have over {_LONG} words: are there blank lines between?")
    return notes
