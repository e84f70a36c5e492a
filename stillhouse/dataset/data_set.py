"""The versioned data set of a model: files of new rows, each an epoch that never changes once it is there.

Layout under `HOME/data/NAME`: `dataset.json` (what there is; written last, so it alone decides), `epochs/0001.parquet`
(good rows), `rejected/0001.jsonl` (rows set aside, with reason and content), `received/` and `refused/` (files that
came through the landing place). A version of the data set is the number of its newest epoch.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from stillhouse.errors import UserError
from stillhouse.files import flush, read_json, write_json
from stillhouse.keys import file_digest

MANIFEST = "dataset.json"
CONTENT = ("text", "label", "id", "source_file", "source_row")
"""Columns of every epoch; what else the files had follows, as text."""
NEEDED = {"number", "rows", "file", "sha256", "labels", "rejected", "source", "source_sha256", "added"}
Entry = dict[str, Any]
"""`{number, file, sha256, rows, labels, new_labels, rejected, rejected_file, source, source_sha256, kind, added}`."""


class DataSet:
    """The data set of the model `name`. Cheap to make; holds no open file."""

    def __init__(self, home: Path, name: str) -> None:
        self.home, self.name = home, name
        self.root = home / "data" / name

    def lock(self) -> FileLock:
        """Held by who adds; it is gone with its holder, however that ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock")

    def manifest(self) -> dict[str, Any]:
        """`{"epochs": [entry, …], "refused": [{source, source_sha256, reason, added}, …]}`."""
        path = self.root / MANIFEST
        try:
            found = read_json(path)
            epochs, refused = list(found["epochs"]), list(found["refused"])
            if not all(set(entry) >= NEEDED for entry in epochs) or not all("source_sha256" in one for one in refused):
                raise KeyError
            return {"epochs": epochs, "refused": refused}
        except FileNotFoundError:
            return {"epochs": [], "refused": []}
        except (ValueError, KeyError, TypeError, IsADirectoryError):
            raise UserError(
                f"{path} is damaged", "Bring back a copy of it: it lists what belongs to the data"
            ) from None

    def epochs(self, after: int = 0, until: int | None = None) -> list[Entry]:
        """Entries with rows, numbered `after` < number <= `until`, the oldest first."""
        return [
            entry for entry in self.manifest()["epochs"]
            if entry["rows"] and after < entry["number"] and (until is None or entry["number"] <= until)
        ]  # fmt: skip

    def version(self) -> int:
        """The number of the newest epoch with rows; 0 without any."""
        return max((entry["number"] for entry in self.epochs()), default=0)

    def known(self, sha256: str) -> Entry | None:
        """The entry of a file with this content, taken in or refused before."""
        manifest = self.manifest()
        found = [e for e in [*manifest["refused"], *manifest["epochs"]] if e["source_sha256"] == sha256]
        return max(found, key=lambda entry: entry["rows"] if "number" in entry else -1, default=None)

    def set_aside(self, sha256: str) -> set[int]:
        """Numbers of the rows of a file with this content of which nothing was used yet."""
        entry = [entry for entry in self.manifest()["epochs"] if entry["source_sha256"] == sha256][-1]
        if not entry["rejected_file"]:
            return set()
        return {row["row"] for row in read_rejected(self.root / entry["rejected_file"])}

    def next_number(self) -> int:
        return max((entry["number"] for entry in self.manifest()["epochs"]), default=0) + 1

    def commit(self, entry: Entry) -> None:
        """Add an epoch whose files are in place, or a refused file (no `number`); the caller holds the lock."""
        manifest = self.manifest()
        manifest["epochs" if "number" in entry else "refused"].append(entry)
        write_json(self.root / MANIFEST, {"name": self.name, **manifest})
        flush(self.root)

    def damage(self, entries: Iterable[Entry]) -> list[str]:
        """What is wrong with the files of these epochs, a line for each."""
        found = []
        for entry in entries:
            path = self.root / entry["file"]
            try:
                wrong = "" if file_digest(path) == entry["sha256"] else "was changed"
            except OSError as error:
                wrong = f"cannot be read ({error.strerror})"
            if wrong:
                found.append(f"epoch {entry['number']}: {path} {wrong}")
        return found

    def check(self, entries: Iterable[Entry]) -> None:
        """Raise `UserError` that names the first damaged epoch."""
        damaged = self.damage(entries)
        if damaged:
            raise UserError(damaged[0], f"Bring back a copy of it; what came is in {self.root / 'received'}")

    def joined(self, entries: list[Entry]) -> Path:
        """One Parquet file with the rows of these epochs, verified; equal epochs give the same bytes."""
        self.check(entries)
        if len(entries) == 1:
            return self.root / entries[0]["file"]
        tables = [pq.read_table(self.root / entry["file"]) for entry in entries]
        whole = pa.concat_tables(tables, promote_options="default")
        path = self.root / "joined" / f"{entries[0]['number']:04d}-{entries[-1]['number']:04d}.parquet"
        write_parquet(path, whole)
        return path


def read_rejected(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of what was set aside."""
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if not isinstance(row, dict) or not {"row", "reason", "text"} <= set(row):
                    raise ValueError
                yield row
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})", "Bring back a copy of it") from None


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write `table` beside `path`, flush it, move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, beside)
    flush(beside)
    os.replace(beside, path)
    flush(path.parent)
