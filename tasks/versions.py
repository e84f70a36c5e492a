"""Versions of registered models as MLflow has them, and the memo that answers without importing mlflow.

Reading goes through `read_models`. What MLflow answered is kept in `cache/registry.json` together with the state of its
database, so that a question about an unchanged database imports no mlflow (0.01 s instead of 3 s).
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import UserError, nearest
from stillhouse.files import write_json
from tasks.light_registry import HttpRegistry, SqliteRegistry, named, open_registry
from tasks.mlflow_home import database_state, is_fresh

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
RELEASE_KEY = "stillhouse.release_key"
MODEL_KEY = "stillhouse.model_key"
DIGEST = "stillhouse.model_digest"
BUNDLE_DIGEST = "stillhouse.bundle_digest"
AGAINST = "stillhouse.against"
VERDICT = "stillhouse.verdict"
METRICS = "stillhouse.metrics"
LINEAGE = "stillhouse.lineage"
DATA = "stillhouse.data"
RECIPE = "stillhouse.recipe"
WHOLE_RECIPE = "stillhouse.whole_recipe"
"""On a version: the recipe that made it, whole, as JSON: what a retraining starts from."""
DATA_VERSION = "stillhouse.data_version"
"""On a version that a retraining made: the newest epoch of the model's data set that it learned from."""
ROLLED_BACK = "stillhouse.rolled_back"
"""On a version that `rollback` left; its value is the version that became champion instead."""
RULES = "stillhouse.rules"
"""{rule: {limit, value, passed}} of the gate."""
APPROVED, REJECTED = "stillhouse.approved_", "stillhouse.rejected_"
"""Beginnings of the tags that say what a person decided: these with `by`, `at`, `comment`."""
Against = dict[str, Any] | None


@dataclass(frozen=True)
class Version:
    """One version of a registered model, as far as we read it."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: dict[str, str]
    model_id: str
    location: str
    """URI of the logged model's directory; "" where nobody asked MLflow for it yet."""
    created_ms: int

    @property
    def against(self) -> Against:
        return json.loads(self.tags.get(AGAINST, "null"))

    @property
    def rolled_back(self) -> bool:
        return ROLLED_BACK in self.tags

    @property
    def decision(self) -> dict[str, Any] | None:
        """{approve, by, at, comment} of the person who approved or rejected this version."""
        for approve, start in ((True, APPROVED), (False, REJECTED)):
            if f"{start}at" in self.tags:
                said = {key: self.tags.get(f"{start}{key}", "") for key in ("by", "at", "comment")}
                return {"approve": approve, **said}
        return None

    def is_same_model(self, model_key: str, digest: str) -> bool:
        return model_key == self.tags.get(MODEL_KEY) or digest == self.tags.get(DIGEST)


Models = dict[str, list[Version]]


def read_models(home: Path, name: str | None = None) -> Models:
    """The versions of all registered models (at least of `name`), the newest first."""
    if is_fresh(home):
        return {}
    memo, state = home / "cache" / "registry.json", database_state(home)
    if state is not None and memo.is_file():
        try:
            kept = json.loads(memo.read_text(encoding="utf-8"))
            if kept["state"] == state:
                return {name: [_thaw(item) for item in items] for name, items in kept["models"].items()}
        except (ValueError, KeyError, TypeError):
            pass  # written by another release, or torn by a full disk: MLflow knows
    return ask_models(open_registry(home), name)


def _thaw(item: dict[str, Any]) -> Version:
    return Version(**{**item, "aliases": tuple(item["aliases"])})


def remember(home: Path) -> None:
    """Keep what MLflow says now for the next process; call it after the last write of a run."""
    client = open_registry(home)
    before = database_state(home)
    if before is None:
        return
    models = ask_models(client)
    if database_state(home) == before:
        frozen = {name: [asdict(version) for version in versions] for name, versions in models.items()}
        with contextlib.suppress(OSError):  # only the next process's time
            (home / "cache").mkdir(parents=True, exist_ok=True)
            write_json(home / "cache" / "registry.json", {"state": before, "models": frozen})


