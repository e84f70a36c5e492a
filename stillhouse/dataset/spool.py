"""Judged rows on their way to the disk: good ones as Parquet, the others as JSONL, memory bounded by a batch."""

import json
import os
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.data._clean import as_text, storable
from stillhouse.dataset.data_set import CONTENT
from stillhouse.dataset.judge import Judged
from stillhouse.files import flush
from stillhouse.keys import file_digest

_BATCH = 10_000


class Spool:
    """Both files of one epoch, beside their places until `place`; whoever leaves without it leaves nothing."""

    def __init__(self, root: Path, number: int, source: str) -> None:
        self.source = source
        self.good = root / "epochs" / f"{number:04d}.parquet"
        self.bad = root / "rejected" / f"{number:04d}.jsonl"
        self.root, self.rows = root, 0
        self.reasons: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self._pending: list[Judged] = []
        self._names: list[str] | None = None
        self._writer: pq.ParquetWriter | None = None
        for path in (self.good, self.bad):
            path.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair, which no file can hold, becomes the JSON escape that it came as.
        self._rejects = self._beside(self.bad).open("w", encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        for path in (self.good, self.bad):
            self._beside(path).unlink(missing_ok=True)

    def add(self, rows: list[Judged]) -> None:
        """Take rows; those with a reason are set aside."""
        for row in rows:
            if row.reason:
                self.reasons[row.reason] += 1
                self._rejects.write(json.dumps(self._reject(row), ensure_ascii=False) + "\n")
            else:
                self._pending.append(row)
        if len(self._pending) >= _BATCH:
            self._write()

    def _reject(self, row: Judged) -> dict[str, Any]:
        return {
            "reason": row.reason, "source": self.source, "row": row.row, "text": row.text, "label": row.label,
            "id": row.id, "content": row.content,
        }  # fmt: skip

    def place(self) -> dict[str, Any]:
        """Move the files into place, flushed; the part of the entry that speaks of them."""
        self._write()
        self._close()
        entry: dict[str, Any] = {
            "rows": self.rows, "labels": dict(sorted(self.labels.items())), "file": None, "sha256": None,
            "rejected": dict(sorted(self.reasons.items())), "rejected_file": None,
        }  # fmt: skip
        if self.rows:
            entry["sha256"] = file_digest(self._beside(self.good))
            entry["file"] = self._move(self.good)
        if self.reasons:
            entry["rejected_file"] = self._move(self.bad)
        return entry

    def _move(self, path: Path) -> str:
        flush(self._beside(path))
        os.replace(self._beside(path), path)
        flush(path.parent)
        return path.relative_to(self.root).as_posix()

    def _write(self) -> None:
        """One row group; columns that only later batches have are not kept (a JSONL file may do that)."""
        if not self._pending:
            return
        if self._names is None:
            self._names = list(dict.fromkeys(name for row in self._pending for name in row.content))
        stored = _stored_names(self._names)
        columns: dict[str, list[Any]] = {
            "text": [row.text for row in self._pending], "label": [row.label for row in self._pending],
            "id": [_storable(row.id) for row in self._pending], "source_file": [self.source] * len(self._pending),
            "source_row": [str(row.row) for row in self._pending],
        }  # fmt: skip
        for name in self._names:
            columns[stored[name]] = [_storable(as_text(row.content.get(name))) for row in self._pending]
        table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._beside(self.good), table.schema)
        self._writer.write_table(table)
        self.rows += len(self._pending)
        self.labels.update(str(row.label) for row in self._pending)
        self._pending = []

    def _close(self) -> None:
        self._rejects.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(f".{path.name}.part")


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _stored_names(names: list[str]) -> dict[str, str]:
    """`{column of the file: name in the epoch}`: the epoch's own names stay its own."""
    stored: dict[str, str] = {}
    for name in names:
        other = storable(name)
        while other in CONTENT or other in stored.values() or (other != name and other in names):
            other = f"file_{other}"
        stored[name] = other
    return stored
