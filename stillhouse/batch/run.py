"""Batch prediction: any number of rows, bounded memory, one row out for one in, resumed after any kill."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from stillhouse.batch.output import ChunkWriter, assemble, check_output
from stillhouse.batch.rows import ID, log_rows, predicted_columns, row_ids
from stillhouse.batch.settings import Model, Settings, identity
from stillhouse.batch.smoothing import Smoother
from stillhouse.batch.work import Work, run_id
from stillhouse.data.rows import iter_rows
from stillhouse.errors import UserError, nearest
from stillhouse.events import reached
from stillhouse.files import flush
from stillhouse.prediction_log import PredictionLog
from stillhouse.scorer import Scorer, load_scorer

Progress = Callable[[int, int, str], None]
"""`progress(rows done, rows in all as far as known or 0, note)`."""


class Batch:
    """One batch prediction, from `open_batch` to its output."""

    def __init__(self, work: Work, model: Model, source: Path, settings: Settings, home: Path | None) -> None:
        self.work, self.model, self.source, self.settings, self.home = work, model, source, settings, home
        self.suffix = check_output(work.output, source)
        self.stamp = _stamp(source)
        found, self.about_rows = _measure(source)
        about = identity(model, found, self.suffix, settings)
        self.run = run_id(about)
        pinned = model.title if model.name else None
        self.progress, self.anew = work.begin(model.spec, pinned, about)
        """`anew`: why earlier work of this output could not be used."""
        self.log = PredictionLog(home, model.name) if settings.log and home and model.name else None

    @property
    def rows_done(self) -> int:
        return self.progress.get("rows", 0)

    def predict(self, tell: Progress) -> dict[str, Any]:
        """Predict the chunks that are missing, then move the output into place; returns the account."""
        resumed = self.rows_done
        scorer = load_scorer(self.model.directory)
        smoothing = scorer.about.get("smoothing")
        smoother = Smoother(smoothing["half_life"], self.progress.get("smoothing")) if smoothing else None
        stream = (smoothing or {}).get("by")
        done: list[list[Any]] = list(self.progress.get("chunks", []))
        writer = ChunkWriter(self.suffix, [self.work.directory / name for name, _ in done])
        tell(self.rows_done, self.about_rows, "")
        for index, frame in enumerate(iter_rows(self.source, self.settings.text, self.settings.chunk_rows)):
            if index == 0:
                self._check_columns(frame)
            if index < len(done) or frame.empty:  # a header without rows
                continue
            path = self.work.chunk(index, self.suffix)
            self._chunk(frame, path, scorer, smoother, stream, writer)
            done.append([path.name, path.stat().st_size])
            self.progress = {"chunks": done, "rows": self.rows_done + len(frame)}
            self.progress |= {"smoothing": smoother.state()} if smoother else {}
            self.work.commit(self.progress)
            self._reached("predict.chunk-done")
            tell(self.rows_done, max(self.about_rows, self.rows_done), "")
        if not self.rows_done:
            raise UserError(f"{self.source} has no rows", "Give a file with a header and at least one row")
        if _stamp(self.source) != self.stamp:
            raise UserError(f"{self.source} changed while it was read", "Wait until it is complete, then start again")
        tell(self.rows_done, self.rows_done, "writing")
        self._finish([self.work.directory / name for name, _ in done], writer.schema)
        account = {"rows": self.rows_done, "output": str(self.work.output), "model": self.model.title}
        return account | {"resumed_after": resumed, "logged": self.log is not None, "run": self.run}

    def _chunk(
        self, frame: pd.DataFrame, path: Path, scorer: Scorer, smoother: Smoother | None, stream: str | None,
        writer: ChunkWriter,
    ) -> None:  # fmt: skip
        settings, first = self.settings, self.rows_done
        column = (stream if stream in frame else settings.topic) if stream else None
        streams = [str(value) for value in frame[column]] if column else [""] * len(frame)
        texts = frame[settings.text].tolist()
        results = predicted_columns(scorer, texts, smoother, streams)
        results.index = frame.index
        if self.log is not None and settings.id is None:
            ids = pd.Series(row_ids(self.run, first, len(frame)), index=frame.index, name=ID)
            frame = pd.concat([frame.drop(columns=ID, errors="ignore"), ids], axis=1)
        kept = frame.drop(columns=list(results), errors="ignore")
        writer.write(pd.concat([kept, results], axis=1), path, first)
        self._reached("predict.chunk-written")
        if self.log is not None:
            rows = log_rows(frame, results, self.model, settings, scorer)
            self.log.append(rows, f"{self.run}-{path.stem}")
            self._reached("predict.chunk-logged")

    def _check_columns(self, frame: pd.DataFrame) -> None:
        for option in ("id", "topic", "time"):
            column = getattr(self.settings, option)
            if column is not None and column not in frame:
                raise UserError(
                    f'{self.source} has no column "{column}" (--{option})', nearest(column, set(map(str, frame)))
                )

    def _finish(self, chunks: list[Path], schema: Any) -> None:
        output = self.work.output
        part = self.work.directory / f"whole{self.suffix}"
        assemble(chunks, schema, part)
        self._reached("predict.before-rename")
        os.replace(part, output)
        flush(output.parent)
        self._reached("predict.after-rename")
        self.work.remove()

    def _reached(self, point: str) -> None:
        if self.home is not None:
            reached(self.home, point, output=self.work.output.name, rows=self.rows_done)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _measure(path: Path) -> tuple[str, int]:
    """sha256 of a file, and about how many rows it has (its lines; more where a cell holds several)."""
    sha256, lines = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
                lines += block.count(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions") from None
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            lines = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            lines = 0  # reading the rows says what is wrong
    return f"{sha256.hexdigest()}{path.suffix.lower()}", lines
