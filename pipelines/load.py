"""YAML → Recipe: `extends`, `--set`, and errors that name the file, the key and what is allowed."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from pipelines.complaints import check_retrain, explain_validation
from pipelines.merge import map_inputs, merge, merge_patches, own_name
from pipelines.recipe_files import recipe_names as recipe_names
from pipelines.recipe_files import recipe_path
from pipelines.recipe_files import shipped_recipes as shipped_recipes
from pipelines.schema import Recipe
from stillhouse.errors import UserError, nearest
from stillhouse.methods import load_method

MAX_BYTES = 1_000_000
MAX_EXTENDS = 10
MAX_VALUES = 100_000
STEP_KEYS = ("skip", "seed")
"""What `--set STEP.KEY=VALUE` may set on the step itself; anything else is one of the method's settings."""


OF_THE_SOURCE = ("licence", "language")


def load_recipe(
    name: str, overrides: list[str] | None = None, home: Path | None = None
) -> tuple[Recipe, Path]:  # fmt: skip
    """The validated recipe and its file; `overrides` are `STEP.KEY=VALUE` or `seed=VALUE`.

    `name` is a shipped recipe, one of `home/recipes`, or a file; so is what it `extends`.
    """
    path = recipe_path(name, home)
    tree = _read_tree(path, (), home)
    for override in overrides or []:
        _override(tree, override)
    tree.setdefault("name", path.stem)
    return validated(tree, path.name), path


def validated(tree: dict[str, Any], where: str) -> Recipe:
    """The recipe that `tree` says; its references to its own registered name are filled in."""
    _drop_nulls(tree)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(*explain_validation(error, Recipe, where)) from None
    check_retrain(tree, where)
    own = own_name(recipe.registered_name)
    return Recipe.model_validate(
        {**tree, "steps": map_inputs(tree["steps"], own), "retrain": recipe.retrain and map_inputs(recipe.retrain, own)}
    )


def parse_yaml(text: str, name: str) -> Any:
    """Plain data by YAML 1.2 rules; a tag, an anchor bomb or a repeated key is a `UserError`."""
    if len(text) > MAX_BYTES:
        raise UserError(f"{name} is larger than {MAX_BYTES:,} bytes", "A recipe is a page of YAML")
    yaml = YAML(typ="safe", pure=True)
    try:
        value = yaml.load(text)
        _count_values(value, [0])
        return value
    except DuplicateKeyError as error:
        raise UserError(f"{name}: {_first_line(error.problem)}", "Keep one of them") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = _first_line(getattr(error, "problem", None) or str(error))
        raise UserError(f"{name}{where}: {problem}", "A recipe is plain YAML without tags") from None
    except RecursionError:
        raise UserError(f"{name}: nested too deep, or circular aliases", "A recipe is plain YAML") from None
    except ValueError as error:
        raise UserError(f"{name}: {_first_line(str(error))}", "A recipe is plain YAML") from None


