"""Batch prediction: any number of rows, bounded memory, one row out for one in, nothing half-written."""

import json
import os
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError
from stillhouse.scorer import load_scorer

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def predict_texts(directory: Path, texts: list[str]) -> list[dict[str, Any]]:
    """`{"label", "probabilities"}`, or `{"entities"}`, for each text, in order."""
    return load_scorer(directory).predict(texts)


def predict_file(directory: Path, source: Path, text: str, output: Path) -> dict[str, Any]:
    """Write `source`'s rows with their predictions to `output` (by its suffix); moved into place when complete."""
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"cannot write {output.name}", f"Name a file that ends in {', '.join(FORMATS)}")
    if output.resolve() == source.resolve():
        raise UserError("--output is the input itself", "Name another file")
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        rows = _write(directory, source, text, part, output.suffix.lower())
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
    return {"rows": rows, "output": str(output)}


def _write(directory: Path, source: Path, text: str, part: Path, suffix: str) -> int:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stillhouse.data.rows import iter_rows

    scorer = load_scorer(directory)
    rows, writer, schema = 0, None, None
    for chunk in iter_rows(source, text):
        results = scorer.predict([value if isinstance(value, str) else "" for value in chunk[text]])
        columns = pd.DataFrame(_columns(results), index=chunk.index)
        chunk = pd.concat([chunk.drop(columns=list(columns), errors="ignore"), columns], axis=1)
        if suffix == ".parquet":
            try:
                table = pa.Table.from_pandas(chunk, schema=schema, preserve_index=False)
            except pa.ArrowException as error:
                raise UserError(
                    f"{source}: a column changes its type after row {rows:,}: {error}", "Write .csv or .jsonl instead"
                ) from None
            if schema is None:  # what is empty so far may hold text later
                fields = [
                    field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in table.schema
                ]
                schema = pa.schema(fields)
                table = table.cast(schema)
            writer = writer or pq.ParquetWriter(part, schema)
            writer.write_table(table)
        elif suffix == ".jsonl":
            chunk.to_json(part, orient="records", lines=True, mode="a" if rows else "w", force_ascii=False)
        else:
            separator = "\t" if suffix == ".tsv" else ","
            chunk.to_csv(part, sep=separator, index=False, mode="a" if rows else "w", header=not rows)
        rows += len(chunk)
    if writer is not None:
        writer.close()
    if not rows:
        raise UserError(f"{source} has no rows", "Give a file with a header and at least one row")
    return rows


def _columns(results: list[dict[str, Any]]) -> dict[str, list[Any]]:
    if results and "entities" in results[0]:
        return {"entities": [json.dumps(r["entities"], ensure_ascii=False) for r in results]}
    columns: dict[str, list[Any]] = {"predicted": [r["label"] for r in results]}
    for label in results[0]["probabilities"] if results else []:
        columns[f"p_{label}"] = [r["probabilities"][label] for r in results]
    return columns
