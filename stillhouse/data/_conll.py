"""CoNLL files: a word and its tag on each line, sentences apart by blank lines; tags of any scheme become BIO."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stillhouse.data._bytes import text_lines
from stillhouse.data._clean import Form, clean_text
from stillhouse.errors import UserError

_SCHEME = {"B": "B", "I": "I", "M": "I", "E": "I", "L": "I", "S": "B", "U": "B"}
_TAG = re.compile(r"(?P<prefix>[A-Za-z])-(?P<type>.+)")
_LIKE_TAG = re.compile(r"O|[BIESLUM]-\S+")


def sentences(
    path: Path, word_column: int, tag_column: int, counts: Counter[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """(words, tags as they are written) of each sentence; a sentence with an unreadable line counts as `malformed`."""
    words: list[str] = []
    tags: list[str] = []
    broken = found = False
    for line in text_lines(path, counts):
        stripped = line.strip()
        if stripped and not stripped.startswith("-DOCSTART-"):
            cells = [cell.strip() for cell in line.rstrip("\n").split("\t")] if "\t" in stripped else stripped.split()
            if not words and not broken and stripped.startswith("#") and not _LIKE_TAG.fullmatch(cells[-1]):
                continue  # a comment before a sentence
            if _has(cells, word_column) and _has(cells, tag_column) and len(cells) > 1:
                words.append(cells[word_column])
                tags.append(cells[tag_column])
                found = True
            else:
                broken = True
            continue
        if words and not broken:
            yield words, tags
        counts["malformed"] += broken
        words, tags, broken = [], [], False
    if words and not broken:
        yield words, tags
    counts["malformed"] += broken
    if not found:
        raise UserError(f"{path} has no line with a word and a tag", "Check word_column, tag_column and the file")


def _has(cells: list[str], column: int) -> bool:
    return -len(cells) <= column < len(cells)


def clean_words(words: list[str], tags: list[str], form: Form) -> tuple[list[str], list[str]]:
    """Words in normal form; a word of which nothing is left goes, with its tag."""
    cleaned = [clean_text(word, form) for word in words]
    kept = [position for position, word in enumerate(cleaned) if word]
    return [cleaned[position] for position in kept], [tags[position] for position in kept]


def to_bio(tags: list[str], counts: Counter[str]) -> list[str]:
    """The tags in BIO (IOB2: every entity begins with B).

    Understands BIO, IOB1, BIOES, BILOU and plain types. `counts` gets `tags_inside_without_begin`, `tags_other_scheme`
    (E, S, L, U, M) and `tags_unknown_prefix` (read as inside).
    """
    result = []
    open_type: str | None = None
    for tag in tags:
        prefix, kind = _parse(tag, counts)
        if kind is None:
            result.append("O")
            open_type = None
            continue
        begins = _SCHEME.get(prefix, "I") == "B" or kind != open_type
        if begins and prefix == "I":
            counts["tags_inside_without_begin"] += 1
        result.append(f"{'B' if begins else 'I'}-{kind}")
        open_type = None if prefix in "ESLU" and prefix else kind
    return result


def _parse(tag: str, counts: Counter[str]) -> tuple[str, str | None]:
    """(prefix, type); the type is None outside of entities."""
    tag = tag.strip()
    if tag in ("", "O", "o", "_"):
        return "", None
    match = _TAG.fullmatch(tag)
    prefix = match["prefix"].upper() if match else ""
    if match and prefix in _SCHEME:
        counts["tags_other_scheme"] += prefix in "MELSU"
        return prefix, match["type"]
    counts["tags_unknown_prefix"] += 1
    return "", match["type"] if match else tag