def ask_models(client: "MlflowClient | SqliteRegistry | HttpRegistry", name: str | None = None) -> Models:
    """What MLflow says now, of one model or of all."""
    models: Models = {}
    light = isinstance(client, SqliteRegistry | HttpRegistry)
    pointers = client.aliases(name) if light else _aliases(client, name)
    for model, aliases in pointers.items():
        pointed: dict[int, list[str]] = {}
        for alias, version in aliases.items():
            pointed.setdefault(version, []).append(alias)
        records = client.versions(model) if light else _records(client, model)
        versions = [_version(client, model, record, pointed) for record in records]
        models[model] = sorted(versions, key=lambda version: -version.version)
    return models


def _version(client: Any, name: str, record: dict[str, Any], pointed: dict[int, list[str]]) -> Version:
    number, source = record["version"], record["source"]
    aliases = tuple(sorted(pointed.get(number, [])))
    # Only these are asked for often enough to be worth a query each.
    model_id = source.removeprefix("models:/") if source.startswith("models:/m-") else ""
    location = location_of(client, model_id) if aliases else ""
    return Version(name, number, aliases, record["tags"], model_id, location, record["created_ms"])


def _aliases(client: "MlflowClient", name: str | None) -> dict[str, dict[str, int]]:
    found = _pages(client.search_registered_models, named(name) if name else None)
    return {one.name: {alias: int(version) for alias, version in one.aliases.items()} for one in found}


def _records(client: "MlflowClient", name: str) -> list[dict[str, Any]]:
    return [
        {
            "version": int(found.version), "tags": dict(found.tags), "source": found.source or "",
            "created_ms": int(found.creation_timestamp or 0),
        }
        for found in _pages(client.search_model_versions, named(name))
    ]  # fmt: skip


def _pages(search: Any, condition: str | None) -> list[Any]:
    found, token = [], None
    while True:
        page = search(filter_string=condition, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def now(home: Path, spec: str) -> tuple["MlflowClient | SqliteRegistry | HttpRegistry", Version]:
    """A client, and the version that `spec` means by what MLflow says now."""
    if is_fresh(home):
        find({}, spec)
    client = open_registry(home)
    return client, find(ask_models(client), spec)


def location_of(client: "MlflowClient | SqliteRegistry | HttpRegistry", model_id: str) -> str:
    """URI of the directory of a logged model; "" for a version that was registered some other way."""
    if isinstance(client, SqliteRegistry | HttpRegistry):
        return client.location(model_id) if model_id else ""
    return client.get_logged_model(model_id).artifact_location if model_id else ""


def with_alias(versions: list[Version], alias: str) -> Version | None:
    return next((version for version in versions if alias in version.aliases), None)


def find(models: Models, spec: str) -> Version:
    """The version that `name` (its champion), `name@alias` or `name/version` means."""
    name, at, alias = spec.removeprefix("models:/").partition("@")
    slash, number = "", ""
    if not at:
        name, slash, number = name.rpartition("/") if "/" in name else (name, "", "")
    if name not in models:
        known = nearest(name, set(models)) if models else "The registry is empty: run a recipe first"
        raise UserError(f'there is no model "{name}" in the registry', known)
    versions = models[name]
    if slash:
        found = next((version for version in versions if str(version.version) == number), None)
        wrong, there = f'"{name}" has no version {number}', ", ".join(str(v.version) for v in versions[:9])
    else:
        found = with_alias(versions, alias or CHAMPION)
        wrong = f'"{name}" has no {alias or CHAMPION}'
        there = ", ".join(f"{v.version} ({', '.join(v.aliases) or 'no alias'})" for v in versions[:9])
    if found is None:
        raise UserError(wrong, f"Its versions: {there}; for example {name}/{versions[0].version}" if versions else "")
    return found
