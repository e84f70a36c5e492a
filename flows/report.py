"""Find what a report is about, and write it: one HTML file that needs nothing else."""

import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError, nearest
from stillhouse.files import write_text
from stillhouse.store import Store
from stillhouse.upkeep import find_key

REPORTS = "reports"
LATEST = "@latest"
"""MLflow keeps this word for itself: it is nobody's alias."""
LEAST_KEY = 6
"""Characters of a key, at least, so that a mistyped name is not taken for one."""
INSTALLED = ("stillhouse", "prefect", "mlflow", "onnxruntime", "numpy", "pandas")
KINDS = ("release", "scores")


def write_report(home: Path, spec: str, output: Path | None = None) -> Path:
    """Write the report of `spec` and return its file; `output` defaults to a file in `HOME/reports`.

    `spec`: a registered model (`name`, `name@alias`, `name/version`), the newest run of a recipe (`name@latest`, or its
    name where no model has it), a recipe's file, or the beginning of an artifact's key. Raises `UserError` for another.
    """
    key, model, bundle = find_subject(home, spec)
    return report_of(home, key, output, model, bundle)


def report_of(
    home: Path, key: str, output: Path | None = None, model: dict[str, Any] | None = None, bundle: Path | None = None,
    states: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """The report of the artifact `key`; `model` (see `tasks.registry.describe`, with its name) if it is registered.

    `states`: what a run did about each step, by key.
    """
    from stillhouse.report.collect import collect, read_lines, read_retrains
    from stillhouse.report.page import build_page

    facts = collect(home, key, bundle)
    name = model["name"] if model else str(facts["recipe"] or key[:12])
    folder = Path(name).name
    facts |= {
        "model": model, "states": states or {}, "made": time.time(), "installed": installed(),
        "history": read_lines(home / "monitor" / folder / "history.jsonl"),
        "retrains": read_retrains(home / "retrain" / folder),
    }  # fmt: skip
    path = _place(home, key, folder, output)
    try:
        write_text(path, build_page(facts))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}", "Name another file with -o") from None
    return path


def default_path(home: Path, key: str, name: str) -> Path:
    return home / REPORTS / f"{name}-{key[:12]}.html"


def _place(home: Path, key: str, name: str, output: Path | None) -> Path:
    if output is None:
        path = default_path(home, key, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    if output.is_dir():
        return output / f"{name}-{key[:12]}.html"
    if not output.parent.is_dir():
        raise UserError(f"there is no directory {output.parent}", "Make it, or name another file")
    target = output.resolve()  # a link stays one
    if target.exists() and not target.is_file():
        raise UserError(f"{output} is no file", "Name another one")
    return target


def find_subject(home: Path, spec: str) -> tuple[str, dict[str, Any] | None, Path | None]:
    """(key of the artifact that `spec` means, the registered version if it is one, its bundle)."""
    from tasks.versions import read_models

    if spec.endswith((".yaml", ".yml")):
        return _planned(home, spec), None, None
    if spec.endswith(LATEST):
        return _newest(home, spec.removesuffix(LATEST)), None, None
    models = read_models(home)
    name = spec.partition("@")[0] if "@" in spec else spec.partition("/")[0]
    if name in models:
        return _registered(home, spec)
    if len(spec) >= LEAST_KEY and all(letter in "0123456789abcdef" for letter in spec.lower()):
        return find_key(Store(home), spec), None, None
    if name != spec:
        raise UserError(f'no model "{name}"', nearest(name, set(models)) or "`stillhouse models` lists them")
    return _newest(home, spec, set(models)), None, None


def _registered(home: Path, spec: str) -> tuple[str, dict[str, Any], Path | None]:
    from tasks.registry import describe, resolve
    from tasks.versions import find, read_models

    version = find(read_models(home), spec)
    model = {**describe(version), "name": version.name, "aliases": list(version.aliases)}
    model |= {"rolled_back": version.rolled_back, "created": version.created_ms / 1000}
    if not model["release_key"]:
        raise UserError(
            f'"{version.name}" version {version.version} was not registered by a recipe', "Name another one"
        )
    try:
        bundle = resolve(home, f"{version.name}/{version.version}")["directory"]
    except UserError:  # damaged or gone: the store tells what it can
        bundle = None
    return model["release_key"], model, bundle


def _newest(home: Path, recipe: str, others: set[str] | None = None) -> str:
    """The release that a run of the recipe last made or used, else its scores, else whatever it made last."""
    store = Store(home)
    manifests = [manifest for key in store.list_keys() if (manifest := store.manifest(key))]
    own = [manifest for manifest in manifests if manifest.get("recipe") == recipe]
    for kind in KINDS:
        found = next((manifest for manifest in own if manifest["kind"] == kind), None)
        if found:
            return found["key"]
    if own:
        return own[0]["key"]
    known = {str(manifest.get("recipe")) for manifest in manifests} | (others or set())
    if not known:
        raise UserError("there is nothing to report on yet", "`stillhouse run opinions` makes something")
    raise UserError(f'no model, recipe or artifact "{recipe}"', nearest(recipe, known))


def _planned(home: Path, file: str) -> str:
    """The release or the scores of the plan of a recipe's file, else the newest of its name."""
    from flows.recipe_run import plan_request
    from flows.request import Request

    plan = plan_request(Request(file), home)
    done = [step for step in plan.steps if step.hit]
    for kind in KINDS:
        found = next((step for step in done if step.kind == kind), None)
        if found:
            return found.key
    return _newest(home, plan.recipe.name)


def installed() -> dict[str, str]:
    """Versions here and now, of Python and of what is installed of the few that matter; imports none of them."""
    found = {"python": platform.python_version()}
    for name in INSTALLED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
