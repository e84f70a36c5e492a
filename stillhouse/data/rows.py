"""Reading files of rows that are to be predicted: none is left out. Apart from `read`, whose code is in every key."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pandas as pd

from stillhouse.data._clean import as_text, storable
from stillhouse.data._tables import Layout, table_batches
from stillhouse.errors import UserError, nearest


def iter_rows(path: Path, text: str, chunk: int = 10_000, layout: Layout | None = None) -> Iterator[pd.DataFrame]:
    """The rows of a CSV, TSV, JSONL or Parquet file in their order, up to `chunk` at a time, none left out.

    Every frame has the column `text` as strings (`""` where it is missing) and all other columns as they are, each
    cell an object of Python: a gap would make floats of a column of integers.
    """
    chosen = layout or Layout(keep_all=True)
    batches = table_batches(path, chosen, Counter(), chunk)
    first = next(batches, None)
    if first is None or text not in first:
        raise UserError(f'{path} has no column "{text}"', nearest(text, set(first or {})))
    for batch in chain([first], batches):
        if batch[text] or batch is first:
            cells = {name: [storable(v) if isinstance(v, str) else v for v in column] for name, column in batch.items()}
            yield pd.DataFrame({**cells, text: [as_text(value) or "" for value in cells[text]]}, dtype=object)
