"""The recipe of a retraining: a model's own recipe on its data and the new rows, with its `retrain:` section applied.

Without such a section, or `from_scratch`, only the data step changes: every stage trains again on old and new rows.
What comes from the champion is named by version, so that a later champion changes nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.merge import REGISTRY, map_inputs, patched
from stillhouse.data._spool import RESERVED
from stillhouse.errors import UserError
from stillhouse.methods import load_method

OF_THE_FILE = (
    "format", "delimiter", "column_names", "subset", "given_splits", "validation", "test", "labels", "confidence",
    "min_confidence", "max_train_rows",
)  # fmt: skip
"""Settings of a data step that speak of the first file; new rows are checked and renamed before they are kept. The data
before is its sample already: a sample of both would leave out most of what is new."""
EPOCH = "epoch"
UNLABELLED = "unlabelled"
"""The step that prepares texts without labels, and the file's suffix."""


@dataclass(frozen=True)
class Fresh:
    """What a retraining starts from."""

    name: str
    """Registered name."""
    version: int
    """The champion's."""
    source: Path
    """New rows, with the columns `text` and `label`."""
    from_scratch: bool = False
    grow: bool = False
    """The new rows have labels that the champion does not know."""
    unlabelled: Path | None = None
    """Texts for the slot `extra` of the distilling steps."""


def data_step(steps: dict[str, Any], where: str) -> str:
    """The name of the step whose rows the model learns from and is judged by."""
    found = [name for name, step in steps.items() if load_method(step["uses"]).output == "data"]
    if len(found) > 1:
        judged = {
            step["inputs"].get("data") for step in steps.values()
            if step["uses"] in ("evaluate.compare", "release.gate") and step.get("inputs")
        }  # fmt: skip
        found = [name for name in found if name in judged]
    if len(found) != 1 or steps[found[0]]["uses"] != "prepare.text":
        uses = ", ".join(steps[name]["uses"] for name in found) or "none"
        raise UserError(
            f"{where} cannot be trained again on added rows: that needs one step prepare.text (it has {uses})",
            "Give the data step the slot `previous` in a recipe of your own, and run that",
        )
    return found[0]


def retrain_tree(whole: dict[str, Any], fresh: Fresh) -> dict[str, Any]:
    """The recipe to be run, as plain data; `whole` is the recipe that made the champion, as it was stored."""
    tree = patched({**whole, "retrain": None} if fresh.from_scratch else whole)
    data = data_step(tree["steps"], fresh.name)
    steps = {name: _step(name == data, step, fresh) for name, step in tree["steps"].items()}
    previous = steps[data].setdefault("inputs", {})
    previous.setdefault("previous", f"{REGISTRY}{fresh.name}@champion/{data}")
    if fresh.unlabelled is not None:
        steps = _with_unlabelled(steps, data, fresh.unlabelled)
    return {**tree, "steps": map_inputs(steps, _frozen(fresh))}


def _step(is_data: bool, step: dict[str, Any], fresh: Fresh) -> dict[str, Any]:
    step = {**step, "with": dict(step.get("with") or {}), "inputs": dict(step.get("inputs") or {})}
    if is_data:
        kept = {name: value for name, value in step["with"].items() if name not in OF_THE_FILE}
        return {**step, "with": {**kept, "source": str(fresh.source), "text": "text", "label": "label"}}
    if step["uses"] == "evaluate.compare":
        step["inputs"].setdefault("champion", f"{REGISTRY}{fresh.name}@champion")
        slices = list(step["with"].get("slices") or [])
        if EPOCH in RESERVED and EPOCH not in slices:
            step["with"]["slices"] = [*slices, EPOCH]
    if fresh.grow and step["uses"].startswith(("train.", "distill.")) and _from_registry(step["inputs"]):
        step["with"]["grow_head"] = True
    return step


def _from_registry(inputs: dict[str, Any]) -> bool:
    """The step starts from an older model, or has one as a teacher."""
    refs = [ref for slot in ("model", "teachers") for ref in _as_list(inputs.get(slot))]
    return any(ref.startswith(REGISTRY) for ref in refs)


def _as_list(refs: str | list[str] | None) -> list[str]:
    return [refs] if isinstance(refs, str) else refs or []


def _with_unlabelled(steps: dict[str, Any], data: str, path: Path) -> dict[str, Any]:
    """Distilling steps get the texts without labels as `extra`, where the recipe gives them nothing there."""
    kept = {key: steps[data]["with"][key] for key in ("normalize",) if key in steps[data]["with"]}
    wanting = [
        name for name, step in steps.items()
        if step["uses"].startswith("distill.") and "extra" not in step["inputs"]
    ]  # fmt: skip
    if not wanting:
        return steps
    prepared = {"uses": "prepare.text", "with": {**kept, "source": str(path), "near_duplicates": False}}
    changed = {name: {**steps[name], "inputs": {**steps[name]["inputs"], "extra": UNLABELLED}} for name in wanting}
    return {**steps, UNLABELLED: prepared, **changed}


def _frozen(fresh: Fresh) -> Any:
    """The champion by version. Not in the slot `champion`: that is the one which the gate measures against."""
    moving, fixed = f"{REGISTRY}{fresh.name}@champion", f"{REGISTRY}{fresh.name}/{fresh.version}"

    def change(slot: str, reference: str) -> str:
        if slot == "champion" or not (reference == moving or reference.startswith(f"{moving}/")):
            return reference
        return fixed + reference[len(moving) :]

    return change
