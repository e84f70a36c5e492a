"""What a version of a model was released with: embeddings from its bundle, predictions from its scores in the store."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillhouse.files import read_json
from stillhouse.monitor.examine import Reference
from stillhouse.scorer import load_scorer
from stillhouse.store import Store
from tasks import registry
from tasks.versions import LINEAGE

CLASSIFICATION = "text-classification"


def reference_of(home: Path, name: str, version: int) -> tuple[Reference, Path]:
    """The reference of `name/version` and its bundle; parts that this machine does not have are None."""
    found = registry.resolve(home, f"{name}/{version}")
    bundle: Path = found["directory"]
    about = read_json(bundle / "stillhouse.json")
    embeddings = np.load(bundle / "reference.npy") if (bundle / "reference.npy").is_file() else None
    if about["problem"] != CLASSIFICATION:
        return Reference([], embeddings), bundle
    rows = _judged(home, json.loads(found["tags"].get(LINEAGE, "{}")))
    if rows is None:
        return Reference(about["labels"], embeddings), bundle
    confidence = rows[[f"p_{label}" for label in about["labels"]]].max(axis=1).to_numpy(dtype=np.float64)
    predicted, true = (np.asarray(rows[column], dtype=str) for column in ("predicted", "label"))
    return Reference(about["labels"], embeddings, predicted, true, confidence), bundle


def _judged(home: Path, steps: dict[str, str]) -> pd.DataFrame | None:
    """The test rows with predictions that the gate saw, from the version's lineage; None where the store has none."""
    store = Store(home)
    for key in steps.values():
        manifest, _ = store.check(key)
        if manifest is not None and manifest["kind"] == "scores":
            return pd.read_parquet(store.path(key) / "predictions.parquet")
    return None


def embedder(bundle: Path) -> Callable[[pd.DataFrame], NDArray[np.floating] | None]:
    """Embeddings of rows of a log: as they were logged, else computed from the texts by the model in `bundle`."""

    def embed(rows: pd.DataFrame) -> NDArray[np.floating] | None:
        logged = rows["embedding"].dropna() if "embedding" in rows else []
        if len(logged):
            return np.stack([np.asarray(row, dtype=np.float32) for row in logged])
        texts = [text for text in rows["text"] if isinstance(text, str)]
        return load_scorer(bundle).embed(texts) if texts else None

    return embed
