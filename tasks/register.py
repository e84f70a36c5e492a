"""From a passed release to a version in the registry: log, prove it in a fresh process, create, move aliases.

Called after every run, hit or not; each step finds what an earlier call left, so that a kill anywhere is repaired by
the next one. A version stands for one release (its key and its model's content).
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import Refused
from stillhouse.events import emit, reached
from stillhouse.files import read_json
from tasks.logged_model import check_in_fresh_process, save_served_model
from tasks.mlflow_home import as_default, experiment_id, lock, open_client
from tasks.registry import bundle_digest, damage, local_artifacts, make_champion
from tasks.versions import (
    AGAINST,
    BUNDLE_DIGEST,
    CHALLENGER,
    CHAMPION,
    DATA,
    DIGEST,
    LINEAGE,
    METRICS,
    MODEL_KEY,
    RECIPE,
    RELEASE_KEY,
    RULES,
    VERDICT,
    Against,
    Version,
    ask_models,
    read_models,
    remember,
    with_alias,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

Manifest = dict[str, Any]
DESCRIPTION_CHARACTERS = 5000
RULES_CHARACTERS = 5000


@dataclass(frozen=True)
class Release:
    """A passed release artifact, on its way into the registry."""

    name: str
    directory: Path
    step: str
    key: str
    model_key: str
    digest: str
    against: Against
    tags: dict[str, str]


def register(  # noqa: PLR0913
    home: Path, name: str, release_dir: Path, manifest: Manifest, *,
    promote: bool, lineage: list[Manifest], run_id: str | None = None, steps: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make sure that the registry holds this release and that its aliases are right; safe to call again and again.

    Returns `{name, version, alias, created}` and, when something needs a person, `note`. Without a passed verdict
    nothing happens (version None). Raises `Refused` when the logged model does not predict what the gate saw, when a
    step of the lineage was made from content the store no longer has, or when the champion moved meanwhile.
    `steps` are the keys of the run's own steps: a lineage may hold others of the same name, from the model that it
    starts from. `tags` go onto the version.
    """
    verdict = read_json(release_dir / "verdict.json")
    if not verdict["passed"]:
        return {"name": name, "version": None, "alias": None, "created": False}
    release = _release(name, release_dir, manifest, verdict, lineage, steps or {})
    release.tags.update(tags or {})
    known = read_models(home, name).get(name, [])
    _mend(home, _existing(known, release), release)
    settled = _settled(known, release, promote)
    if settled:
        return settled
    check_lineage([*lineage, manifest])
    try:
        with lock(home, f"register-{name}"):
            client = open_client(home)
            version = _existing(ask_models(client, name).get(name, []), release)
            created = version is None
            if version is None:
                _create_version(home, client, release, run_id or None)
                reached(home, "register.version", name=name)
        return {**_place(home, client, release, promote), "created": created}
    finally:
        remember(home)


def _release(
    name: str, directory: Path, manifest: Manifest, verdict: Manifest, lineage: list[Manifest], own: dict[str, str]
) -> Release:
    model = manifest["inputs"]["model"][0]
    steps = {**{one["step"]: one["key"] for one in [*lineage, manifest]}, **own}
    used = set(steps.values())
    data = {one["step"]: one["content"] for one in lineage if one["kind"] == "data" and one["key"] in used}
    tags = {
        RELEASE_KEY: manifest["key"], MODEL_KEY: model["key"], DIGEST: model["content"], VERDICT: "passed",
        RECIPE: str(manifest.get("recipe") or ""), AGAINST: json.dumps(verdict["against"], sort_keys=True),
        METRICS: json.dumps(verdict["metrics"], sort_keys=True), LINEAGE: json.dumps(steps, sort_keys=True),
        DATA: json.dumps(data, sort_keys=True), BUNDLE_DIGEST: bundle_digest(directory / "bundle"),
        RULES: short_rules(verdict.get("rules", {})),
    }  # fmt: skip
    return Release(
        name, directory, manifest["step"], manifest["key"], model["key"], model["content"], verdict["against"], tags
    )


def short_rules(rules: dict[str, Any], most: int = RULES_CHARACTERS) -> str:
    """The gate's rules as the JSON of a tag: {rule: {limit, value, passed}}; all of them are in the bundle's verdict.

    Where that is too long (a rule on every slice), each kind keeps the one that came nearest to its limit.
    """
    short = {name: _short(rule) for name, rule in rules.items()}
    text = json.dumps(short, sort_keys=True)
    if len(text) <= most:
        return text
    nearest: dict[str, str] = {}
    for name, rule in short.items():
        kind = name.partition(".")[0]
        best = short.get(nearest.get(kind, ""))
        if best is None or _room(rule) < _room(best):
            nearest[kind] = name
    return json.dumps({name: short[name] for name in sorted(nearest.values())})


def _short(rule: dict[str, Any]) -> dict[str, Any]:
    value = rule.get("value", rule.get("measured"))
    return {
        "limit": rule["limit"],
        "value": None if value is None else round(value, 6),
        "passed": rule["passed"],
    }


def _room(rule: dict[str, Any]) -> float:
    return float("inf") if rule["value"] is None else abs(rule["limit"] - rule["value"])


def check_lineage(manifests: list[Manifest]) -> None:
    """Refuse when a step was made from data or a model that has been rebuilt since, with another content."""
    there = {manifest["key"]: manifest for manifest in manifests}
    for manifest in manifests:
        for item in (item for items in manifest["inputs"].values() for item in items):
            now = there.get(item["key"])
            if now and item["kind"].startswith(("data", "model")) and now["content"] != item["content"]:
                raise Refused(
                    f'step "{manifest["step"]}" was made from other content of "{now["step"]}" than the store has now',
                    f"Run again with --rebuild {manifest['step']}",
                )


