"""Keys: what a step's result depends on, as canonical JSON, and its sha256."""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any


def canonical(value: Any) -> bytes:
    """One JSON text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """`{distribution: "major.minor"}`; a missing one is `"none"`, so that installing it is a miss too."""
    found = {}
    for name in names:
        try:
            found[name] = ".".join(metadata.version(name).split("+")[0].split(".")[:2])
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def without_measured(value: Any) -> Any:
    """`value` without what stands under a key named `measured`, at any depth."""
    if isinstance(value, dict):
        return {key: without_measured(item) for key, item in value.items() if key != "measured"}
    if isinstance(value, list):
        return [without_measured(item) for item in value]
    return value


def content_digest(directory: Path, files: dict[str, str]) -> str:
    """Digest of what an artifact says: `files` are `{relative name: sha256}`; JSON counts without measured times,
    drawings of it do not count.
    """
    entries = {}
    for name, sha256 in files.items():
        if name.endswith(".svg"):
            continue
        if name.endswith(".json"):
            sha256 = digest(without_measured(json.loads((directory / name).read_text(encoding="utf-8"))))
        entries[name] = sha256
    return digest(entries)
