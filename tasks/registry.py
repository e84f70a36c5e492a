"""The models that passed the gate: which version is champion, where its bundle is, and moving that by hand."""

import json
import os
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from stillhouse.errors import Refused, UserError, nearest
from stillhouse.events import reached
from stillhouse.keys import digest, file_digest
from tasks.alerts import tell
from tasks.decisions import set_decision
from tasks.light_registry import open_registry
from tasks.mlflow_home import ARTIFACTS, database_file, lock, tracking_uri
from tasks.versions import (
    BUNDLE_DIGEST,
    CHALLENGER,
    CHAMPION,
    DIGEST,
    LINEAGE,
    METRICS,
    MODEL_KEY,
    PREVIOUS,
    RELEASE_KEY,
    ROLLED_BACK,
    RULES,
    VERDICT,
    Against,
    Version,
    ask_models,
    find,
    location_of,
    now,
    read_models,
    remember,
    with_alias,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tasks.light_registry import HttpRegistry, SqliteRegistry

    Client = MlflowClient | SqliteRegistry | HttpRegistry

_NUMBERED = re.compile(r"(?P<version>[^@]+/\d+)(?:/(?P<step>[^/@]+))?")
BUNDLE = Path("artifacts") / "bundle"
"""Where the bundle lies inside a logged model."""


def describe(version: Version) -> dict[str, Any]:
    """`{version, digest, against, release_key, model_key, tags}`; digest is that of the model's content."""
    tags = version.tags
    return {
        "version": version.version, "digest": tags.get(DIGEST), "against": version.against,
        "release_key": tags.get(RELEASE_KEY), "model_key": tags.get(MODEL_KEY), "tags": dict(tags),
    }  # fmt: skip


def champion(home: Path, name: str) -> dict[str, Any] | None:
    """The champion of `name` (see `describe`), or None."""
    found = with_alias(read_models(home, name).get(name, []), CHAMPION)
    return describe(found) if found else None


def candidates_for_against(champion: Version | None, versions: list[Version], model_key: str) -> Against:
    """What a candidate made of the model artifact `model_key` is to be measured against: `{version, digest}` or None.

    (a) The champion is this model: what it was measured against when it was released. Else (b) a version of this model
    was rolled back: again what that version was measured against. Else (c) the champion.

    So an unchanged recipe asks for the release it already has, before and after its own promotion and after a rollback.
    A challenger counts as new (c): when the champion moves, running again measures it against the new one.
    """
    if champion is not None and champion.tags.get(MODEL_KEY) == model_key:
        return champion.against
    rolled_back = [v for v in versions if v.rolled_back and v.tags.get(MODEL_KEY) == model_key]
    if rolled_back:
        return max(rolled_back, key=lambda version: version.version).against
    return {"version": champion.version, "digest": champion.tags.get(DIGEST)} if champion else None


def against_for(home: Path, name: str, model_key: str) -> Against:
    """`candidates_for_against` with what the registry says now: what enters the key of `release.gate`."""
    versions = read_models(home, name).get(name, [])
    return candidates_for_against(with_alias(versions, CHAMPION), versions, model_key)


def list_models(home: Path, only: str | None = None) -> list[dict[str, Any]]:
    """Every model (or `only` one) with its aliases and versions, for `stillhouse models`."""
    listed = []
    models = read_models(home)
    if only is not None and only not in models:
        find(models, only)
    for name, versions in sorted(models.items()):
        if only not in (None, name):
            continue
        aliases = {alias: version.version for version in versions for alias in version.aliases}
        shown = [
            {
                "version": version.version, "aliases": list(version.aliases), "created": version.created_ms / 1000,
                "metrics": json.loads(version.tags.get(METRICS, "{}")), "verdict": version.tags.get(VERDICT),
                "rolled_back": version.rolled_back, "digest": version.tags.get(DIGEST), "against": version.against,
                "rules": json.loads(version.tags.get(RULES, "{}")), "decision": version.decision,
            }
            for version in versions
        ]  # fmt: skip
        listed.append({"name": name, "aliases": aliases, "versions": shown})
    return listed


def resolve(home: Path, spec: str) -> dict[str, Any]:
    """`describe` of the version that `spec` means (see `find`), with its name, aliases and its bundle's directory."""
    version = find(read_models(home), spec)
    directory = _bundle(home, version)
    return {**describe(version), "name": version.name, "aliases": list(version.aliases), "directory": directory}


def lineage_key(home: Path, spec: str) -> str | None:
    """The artifact key that `NAME@ALIAS[/STEP]` or `NAME/VERSION[/STEP]` means; None when no version has the alias.

    Without STEP it is the version's model, with STEP the step of that name in the model's lineage.
    """
    numbered = _NUMBERED.fullmatch(spec)
    if numbered:
        step = numbered["step"]
        version = find(read_models(home), numbered["version"])
    else:
        name, _, rest = spec.partition("@")
        alias, _, step = rest.partition("/")
        version = with_alias(read_models(home, name).get(name, []), alias or CHAMPION)
    if version is None:
        return None
    steps = json.loads(version.tags.get(LINEAGE, "{}"))
    if step and step not in steps:
        raise UserError(f'"{version.name}" version {version.version} has no step "{step}"', nearest(step, set(steps)))
    return steps[step] if step else version.tags.get(MODEL_KEY)


def kept_keys(home: Path) -> tuple[set[str], set[str]]:
    """Release keys (of champions, previous and challengers; of all other versions), for `store gc`."""
    versions = [version for found in read_models(home).values() for version in found]
    used = {version.tags[RELEASE_KEY] for version in versions if version.aliases and RELEASE_KEY in version.tags}
    return used, {version.tags[RELEASE_KEY] for version in versions if RELEASE_KEY in version.tags} - used


def _bundle(home: Path, version: Version) -> Path:
    location = version.location or location_of(open_registry(home), version.model_id)
    if not location:
        raise UserError(
            f'"{version.name}" version {version.version} was not registered by a recipe and has no bundle',
            f"Use another version, or mlflow.pyfunc.load_model('models:/{version.name}/{version.version}')",
        )
    artifacts = local_artifacts(home, location) or _download(home, version.model_id)
    wrong = damage(artifacts, version)
    if wrong:
        raise UserError(
            f'"{version.name}" version {version.version}: its bundle {artifacts / BUNDLE} {wrong}',
            "Run its recipe again, which mends it, or use another version",
        )
    return artifacts / BUNDLE


def local_artifacts(home: Path, location: str) -> Path | None:
    """Where the files of a logged model are; None on a remote store. A home that was moved takes its models along."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    path = Path(unquote(parts.path))
    if database_file(home) is not None and ARTIFACTS in path.parts:
        inside = path.parts[len(path.parts) - path.parts[::-1].index(ARTIFACTS) :]
        here = home / ARTIFACTS / Path(*inside)
        return here if here.exists() or not path.exists() else path
    return path


def damage(artifacts: Path, version: Version) -> str:
    """What is wrong with the bundle of a logged model, as the end of a sentence; "" when it is as registered."""
    bundle = artifacts / BUNDLE
    if not bundle.is_dir():
        return "is missing"
    expected = version.tags.get(BUNDLE_DIGEST)  # versions of an older Stillhouse have none
    return "was changed" if expected and bundle_digest(bundle) != expected else ""


def bundle_digest(bundle: Path) -> str:
    """Digest of all files of a bundle, Python's own caches left out."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return digest({path.relative_to(bundle).as_posix(): file_digest(path) for path in files})


def _download(home: Path, model_id: str) -> Path:
    """A logged model of a remote server; it never changes, so it is fetched once."""
    final = home / "cache" / "models" / model_id
    if final.is_dir():
        return final
    from mlflow.artifacts import download_artifacts

    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as beside:
        got = download_artifacts(f"models:/{model_id}", dst_path=beside, tracking_uri=tracking_uri(home))
        try:
            os.rename(got, final)
        except OSError:
            if not final.is_dir():  # else another process was faster
                raise
    return final


def promote(
    home: Path, name: str, version: int, force: bool = False, *, by: str = "", comment: str = ""
) -> dict[str, Any]:
    """Make `version` the champion, what was champion `previous`; without a passed verdict only by `force`.

    When, and with `by` and `comment` who and why, are tags of the version.
    """
    with lock(home, f"aliases-{name}"):
        client, found = now(home, f"{name}/{version}")
        name = found.name
        if found.tags.get(VERDICT) != "passed" and not force:
            raise Refused(f'"{name}" version {version} has no passed verdict', "Add --force to promote it all the same")
        if found.rolled_back:
            client.delete_model_version_tag(name, str(version), ROLLED_BACK)
        versions = ask_models(client, name)[name]
        left = with_alias(versions, CHAMPION)
        if left is not None and left.version > found.version:  # back by hand: no cached run shall undo it
            client.set_model_version_tag(name, str(left.version), ROLLED_BACK, str(found.version))
        at = datetime.now(UTC).isoformat(timespec="seconds")
        set_decision(client, found, {"approve": True, "by": by, "comment": comment, "at": at})
        make_champion(home, client, versions, found)
        remember(home)
    return {"name": name, "version": found.version, "alias": CHAMPION}


def rollback(home: Path, name: str) -> dict[str, Any]:
    """Swap champion and previous; the version that was champion is marked, so that no cached run promotes it again.

    Every kill in between is repaired by calling it again: mark, then champion, then previous.
    """
    if "/" in name or "@" in name:
        raise UserError(
            f'"{name}" names one version', "Rollback takes the model's name alone; to choose a version: promote"
        )
    with lock(home, f"aliases-{name}"):
        client, left = now(home, name)
        name = left.name
        versions = ask_models(client, name)[name]
        back = with_alias(versions, PREVIOUS)
        half_done = next((v for v in versions if v.tags.get(ROLLED_BACK) == str(left.version) and back == left), None)
        if half_done:
            left, back = half_done, left
        if back is None or back == left:
            raise UserError(
                f'"{name}" has no previous version to go back to', f"Try: stillhouse promote {name} VERSION"
            )
        client.set_model_version_tag(name, str(left.version), ROLLED_BACK, str(back.version))
        if back.rolled_back:
            client.delete_model_version_tag(name, str(back.version), ROLLED_BACK)
        client.set_registered_model_alias(name, CHAMPION, str(back.version))
        reached(home, "rollback.champion", name=name)
        client.set_registered_model_alias(name, PREVIOUS, str(left.version))
        remember(home)
    tell(home, "rolled-back", name, version=back.version, left=left.version)
    return {"name": name, "version": back.version, "alias": CHAMPION, "previous": left.version}


def make_champion(home: Path, client: "Client", versions: list[Version], version: Version) -> None:
    """`champion` is the last alias to move; the caller holds the lock, so a kill in between leaves the old champion.

    A newer version of the model that is champion already (other gate settings) leaves `previous` where it is: going
    back to the same model would help nobody.
    """
    name, old, before = version.name, with_alias(versions, CHAMPION), with_alias(versions, PREVIOUS)
    if old is not None and old.version != version.version and old.tags.get(DIGEST) != version.tags.get(DIGEST, ""):
        client.set_registered_model_alias(name, PREVIOUS, str(old.version))
    elif before is not None and before.version == version.version:
        client.delete_registered_model_alias(name, PREVIOUS)
    challenger = with_alias(versions, CHALLENGER)
    if challenger is not None and challenger.tags.get(DIGEST) == version.tags.get(DIGEST, ""):
        client.delete_registered_model_alias(name, CHALLENGER)
    reached(home, "register.previous", name=name)
    client.set_registered_model_alias(name, CHAMPION, str(version.version))


def export(home: Path, name: str, directory: Path) -> dict[str, Any]:
    """Copy the bundle of `name` (or `name@alias`, `name/version`) to `directory`, whole or not at all."""
    found = resolve(home, name)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is not empty", "Name a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".export-") as beside:
        ignored = shutil.ignore_patterns("__pycache__")
        copied = shutil.copytree(found["directory"], Path(beside) / "bundle", ignore=ignored)
        os.replace(copied, directory)
    return {"name": found["name"], "version": found["version"], "directory": str(directory)}