def _existing(versions: list[Version], release: Release) -> Version | None:
    wanted = (release.key, release.digest)
    return next((v for v in versions if (v.tags.get(RELEASE_KEY), v.tags.get(DIGEST)) == wanted), None)


def _mend(home: Path, version: Version | None, release: Release) -> None:
    """Write the files of the release's version again where they were lost or damaged."""
    if version is None or not version.location:
        return
    artifacts = local_artifacts(home, version.location)
    if artifacts is None or not damage(artifacts, version):
        return
    with lock(home, f"register-{release.name}"):
        artifacts.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=artifacts.parent, prefix=".mend-") as beside:
            save_served_model(Path(beside) / "model", release.directory / "bundle", version.model_id)
            if artifacts.exists():
                os.replace(artifacts, Path(beside) / "damaged")
            os.replace(Path(beside) / "model", artifacts)
    emit(home, "register.mended", name=release.name, version=version.version)


def _settled(versions: list[Version], release: Release, promote: bool) -> dict[str, Any] | None:
    """The answer when the release's version exists and no alias has to move."""
    version = _existing(versions, release)
    if version is None:
        return None
    answer = {"name": release.name, "version": version.version, "alias": None, "created": False}
    if CHAMPION in version.aliases:
        return {**answer, "alias": CHAMPION}
    alias = version.aliases[0] if version.aliases else None
    if version.decision and not version.decision["approve"]:
        return {
            **answer,
            "alias": alias,
            "note": f"version {version.version} was rejected by {version.decision['by']} and is not promoted by a run; "
            f"to do it: stillhouse promote {release.name} {version.version}",
        }
    left = next((v for v in versions if v.rolled_back and v.is_same_model(release.model_key, release.digest)), None)
    if left is not None:
        return {
            **answer,
            "alias": alias,
            "note": f"version {left.version} was rolled back and is not promoted again by a run; "
            f"to do it: stillhouse promote {release.name} {version.version}",
        }
    return {**answer, "alias": alias} if alias and not promote else None


def _place(home: Path, client: "MlflowClient", release: Release, promote: bool) -> dict[str, Any]:
    """Move the aliases, last and under the name's lock, with what the registry says now."""
    name = release.name
    with lock(home, f"aliases-{name}"):
        versions = ask_models(client, name)[name]
        settled = _settled(versions, release, promote)
        if settled:
            return settled
        version = _existing(versions, release)
        assert version is not None, "created above; versions are never deleted by us"
        champion = with_alias(versions, CHAMPION)
        moved = not _is_against(champion, release)
        if moved or not promote:
            client.set_registered_model_alias(name, CHALLENGER, str(version.version))
        if moved and promote:
            raise Refused(
                f'the champion of "{name}" is {_called(champion)} now, but this release was measured against '
                f"{_called(release.against)}; it stays challenger (version {version.version})",
                "Run again: it will be measured against the champion of now",
            )
        if not promote:
            return {"name": name, "version": version.version, "alias": CHALLENGER}
        make_champion(home, client, versions, version)
    return {"name": name, "version": version.version, "alias": CHAMPION}


def _is_against(champion: Version | None, release: Release) -> bool:
    """The champion is what the release was measured against, or the same model as the release's own."""
    if champion is None:
        return release.against is None
    if champion.is_same_model(release.model_key, release.digest):
        return True
    against = release.against or {}
    return (against.get("version"), against.get("digest")) == (champion.version, champion.tags.get(DIGEST))


def _called(champion: Version | Against) -> str:
    if champion is None:
        return "no version"
    return f"version {champion.version if isinstance(champion, Version) else champion['version']}"


def _create_version(home: Path, client: "MlflowClient", release: Release, run_id: str | None) -> None:
    from mlflow.exceptions import MlflowException

    model_id = _logged(home, client, release, run_id)
    reached(home, "register.logged", name=release.name)
    problem = check_in_fresh_process(home, model_id, release.directory / "bundle" / "check.json")
    if problem:
        client.delete_logged_model(model_id)
        raise Refused(
            f'the logged model of "{release.name}" {problem}',
            f"Nothing was registered. Look at the release's bundle, or run again with --rebuild {release.step}",
        )
    try:
        client.create_registered_model(release.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    card = (release.directory / "bundle" / "README.md").read_text(encoding="utf-8")[:DESCRIPTION_CHARACTERS]
    with as_default(home):
        client.create_model_version(
            release.name, f"models:/{model_id}", run_id, tags=release.tags, description=card, model_id=model_id
        )


def _logged(home: Path, client: "MlflowClient", release: Release, run_id: str | None) -> str:
    """The id of the logged model of this release; one that a killed call left half logged goes."""
    experiment = client.get_run(run_id).info.experiment_id if run_id else experiment_id(home, release.tags[RECIPE])
    condition = f"tags.`{RELEASE_KEY}` = '{release.key}' AND tags.`{DIGEST}` = '{release.digest}'"
    for found in client.search_logged_models([experiment], filter_string=condition):
        if str(found.status) == "READY":
            return found.model_id
        client.delete_logged_model(found.model_id)
    tags = {name: release.tags[name] for name in (RELEASE_KEY, DIGEST, MODEL_KEY)}
    logged = client.create_logged_model(experiment, release.name, run_id, tags=tags)
    with tempfile.TemporaryDirectory(dir=home, prefix=".register-") as beside:
        save_served_model(Path(beside) / "model", release.directory / "bundle", logged.model_id, run_id)
        client.log_model_artifacts(logged.model_id, str(Path(beside) / "model"))
    client.finalize_logged_model(logged.model_id, "READY")
    if run_id:
        from mlflow.entities import LoggedModelOutput

        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id
