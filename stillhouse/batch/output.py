"""Chunks in the format of the output, and the output put together from them."""

import csv
import json
import os
import shutil
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stillhouse.errors import UserError
from stillhouse.files import flush
from stillhouse.json_values import plain

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
_OTHER_FORMAT = "Write .csv or .jsonl instead"


def check_output(output: Path, source: Path) -> str:
    """The output's format, by its suffix."""
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"cannot write {output.name}", f"Name a file that ends in {', '.join(FORMATS)}")
    if output.resolve() == source.resolve():
        raise UserError("--output is the input itself", "Name another file")
    if output.is_dir():
        raise UserError(f"{output} is a directory", "Name a file in it")
    return suffix


class ChunkWriter:
    """Writes frames as chunk files; for Parquet it sees to it that their columns can become one file."""

    def __init__(self, suffix: str, done: list[Path]) -> None:
        self.suffix = suffix
        self.schema: Any = None
        for path in done if suffix == ".parquet" else ():
            self._join(_schema_of(path), 0)

    def write(self, frame: pd.DataFrame, path: Path, rows_before: int) -> None:
        """`frame` as `path`, on the disk when this returns."""
        if self.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
                self._join(table.schema, rows_before)
                pq.write_table(table, path, compression="zstd")
            except (pa.ArrowException, OverflowError) as error:  # an empty object, an integer of more than 64 bits
                raise UserError(f"Parquet cannot hold these rows: {_first_line(error)}", _OTHER_FORMAT) from None
        elif self.suffix == ".jsonl":
            with path.open("w", encoding="utf-8") as file:
                for row in frame.to_dict("records"):
                    file.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
        else:
            separator = "\t" if self.suffix == ".tsv" else ","
            # pandas does not quote a lone return, which every reader takes for the end of a row
            cells = chain(frame, *(frame[name] for name in frame))
            returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            quoting = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
            frame.to_csv(path, sep=separator, index=False, header=not rows_before, quoting=quoting)
        flush(path)

    def _join(self, schema: "pa.Schema", rows_before: int) -> None:
        import pyarrow as pa

        try:
            known = [schema] if self.schema is None else [self.schema, schema]
            self.schema = pa.unify_schemas(known, promote_options="permissive")
        except pa.ArrowException as error:
            where = f"a column changes its type after row {rows_before:,}"
            raise UserError(f"{where}: {_first_line(error)}", _OTHER_FORMAT) from None


def assemble(chunks: list[Path], schema: Any, part: Path) -> None:
    """All rows of `chunks` in their order as the file `part`."""
    if schema is None:
        with part.open("wb") as whole:
            for chunk in chunks:
                with chunk.open("rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
            whole.flush()
            os.fsync(whole.fileno())
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    # What is empty everywhere is text: a column without a type would surprise whoever reads it.
    schema = pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in schema])
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for chunk in chunks:
            try:
                writer.write_table(pq.read_table(chunk).cast(schema))
            except pa.ArrowInvalid as error:  # an integer too large for the floats of another chunk
                raise UserError(f"Parquet cannot hold these rows: {_first_line(error)}", _OTHER_FORMAT) from None
    flush(part)


def _schema_of(path: Path) -> "pa.Schema":
    import pyarrow.parquet as pq

    return pq.read_schema(path)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
