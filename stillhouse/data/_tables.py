"""Files of rows and columns, read in batches of bounded size: CSV, TSV, JSONL, Parquet."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from stillhouse.data._bytes import text_lines
from stillhouse.errors import UserError

Batch = dict[str, list[Any]]
"""Columns of equal length."""

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
ROW, SPOILED = "\0row", "\0spoiled"
"""Columns that `Layout.marked` adds; no file has such names, a zero byte is no text."""
_LONGEST_FIELD = 1 << 24
_LONGEST_ROW = 2_000
"""Lines of one CSV row; more means a quotation mark that nobody closed."""
_DEEPEST = 100
"""Levels of a JSON object; what is deeper is no row, and deeper still no JSON library writes it again."""


@dataclass(frozen=True)
class Layout:
    """How a file is laid out."""

    format: str | None = None
    """csv, tsv, jsonl or parquet; None: by the suffix."""
    delimiter: str | None = None
    column_names: tuple[str, ...] | None = None
    """For a CSV or TSV file without a header line."""
    keep_all: bool = False
    """One row out for each row in: a row that cannot be read is an error, not a row less."""
    marked: bool = False
    """One row out for each row in, with two more columns: `ROW`, its number in the file (from 1; without header and
    blank lines, but for JSONL the line), and `SPOILED`, what stands there if it cannot be read (else None)."""


def table_batches(path: Path, layout: Layout, counts: Counter[str], rows: int = 10_000) -> Iterator[Batch]:
    """Batches of up to `rows` rows; `counts` gets `malformed` (rows left out) and what `text_lines` counts."""
    form = layout.format or SUFFIXES.get(path.suffix.lower())
    if form in ("csv", "tsv"):
        return _delimited(path, form, layout, counts, rows)
    if form == "jsonl":
        return _json_lines(path, layout, counts, rows)
    if form == "parquet":
        return _numbered(_parquet(path, rows)) if layout.marked else _parquet(path, rows)
    known = ", ".join(sorted(SUFFIXES))
    raise UserError(f'{path}: the suffix "{path.suffix}" names no known format', f"Set format, or use one of {known}")


def _delimited(path: Path, form: str, layout: Layout, counts: Counter[str], rows: int) -> Iterator[Batch]:
    delimiter = layout.delimiter or ("\t" if form == "tsv" else ",")
    csv.field_size_limit(_LONGEST_FIELD)
    lines = text_lines(path, counts)
    if form == "tsv":
        # A quotation mark in a TSV file is mostly just that: the csv module's rules would swallow what follows it.
        records = ([_unquote(field) for field in line.rstrip("\n").split(delimiter)] for line in lines)
    else:
        records = _csv_records(path, lines, delimiter)
    header = (
        list(layout.column_names) if layout.column_names else next((record for record in records if any(record)), [])
    )
    header = [name.strip() for name in header]
    _check_header(path, header, delimiter, layout)
    if layout.marked:
        records = _marked(records, len(header))
        header = [*header, ROW, SPOILED]
    pending: list[list[Any]] = []
    for record in records:
        if not layout.marked and _is_blank(record, len(header), layout.keep_all):
            continue
        if len(record) != len(header):
            if not layout.keep_all:
                counts["malformed"] += 1
                continue
            record = _fit(record, len(header), delimiter)
        pending.append(record)
        if len(pending) == rows:
            yield _columns(header, pending)
            pending = []
    yield _columns(header, pending)


def _marked(records: Iterable[list[str]], width: int) -> Iterator[list[Any]]:
    number = 0
    for record in records:
        if _is_blank(record, width, keep_all=True):
            continue
        number += 1
        yield [*record, number, None] if len(record) == width else [None] * width + [number, record]


def _numbered(batches: Iterator[Batch]) -> Iterator[Batch]:
    done = 0
    for batch in batches:
        count = len(next(iter(batch.values()), []))
        yield {**batch, ROW: list(range(done + 1, done + count + 1)), SPOILED: [None] * count}
        done += count


def _csv_records(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    marks = [0]
    reader = csv.reader(_count_marks(lines, marks), delimiter=delimiter)
    last, opened = 0, 0
    while True:
        try:
            record = next(reader)
        except StopIteration:
            if opened:  # the reader takes the end of the file for the end of the field
                raise _never_closed(path, opened) from None
            return
        except csv.Error as error:
            raise UserError(f"{path}, after line {last}: {error}", "Correct that line") from None
        if reader.line_num - last > _LONGEST_ROW:
            raise _never_closed(path, last + 1)
        opened = last + 1 if reader.line_num - last > 1 and marks[0] % 2 else 0
        last, marks[0] = reader.line_num, 0
        yield record


def _count_marks(lines: Iterable[str], marks: list[int]) -> Iterator[str]:
    for line in lines:
        marks[0] += line.count('"')
        yield line


def _never_closed(path: Path, line: int) -> UserError:
    return UserError(f"{path}: a quotation mark opened at line {line} is never closed", "Correct that line")


def _check_header(path: Path, header: list[str], delimiter: str, layout: Layout) -> None:
    if not header:
        raise UserError(f"{path} is empty", "Name a file with a header line and at least one row")
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated and not layout.column_names:
        raise UserError(f'{path} has two columns "{repeated[0]}"', "Rename one, or set column_names")
    other = next((mark for mark in (";", "\t", ",", "|") if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other and not layout.delimiter:
        fix = f"Write it with {delimiter!r} in place of {other!r}, or set delimiter in the recipe"
        raise UserError(f"{path} has one column only, {header[0]!r}", fix)


def _is_blank(record: list[str], width: int, keep_all: bool) -> bool:
    """An empty line; where every row counts, not one that says its fields are empty (`""`, `,,`)."""
    if not keep_all:
        return not any(record)
    return not record or (record == [""] and width > 1)


def _fit(record: list[str], width: int, delimiter: str) -> list[str]:
    """Pad a short row; a long one most often has an unquoted delimiter in its last column."""
    if len(record) < width:
        return record + [""] * (width - len(record))
    return [*record[: width - 1], delimiter.join(record[width - 1 :])]


def _unquote(field: str) -> str:
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _columns(header: list[str], records: list[list[str]]) -> Batch:
    if not records:
        return {name: [] for name in header}
    return dict(zip(header, map(list, zip(*records, strict=True)), strict=True))


def _json_lines(path: Path, layout: Layout, counts: Counter[str], rows: int) -> Iterator[Batch]:
    names: dict[str, None] = _field_names(path) if layout.keep_all else {}
    names.update(dict.fromkeys((ROW, SPOILED) if layout.marked else ()))
    pending: list[dict[str, Any]] = []
    read = 0
    for number, line in enumerate(text_lines(path, counts), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and not _is_too_deep(record, line):
            read += 1
            names.update(dict.fromkeys(record))
            pending.append({**record, ROW: number} if layout.marked else record)
        elif layout.keep_all or (read == 0 and not layout.marked):
            what = "is nested too deeply" if isinstance(record, dict) else "is not a JSON object"
            raise UserError(f"{path}, line {number} {what}", "Write one JSON object on each line")
        else:
            counts["malformed"] += 1
            if layout.marked:
                pending.append({ROW: number, SPOILED: line.rstrip("\n")})
        if len(pending) == rows:
            yield {name: [record.get(name) for record in pending] for name in names}
            pending = []
    if read == 0:
        what = "has no line that is a JSON object" if counts["malformed"] else "is empty"
        raise UserError(f"{path} {what}", "Write one JSON object on each line")
    yield {name: [record.get(name) for record in pending] for name in names}


def _is_too_deep(record: dict[str, Any], line: str) -> bool:
    if line.count("{") + line.count("[") <= _DEEPEST:
        return False
    level: list[Any] = [record]
    for _ in range(_DEEPEST):
        inner = chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level)
        level = [value for value in inner if isinstance(value, dict | list)]
    return bool(level)


def _field_names(path: Path) -> dict[str, None]:
    """All fields of the file in the order of their first use: the batches of one output need the same columns."""
    names: dict[str, None] = {}
    for line in text_lines(path, Counter()):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the pass that reads the rows says so
        if isinstance(record, dict):
            names.update(dict.fromkeys(record))
    return names


def _parquet(path: Path, rows: int) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"{path} is not a readable Parquet file: {reason}", "Write it again") from None
    with file:
        names = file.schema_arrow.names
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise UserError(f'{path} has two columns "{repeated[0]}"', "Rename one")
        empty = iter([{name: [] for name in names}])
        try:
            yield from chain((batch.to_pydict() for batch in file.iter_batches(batch_size=rows)), empty)
        # The latter two: text that is no UTF-8, dates that Python does not have.
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path} is damaged: {reason}", "Write it again") from None
