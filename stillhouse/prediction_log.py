"""The prediction log of a model: what it was asked and what it said, for monitoring and for labels that come later.

Layout under `HOME/predictions/NAME`: `YYYY-MM-DD/PART.parquet` (the day, in UTC, of the part's first row) and
`labels/PART.parquet`. A part is written whole or not at all, and once: the same name again replaces it.
"""

import os
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stillhouse.errors import UserError
from stillhouse.files import flush

SCHEMA = pa.schema(
    [
        ("time", pa.float64()), ("id", pa.string()), ("version", pa.int64()), ("text", pa.string()),
        ("topic", pa.string()), ("label", pa.string()), ("unsure", pa.bool_()), ("run", pa.string()),
    ]
)  # fmt: skip
"""Columns that every part has; a frame that lacks one gets nulls. Beside them `p_LABEL` and perhaps `embedding`."""
LABELS = pa.schema([("id", pa.string()), ("label", pa.string()), ("time", pa.float64())])
DAY_SECONDS = 86400.0
LONGEST_WRITE = 3600.0
"""Seconds from a part's last byte to its place."""
_PLAIN = re.compile(r"\w[\w .+@=-]*")


class PredictionLog:
    """The log of the registered model `name`. Cheap to make; holds no open file; many processes may append."""

    def __init__(self, home: Path, name: str) -> None:
        _check(name)
        self.root = home / "predictions" / name

    def append(self, frame: pd.DataFrame, part: str) -> Path:
        """Write `frame` (at least `time`, epoch seconds, and `id`) as the part `part`; where that exists, replace it.

        A part keeps its place when it is written again, whatever the times in it, so that nothing is there twice.
        """
        _check(part)
        day = datetime.fromtimestamp(float(np.min(frame["time"].to_numpy(float))) if len(frame) else time.time(), UTC)
        there = next(iter(self.root.glob(f"????-??-??/{part}.parquet")), None)
        path = there or self.root / day.strftime("%Y-%m-%d") / f"{part}.parquet"
        _write(_table(frame), path)
        return path

    def read(
        self, start: float | None = None, end: float | None = None, columns: list[str] | None = None
    ) -> pd.DataFrame:
        """Rows with `start <= time < end`, sorted by time (equal times in the order of parts, then of rows).

        `columns` picks some; one that no part has is left out. Only by name there is `arrived`, when a row's part came.
        """
        wanted = None if columns is None else list(dict.fromkeys(["time", *columns]))
        tables = [table for path in self._days(end) if (table := _read(path, start, end, wanted)) is not None]
        schema = SCHEMA.append(pa.field("arrived", pa.float64())) if "arrived" in (columns or ()) else SCHEMA
        whole = pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive")
        if columns is not None:
            whole = whole.select([name for name in dict.fromkeys(["time", *columns]) if name in whole.column_names])
        found = whole.to_pandas().sort_values("time", kind="stable", ignore_index=True)
        return found if columns is None else found[[name for name in columns if name in found.columns]]

    def add_labels(self, frame: pd.DataFrame, part: str) -> int:
        """Add true labels (columns `id`, `label`, and `time` if another than now); returns how many rows."""
        _check(part)
        kept = frame[["id", "label"]].astype(str)
        kept["time"] = frame["time"].astype(float) if "time" in frame else time.time()
        _write(
            pa.Table.from_pandas(kept, schema=LABELS, preserve_index=False), self.root / "labels" / f"{part}.parquet"
        )
        return len(kept)

    def labels(self) -> pd.DataFrame:
        """`id`, `label`, `time`, sorted by id; of several labels of one id the last."""
        parts = (_read(path, None, None, None) for path in sorted(self.root.glob("labels/*.parquet")))
        tables = [table for table in parts if table is not None]
        frame = pa.concat_tables([LABELS.empty_table(), *tables]).to_pandas()
        frame = frame.sort_values("time", kind="stable").drop_duplicates("id", keep="last")
        return frame.sort_values("id", ignore_index=True)

    def prune(self, keep_days: float) -> int:
        """Remove the parts, of labels too, that were written, and whose rows are from, before the last `keep_days`.

        Returns how many. Old rows that were logged today stay as long as those of today.
        """
        oldest, removed = time.time() - keep_days * DAY_SECONDS, 0
        for path in [*self._days(None), *sorted(self.root.glob("labels/*.parquet"))]:
            if (newest := _newest(path)) is not None and newest < oldest:
                path.unlink(missing_ok=True)
                removed += 1
        last_day = datetime.fromtimestamp(oldest, UTC).strftime("%Y-%m-%d")
        for day in self.root.glob("????-??-??"):
            if day.name < last_day and not any(day.iterdir()):
                day.rmdir()
        return removed

    def _days(self, end: float | None) -> Iterable[Path]:
        """The parts that may hold rows before `end`, by day and name."""
        last = "9999-99-99" if end is None else datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d")
        return [path for path in sorted(self.root.glob("????-??-??/*.parquet")) if path.parent.name <= last]


def _check(word: str) -> None:
    if not _PLAIN.fullmatch(word):
        raise ValueError(f"{word!r} cannot name a file of the prediction log")


def _table(frame: pd.DataFrame) -> pa.Table:
    """`frame` with the columns of the log in their types; columns of no meaning to it are refused."""
    fields = list(SCHEMA)
    for name in frame.columns:
        if name.startswith("p_"):
            fields.append(pa.field(name, pa.float32()))
        elif name == "embedding":
            fields.append(pa.field(name, pa.list_(pa.float16())))
        elif name not in SCHEMA.names:
            raise ValueError(f"the prediction log has no column {name!r}")
    columns = {
        field.name: pa.array(frame[field.name], field.type, from_pandas=True)
        if field.name in frame
        else pa.nulls(len(frame), field.type)
        for field in fields
    }
    return pa.table(columns, schema=pa.schema(fields))


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")  # ends differently: no reader takes it for a part
    pq.write_table(table, beside, compression="zstd")
    flush(beside)
    os.replace(beside, path)
    flush(path.parent)


def _read(path: Path, start: float | None, end: float | None, columns: list[str] | None) -> pa.Table | None:
    """The rows of a part in time; None where there are none, or where another process just removed it."""
    conditions = [("time", sign, value) for sign, value in ((">=", start), ("<", end)) if value is not None]
    try:
        arrived = _arrival(path)
        own = None
        if columns is not None:
            there = pq.read_schema(path).names
            own = [name for name in columns if name in there]
        table = pq.read_table(path, columns=own, filters=conditions or None)
        if columns is not None and "arrived" in columns:
            table = table.append_column("arrived", pa.array([arrived] * len(table), pa.float64()))
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})", "Move it away; its rows are lost") from None
    return table if table.num_rows else None


def _arrival(path: Path) -> float:
    """When a part was put into its place: on Linux and macOS a renamed file's status changes. Not so of a log that was
    copied or brought back from elsewhere, whose parts were written long before."""
    status = path.stat()
    return status.st_ctime if status.st_ctime - status.st_mtime < LONGEST_WRITE else status.st_mtime


def _newest(path: Path) -> float | None:
    """The largest time in a part, or that of its file where later."""
    try:
        metadata = pq.read_metadata(path)
        place = metadata.schema.names.index("time")
        known = [metadata.row_group(i).column(place).statistics for i in range(metadata.num_row_groups)]
        return max([path.stat().st_mtime, *(one.max for one in known if one is not None and one.has_min_max)])
    except (OSError, pa.ArrowException, ValueError):  # gone, or damaged: who reads it says so
        return None
