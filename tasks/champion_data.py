"""What the model in use learned from: its data artifact, the schema that new rows must fit, the recipe that made it."""

import json
from pathlib import Path
from typing import Any

from pipelines.retraining import data_step
from stillhouse.artifact import Artifact
from stillhouse.data.read import load_info, load_labels
from stillhouse.dataset.judge import Schema
from stillhouse.errors import UserError
from stillhouse.methods import load_method
from stillhouse.store import Store
from tasks.versions import CHAMPION, DATA_VERSION, RELEASE_KEY, WHOLE_RECIPE, Version, find, read_models

PROBLEM = "text-classification"


def champion_of(home: Path, name: str) -> Version:
    """The champion; a `UserError` when there is no such model, or it has none."""
    if "/" in name or "@" in name:
        raise UserError(f'"{name}" names one version', "Name the model alone: its data belongs to all its versions")
    return find(read_models(home), f"{name}@{CHAMPION}")


def seen(version: Version) -> int:
    """The newest epoch of the data set that the version learned from; 0: none of them."""
    return int(version.tags.get(DATA_VERSION, "0"))


def stored_recipe(version: Version) -> dict[str, Any] | None:
    """The whole recipe that made the version, None where it was not kept."""
    text = version.tags.get(WHOLE_RECIPE)
    return json.loads(text) if text else None


def data_artifact(home: Path, version: Version) -> Artifact:
    """The prepared data behind a version, sound and in this store."""
    store = Store(home)
    release = store.manifest(version.tags.get(RELEASE_KEY, ""))
    inputs = release["inputs"] if release else {}
    if "data" not in inputs and "scores" in inputs:
        scores = store.manifest(inputs["scores"][0]["key"])
        inputs = scores["inputs"] if scores else {}
    if "data" not in inputs:
        raise _absent(version, "is not in this store")
    key = inputs["data"][0]["key"]
    manifest, wrong = store.check(key)
    if manifest is None:
        raise _absent(version, wrong or "is not in this store")
    return Artifact(key, manifest["kind"])


def _absent(version: Version, why: str) -> UserError:
    return UserError(
        f'the data that "{version.name}" version {version.version} was trained on {why}',
        "Use the home where it was made, or run its recipe again",
    )


def schema_for(home: Path, name: str, *, grow: bool = False) -> Schema:
    """What a row must be like for the champion of `name`: columns as its recipe calls them, labels as it knows them."""
    version = champion_of(home, name)
    directory = Store(home).path(data_artifact(home, version).key)
    problem = load_info(directory)["problem"]
    if problem != PROBLEM:
        raise UserError(
            f'"{name}" is a {problem} model; rows can be added to {PROBLEM} models only',
            "Give its recipe's data step the new file, and the old data as its input `previous`",
        )
    whole = stored_recipe(version)
    said: dict[str, Any] = {}
    if whole is not None:
        said = whole["steps"][data_step(whole["steps"], name)].get("with", {})
    settings = load_method("prepare.text").model_validate({"source": "unused", **said})
    taken = settings.model_dump()
    return Schema(
        text=taken["text"], label=taken["label"], labels=tuple(load_labels(directory)), renamed=taken["labels"] or {},
        confidence=taken["confidence"], min_confidence=taken["min_confidence"], normalize=taken["normalize"], grow=grow,
    )  # fmt: skip
