"""What a source holds: one readable part for each of its splits."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from stillhouse.data._bytes import read_text
from stillhouse.data._tables import Batch
from stillhouse.errors import UserError
from stillhouse.method import Source
from stillhouse.source import directory_files, fetch_url

_BATCH = 5_000
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
Part = Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class Reading:
    """How this method reads a source."""

    file: Callable[[Path], Iterator[Batch]]
    suffixes: frozenset[str]
    """Files of a directory with other suffixes are not data."""
    subset: str | None = None
    """Configuration of a Hub data set."""
    given_splits: bool = True
    text: str = "text"
    label: str = "label"
    folders: bool = False
    """A directory may hold one directory of `.txt` files for each label."""


def open_parts(source: Source, downloads: Path, reading: Reading, counts: Counter[str]) -> dict[str, Part]:
    """`{split: part}`, train always among them; without `given_splits` everything is one part, train."""
    if source.repository:
        parts = _hub_parts(source, reading)
    elif source.path is None:
        fetched = fetch_url(source, downloads)
        parts = {"train": [_file_part(fetched, reading)]}
    elif Path(source.path).is_dir():
        parts = _directory_parts(Path(source.path), reading, counts)
    else:
        parts = {"train": [_file_part(Path(source.path), reading)]}
    if not reading.given_splits or "train" not in parts:
        parts = {"train": [part for split in sorted(parts) for part in parts[split]]}
    return {split: _chained(several) for split, several in parts.items()}


def _chained(parts: list[Part]) -> Part:
    return lambda: chain.from_iterable(part() for part in parts)


def _file_part(path: Path, reading: Reading) -> Part:
    return lambda: reading.file(path)


def _directory_parts(directory: Path, reading: Reading, counts: Counter[str]) -> dict[str, list[Part]]:
    files = directory_files(directory)
    parts: dict[str, list[Part]] = {}
    own = [file for file in files if file.parent == directory and file.suffix.lower() in reading.suffixes]
    named = {file: _SPLITS[file.stem.lower()] for file in own if file.stem.lower() in _SPLITS}
    if own and "train" not in named.values():
        named = dict.fromkeys(own, "train")
    for file, split in named.items():
        parts.setdefault(split, []).append(_file_part(file, reading))
    if own:
        return parts
    by_split: dict[str, dict[str, list[Path]]] = {}
    for file in files if reading.folders else []:
        *above, label = file.relative_to(directory).parent.parts or ("",)
        split = _SPLITS.get(above[0].lower(), "") if above else "train"
        if file.suffix.lower() == ".txt" and label and split:
            by_split.setdefault(split, {}).setdefault(label, []).append(file)
    if not by_split:
        forms = ", ".join(sorted(reading.suffixes)) + (", or <label>/*.txt" if reading.folders else "")
        raise UserError(f"{directory} holds no data that is understood", f"It may hold {forms}")
    return {split: [_folder_part(labels, reading, counts)] for split, labels in by_split.items()}


def _folder_part(labels: dict[str, list[Path]], reading: Reading, counts: Counter[str]) -> Part:
    def part() -> Iterator[Batch]:
        for label, files in labels.items():
            for start in range(0, len(files), _BATCH):
                texts = [read_text(file, counts) for file in files[start : start + _BATCH]]
                yield {reading.text: texts, reading.label: [label] * len(texts)}

    return part


def _hub_parts(source: Source, reading: Reading) -> dict[str, list[Part]]:
    loaded = _load_hub(source, reading.subset)
    parts: dict[str, list[Part]] = {}
    for name, rows in loaded.items():
        split = _SPLITS.get(name.lower()) or ("train" if len(loaded) == 1 else None)
        if split:
            parts.setdefault(split, []).append(lambda rows=rows: _hub_batches(rows))
    if not parts:
        raise UserError(f"{source.name} has only the splits {', '.join(loaded)}", "One must be called train")
    return parts


def _load_hub(source: Source, subset: str | None) -> Any:
    """The data set's splits at the pinned commit, on disk in Arrow form; offline from the local cache."""
    from datasets import load_dataset
    from huggingface_hub import snapshot_download

    repository, revision = str(source.repository), source.revision
    try:
        return load_dataset(repository, subset, revision=revision)
    except Exception as error:  # builders and network raise what they like; none of it is our bug
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    try:
        local = snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True)
        return load_dataset(local, subset)
    except Exception:  # the first reason is the one to tell
        raise UserError(f"cannot load {source.name}: {reason}", "Check name, subset and network") from None


def _hub_batches(rows: Any) -> Iterator[Batch]:
    from datasets import ClassLabel, List, Value

    names: dict[str, list[str]] = {}
    columns = []
    for column, feature in rows.features.items():
        inner = feature.feature if isinstance(feature, List) else feature
        if isinstance(inner, ClassLabel):
            names[column] = inner.names
        if isinstance(inner, ClassLabel | Value):
            columns.append(column)
    for batch in rows.select_columns(columns).iter(_BATCH):
        for column, known in names.items():
            batch[column] = [_named(value, known) for value in batch[column]]
        yield batch
    if not len(rows):
        yield {column: [] for column in columns}


def _named(value: Any, known: list[str]) -> Any:
    """Class numbers as names; -1 is the Hub's "not labelled"."""
    if isinstance(value, list):
        return [_named(item, known) for item in value]
    return known[value] if isinstance(value, int) and 0 <= value < len(known) else None
