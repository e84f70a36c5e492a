"""Take one file into a data set: judge its rows, write an epoch, list it. Whole or not at all, and once for a content.

A kill leaves the data set as it was, or with the file in it: `dataset.json`, written last, decides. What an interrupted
attempt left lies under names that the next one writes over.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from stillhouse.data._tables import Layout, table_batches
from stillhouse.dataset.data_set import DataSet, Entry
from stillhouse.dataset.judge import Columns, Judged, Schema, find_columns, judge, judge_text
from stillhouse.dataset.spool import Spool
from stillhouse.errors import UserError
from stillhouse.events import reached
from stillhouse.keys import file_digest
from stillhouse.prediction_log import PredictionLog

Added = dict[str, Any]
"""An entry of the data set, and `known`: its content was there before."""


class Unfinished(UserError):
    """The file is still being written."""


class NotTheFile(UserError):
    """Something else than the file is wrong: it is not to be refused for that."""


def add_file(
    data_set: DataSet, path: Path, schema: Schema, wanted: Columns, source: str = "", *, again: bool = False
) -> Added:
    """Add the rows of the file at `path`, called `source`; raises `UserError` for a file that cannot be read at all.

    `again`: judge the rows of a known file anew that could not be used; the columns or labels asked for may be others
    now.
    """
    with data_set.lock():
        before = path.stat()
        sha256 = file_digest(path)
        known = data_set.known(sha256)
        only = data_set.set_aside(sha256) if known is not None and again and known.get("rows") else None
        if known is not None and (not again or only == set()):
            return {**known, "known": True}
        entry = _add(data_set, path, schema, wanted, source or path.name, sha256, only)
        if known is not None and only is not None and not entry["rows"]:
            (data_set.root / entry["rejected_file"]).unlink()
            return {**known, "known": True}
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Unfinished(f"{path} changed while it was read", "Wait until it is complete, then add it again")
        reached(data_set.home, "data.before-listing", name=data_set.name)
        data_set.commit(entry)
        reached(data_set.home, "data.after-listing", name=data_set.name)
    return {**entry, "known": False}


def refuse(data_set: DataSet, sha256: str, source: str, reason: str) -> None:
    """Remember a file that cannot be read, so that it is not tried for ever."""
    with data_set.lock():
        if data_set.known(sha256) is None:
            entry = {"source": source, "source_sha256": sha256, "reason": reason, "added": time.time()}
            data_set.commit(entry)


def _add(
    data_set: DataSet, path: Path, schema: Schema, wanted: Columns, source: str, sha256: str, only: set[int] | None
) -> Entry:  # fmt: skip
    """Write the files of the next epoch and describe it; `only`: these rows of the file, by number."""
    batches = table_batches(path, Layout(marked=True), Counter())
    first = next(batches, {})
    columns = find_columns(first, schema, wanted, source)
    number, kind = data_set.next_number(), "rows" if columns.text else "labels"
    part = f"labels-{sha256[:24]}" + (f"-{number}" if only is not None else "")  # beside what the log has of the file
    with Spool(data_set.root, number, source) as spool:
        judged = (
            [row for row in judge(batch, schema, columns) if only is None or row.row in only]
            for batch in chain([first], batches)
        )
        for rows in judged if kind == "rows" else _joined(data_set, judged, schema, part):
            spool.add(rows)
        reached(data_set.home, "data.before-files", name=data_set.name)
        written = spool.place()
    if not written["rows"] and not written["rejected"]:
        raise UserError(f"{source} has no rows", "Give a file with at least one")
    new = sorted(set(written["labels"]) - set(schema.labels))
    return {
        "number": number, "kind": kind, **written, "new_labels": new, "source": source, "source_sha256": sha256,
        "added": time.time(),
    }  # fmt: skip


def _joined(
    data_set: DataSet, batches: Iterable[list[Judged]], schema: Schema, part: str
) -> Iterator[list[Judged]]:  # fmt: skip
    """Rows of a file of ids and labels, with the texts that the prediction log has for the ids.

    What is good goes into the log too, as the part `part`, for who compares predictions with the truth.
    """
    log = PredictionLog(data_set.home, data_set.name)
    try:
        logged = log.read(columns=["id", "text"]).drop_duplicates("id", keep="last")
    except UserError as error:
        raise NotTheFile(error.message, error.fix) from None
    texts = dict(zip(logged["id"], logged["text"], strict=True))
    told: list[Judged] = []
    for rows in batches:
        found = [row if row.reason else _with_text(row, texts, schema) for row in rows]
        told += [row for row in found if row.reason in ("", "text_not_kept")]
        yield found
    if told:
        frame = pd.DataFrame({"id": [row.id for row in told], "label": [row.label for row in told]})
        log.add_labels(frame, part)


def _with_text(row: Judged, texts: dict[str, str | None], schema: Schema) -> Judged:
    if row.id not in texts:
        reason, text = "unknown_id", None
    elif not isinstance(texts[row.id], str):
        reason, text = "text_not_kept", None
    else:
        text, reason = judge_text(str(texts[row.id]), schema.normalize)
    content = {"id": row.id, "label": row.label, **row.content} if reason else row.content
    return replace(row, reason=reason, text=text, content=content)
