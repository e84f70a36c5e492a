"""Flow parameters as Prefect's form wants them, and what was filled in as settings of a recipe."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.fields import FieldInfo

from pipelines.load import load_recipe
from stillhouse.errors import UserError

AS_THE_RECIPE_SAYS = -1
"""A number in the form cannot be empty: with `int | None` Prefect 3.8 shows a switch between two types instead."""
NAME_LENGTH = 100


def parameter(title: str, description: str, *, choices: list[str] | None = None, **constraints: Any) -> Any:
    """A titled, described parameter: `recipe: Annotated[str, parameter("Recipe", "…")]`.

    Prefect 3.8 takes title and description from the function instead of the annotation, and would lose both; what is
    in `json_schema_extra` stays. `choices` are part of the form alone: a recipe that was added after the deployment
    is not refused by the flow.
    """
    extra: dict[str, Any] = {"title": title, "description": description}
    if choices is not None:
        extra["enum"] = choices
    field: FieldInfo = Field(title=title, description=description, json_schema_extra=extra, **constraints)
    return field


NeedsApproval = Annotated[bool, parameter("Approval", "Wait for a person's word before the model becomes champion")]
ApprovalHours = Annotated[
    float, parameter("Hours to approve", "After so many without an answer it stays challenger", gt=0)
]


def overrides_of(recipe: str, home: Path, data: dict[str, Any], seed: int) -> list[str]:
    """`STEP.KEY=VALUE` for what the form says of the data (setting → value; "" and -1 say nothing) and the seed."""
    said = {key: value for key, value in data.items() if value not in ("", AS_THE_RECIPE_SAYS)}
    source = said.get("source")
    if source and not _is_whole(source):
        raise UserError(
            f'the source "{source}" is a relative path',
            "Write the whole path: a run starts in the home, not where you are",
        )
    step = _prepare_step(recipe, home) if said else ""
    overrides = [f"{step}.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in said.items()]
    return overrides if seed == AS_THE_RECIPE_SAYS else [*overrides, f"seed={seed}"]


def _is_whole(source: str) -> bool:
    return source.startswith(("hub:", "~")) or "://" in source or Path(source).is_absolute()


def _prepare_step(recipe: str, home: Path) -> str:
    loaded, path = load_recipe(recipe, home=home)
    names = [name for name, step in loaded.steps.items() if step.uses.startswith("prepare.")]
    if len(names) != 1:
        found = f"{len(names)} steps that prepare data" if names else "no step that prepares data"
        raise UserError(f"{path.name} has {found}", "Leave source, text, label and rows; use overrides")
    return names[0]


def run_name(recipe: str, changes: dict[str, Any]) -> str:
    """The recipe's name and what differs from it, for the list of runs; `changes` that are empty are left out."""
    said = [f"{key} {value}" if key else str(value) for key, value in changes.items() if value not in ("", None)]
    name = ", ".join([Path(recipe).stem if "/" in recipe else recipe, *said])
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
