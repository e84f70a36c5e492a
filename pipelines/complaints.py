"""What is wrong with a recipe, in one line that names the place and what is allowed."""

from typing import Any

from pydantic import BaseModel, ValidationError

from pipelines.merge import patched
from pipelines.schema import Recipe, Resources, Step
from stillhouse.errors import UserError, nearest
from stillhouse.methods import METHODS, load_method


def explain_validation(error: ValidationError, model: type[BaseModel], where: str) -> tuple[str, str]:
    """One line for the first of pydantic's complaints, with the nearest allowed name."""
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    path = [str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal["))]
    place = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        if len(path) == 3 and path[0] == "steps" and _is_setting(path[2]):
            fix = f"settings stand under with: {path[1]}: {{with: {{{path[2]}: …}}}}"
            return f'{where}: "{path[2]}" is a setting of the method, not of the step {path[1]}', fix
        return f'{where}: unknown key "{path[-1]}" in {".".join(path[:-1]) or "the recipe"}', nearest(path[-1], known)
    if first["type"] == "missing":
        return f"{where}: {place} is missing", "Add it"
    value = repr(first.get("input"))
    return f"{where}: {place} is {value[:60]}", first["msg"]


def _is_setting(name: str) -> bool:
    return any(name in load_method(method).model_fields for method in METHODS)


def _known_keys(model: type[BaseModel], path: list[str]) -> set[str]:
    if model is Recipe and len(path) >= 2:
        model = Resources if path[-1] == "resources" else Step
    return {field.alias or name for name, field in model.model_fields.items()}


def check_retrain(tree: dict[str, Any], where: str) -> None:
    """What the `retrain` section makes of the steps must be a recipe too: said now, not when new data is there."""
    steps = tree["steps"]
    for name, step in (tree.get("retrain") or {}).items():
        if name not in steps and "uses" not in (step or {}):
            raise UserError(
                f'{where}: retrain.{name} has no `uses`, and there is no step "{name}"', nearest(name, set(steps))
            )
    if not tree.get("retrain"):
        return
    again = patched(tree)
    try:
        Recipe.model_validate(again)
    except ValidationError as error:
        raise UserError(*explain_validation(error, Recipe, f"{where}: retrain")) from None
    for name in [name for name, step in tree["retrain"].items() if step is not None]:
        step = again["steps"][name]
        if step["uses"] not in METHODS:
            fix = nearest(step["uses"], set(METHODS))
            raise UserError(f'{where}: retrain.{name}.uses: unknown method "{step["uses"]}"', fix)
        method = load_method(step["uses"])
        unknown = sorted(set(step.get("inputs") or {}) - set(method.slots))
        if unknown:
            fix = nearest(unknown[0], set(method.slots))
            raise UserError(f'{where}: retrain.{name}.inputs: {step["uses"]} has no slot "{unknown[0]}"', fix)
        try:
            method.model_validate(step.get("with") or {})
        except ValidationError as error:
            raise UserError(*explain_validation(error, method, f"{where}: retrain.{name}.with")) from None