def _count_values(value: Any, seen: list[int]) -> None:
    """Stop where aliases multiply the values, or go round in a circle, before anything walks through them."""
    seen[0] += 1
    if seen[0] > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values: aliases that repeat each other")
    for item in (
        [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    ):
        _count_values(item, seen)


def _first_line(text: str | None) -> str:
    return (text or "not valid YAML").strip().splitlines()[0]


def _read_tree(path: Path, above: tuple[Path, ...], home: Path | None) -> dict[str, Any]:
    if path in above or len(above) >= MAX_EXTENDS:
        raise UserError(f"{path.name}: `extends` goes in a circle", "Remove one of the `extends`")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the recipe {path}", str(error)) from None
    tree = parse_yaml(text, path.name)
    if not isinstance(tree, dict):
        raise UserError(f"{path.name} is not a recipe", "It needs `steps:` or `extends:`")
    base_name = tree.pop("extends", None)
    if base_name is None:
        _anchor_paths(tree, tree, path.parent)
        return tree
    base_path = path.parent / str(base_name)
    base = _read_tree(
        base_path.resolve() if base_path.is_file() else recipe_path(str(base_name), home), (*above, path), home
    )  # fmt: skip
    _check_step_names(tree, base, path.name, str(base_name))
    base.pop("name", None)  # a recipe for other data is another model
    base.pop("model", None)
    retrain = merge_patches(base.get("retrain"), tree.get("retrain")) if "retrain" in tree else base.get("retrain")
    for name, step in _steps(tree).items():
        settings = step.get("with") if isinstance(step, dict) else None
        if isinstance(settings, dict) and "source" in settings:
            _forget_source(_steps(base), name)
    _anchor_paths(tree, merge(base, tree), path.parent)
    return {**merge(base, tree), **({"retrain": retrain} if retrain else {})}


def _check_step_names(tree: dict[str, Any], base: dict[str, Any], where: str, base_name: str) -> None:
    """A step without `uses` changes one of the base's."""
    known = set(_steps(base))
    for name, step in _steps(tree).items():
        if isinstance(step, dict) and "uses" not in step and name not in known:
            raise UserError(
                f'{where}: steps.{name} has no `uses`, and {base_name} no step "{name}"', nearest(name, known)
            )


def _steps(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["steps"] if isinstance(tree.get("steps"), dict) else {}


def _retrain(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["retrain"] if isinstance(tree.get("retrain"), dict) else {}


def _forget_source(steps: dict[str, Any], name: str) -> None:
    """Other data: what the recipe says of its own data's licence and language, and how long it takes, does not hold."""
    for other, step in steps.items():
        if not isinstance(step, dict):
            continue
        if isinstance(step.get("resources"), dict):
            step["resources"].pop("expect_seconds", None)
        if other == name and isinstance(step.get("with"), dict):
            for key in OF_THE_SOURCE:
                step["with"].pop(key, None)


def _drop_nulls(tree: dict[str, Any]) -> None:
    for step in tree.get("steps", {}).values() if isinstance(tree.get("steps"), dict) else []:
        if isinstance(step, dict) and step.get("with", 0) is None:
            step["with"] = {}


def _anchor_paths(tree: dict[str, Any], merged: dict[str, Any], directory: Path) -> None:
    """Make the relative paths that `tree` itself says absolute: they are relative to its own file."""
    all_steps = _steps(merged)
    for name, step in [*_steps(tree).items(), *_retrain(tree).items()]:
        uses = step.get("uses") if isinstance(step, dict) else None
        uses = uses or (all_steps[name].get("uses") if isinstance(all_steps.get(name), dict) else None)
        settings = step.get("with") if isinstance(step, dict) else None
        if isinstance(uses, str) and isinstance(settings, dict):
            for key in load_method(uses).external:
                if isinstance(settings.get(key), str):
                    settings[key] = anchored(settings[key], directory)


def anchored(name: str, directory: Path) -> str:
    """A relative path made absolute; `hub:`, `pkg://` and URLs as they are."""
    if name.startswith("hub:") or "://" in name:
        return name
    try:
        return str((directory / Path(name).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, no such user, a zero byte
        raise UserError(f"{name[:80]!r} is no path: {error}", "Name a file that is there") from None


def _override(tree: dict[str, Any], override: str) -> None:
    target, equals, text = override.partition("=")
    if not equals:
        raise UserError(f'--set "{override}" has no value', "Write STEP.KEY=VALUE or seed=VALUE")
    value = parse_yaml(text, f"--set {target}") if text.strip() else text
    if "." not in target:
        if target not in ("seed", "name", "model"):
            raise UserError(f'--set "{target}" is neither STEP.KEY nor seed', "Write STEP.KEY=VALUE or seed=VALUE")
        tree[target] = value
        return
    step_name, _, path = target.partition(".")
    steps = tree.get("steps") or {}
    if step_name not in steps:
        raise UserError(f'--set {target}: no step "{step_name}"', nearest(step_name, set(steps)))
    step = steps[step_name]
    key, *inner = path.split(".")
    if not isinstance(step, dict) or not isinstance(step.get("uses"), str):
        raise UserError(f'--set {target}: the step "{step_name}" has no `uses`', "Mend the recipe first")
    method = load_method(step["uses"])
    if key in STEP_KEYS and key not in method.model_fields:
        step[key] = value
        return
    if key == "resources" and inner:
        _put(step, [key, *inner], value, target)
        return
    if key in method.external and isinstance(value, str):
        value = anchored(value, Path.cwd())
    if key == "source":
        _forget_source(steps, step_name)
    _put(step, ["with", key, *inner], value, target)


def _put(tree: dict[str, Any], path: list[str], value: Any, target: str) -> None:
    for name in path[:-1]:
        if tree.get(name) is None:
            tree[name] = {}
        if not isinstance(tree[name], dict):
            raise UserError(f"--set {target}: {name} is one value, nothing is inside", "Set it as a whole")
        tree = tree[name]
    tree[path[-1]] = value
