"""One planned step → its artifact: a hit, or a job for the worker. Shared by Prefect tasks and the local run."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.listener import Outcome
from pipelines.plan import Plan, PlannedStep, lock_file, needed
from stillhouse.errors import StillhouseError, UserError
from stillhouse.files import write_json
from stillhouse.launcher import Launcher, Progress
from stillhouse.methods import load_method
from stillhouse.store import Manifest, Store

MIN_FREE_BYTES = 1 << 30
BACK_OFF_SECONDS = (1.0, 10.0, 30.0)


def job_spec(step: PlannedStep, plan: Plan, home: Path, *, rebuild: bool = False) -> dict[str, Any]:
    """Everything a worker needs for `step`, as plain JSON."""
    return {
        "home": str(home), "step": step.name, "method": step.uses, "key": step.key, "kind": step.kind,
        "settings": step.settings, "seed": step.seed, "parts": step.parts, "against": step.against,
        "inputs": {slot: [asdict(item) for item in items] for slot, items in step.inputs.items()},
        "sources": {name: asdict(source) for name, source in step.sources.items()},
        "recipe": shown_recipe(step, plan),
        "share_machine": step.resources.share_machine, "timeout_seconds": step.resources.timeout_seconds,
        "rebuild": rebuild,
    }  # fmt: skip


def shown_recipe(step: PlannedStep, plan: Plan) -> dict[str, Any]:
    """What a model card says of the recipe: the steps that lead to `step`, and nothing that changes no key."""
    whole = plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    steps = {
        name: {key: value for key, value in whole["steps"][name].items() if key != "resources"}
        for name in plan.recipe.steps if name in needed(plan.recipe, step.name)
    }  # fmt: skip
    return {key: whole[key] for key in ("name", "seed") if key in whole} | {"steps": steps}


def find_hit(spec: dict[str, Any]) -> Outcome | None:
    """The outcome of a step that the store already has (verified), else None.

    When an input was rebuilt meanwhile, with other content, the step stays a hit with a warning; evaluation and release
    are made again (`spec["rebuild"]` is set). Looked at here, not only in the plan: the rebuild may be of this run.
    """
    store = Store(Path(spec["home"]))
    manifest = None if spec["rebuild"] else store.hit(spec["key"])
    if manifest is None:
        return None
    slot = store.rebuilt_input(manifest)
    if slot and load_method(spec["method"]).strict:
        spec["rebuild"] = True
        return None
    found = outcome(spec, manifest, "cached", 0.0)
    return {**found, "warning": f'made from other content of the input "{slot}" than is there now'} if slot else found


def build(spec: dict[str, Any], launcher: Launcher, progress: Progress) -> Outcome:
    """Have the worker make the artifact. Raises `UserError`, `BugError` or `WorkerError` (worth a retry)."""
    answer = launcher.run(spec, progress, spec["timeout_seconds"])
    manifest = Store(Path(spec["home"])).hit(spec["key"])
    assert manifest is not None, "the worker said done but published nothing"
    return outcome(spec, manifest, answer["state"], answer["seconds"])


def trying_again(step: str, error: StillhouseError, wait: float) -> str:
    """What is said between a lost worker and the next one."""
    return f"{step}: {error.message}; trying again in {wait:.0f} s (it goes on where it was)"


def back_off(attempt: int) -> float:
    """Seconds to wait after failure number `attempt`, from 0."""
    return BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)]


def outcome(spec: dict[str, Any], manifest: Manifest, state: str, seconds: float) -> Outcome:
    """One entry of the run's `steps`; a release that the gate refused says so, cached or not."""
    metrics = manifest["metrics"]
    if manifest["kind"] == "release" and not metrics.get("passed"):
        state = "refused"
    return {
        "name": spec["step"], "uses": spec["method"], "key": spec["key"], "state": state,
        "seconds": round(seconds, 2), "metrics": metrics,
    }  # fmt: skip


def failed(spec: dict[str, Any], error: StillhouseError) -> Outcome:
    return {
        "name": spec["step"], "uses": spec["method"], "key": spec["key"], "state": "failed",
        "seconds": 0.0, "metrics": {}, "error": str(error),
    }  # fmt: skip


def estimate_seconds(plan: Plan, store: Store) -> dict[str, float | None]:
    """Expected seconds by step that will run: what it took last time here, else what the recipe expects."""
    last: dict[tuple[str, str], float] = {}
    for key in store.list_keys():
        manifest = store.manifest(key)
        if manifest and "measured" in manifest:
            last.setdefault((manifest["recipe"], manifest["step"]), manifest["measured"]["seconds"])
    return {
        step.name: last.get((plan.recipe.name, step.name), step.resources.expect_seconds)
        for step in plan.steps
        if not step.hit
    }


def check_disk(home: Path) -> None:
    """Refuse to begin what would fill the disk."""
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"only {free / 1e9:.1f} GB free where {home} is, {MIN_FREE_BYTES / 1e9:.1f} GB are needed",
            "Free some, run `stillhouse store gc`, or set STILLHOUSE_HOME to another disk",
        )


def save_pinned(plan: Plan, home: Path) -> None:
    """Keep what planning resolved: file digests, and Hub revisions in the lock file."""
    plan.memo.save()
    if plan.pinned:
        write_json(lock_file(plan.path, home), plan.pinned)
