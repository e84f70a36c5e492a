"""One run of a recipe from request to result: plan, build what is missing, register what passed."""

import time
from functools import partial
from pathlib import Path
from typing import Any

from flows.environment import check_prefect_database, has_server
from flows.origin import version_tags
from flows.request import Request, Result
from flows.run_report import add_report
from pipelines.execute import check_disk, estimate_seconds, find_hit, job_spec, save_pinned
from pipelines.explain import causes
from pipelines.listener import Listener, Outcome
from pipelines.load import load_recipe
from pipelines.local import run_plan
from pipelines.plan import Plan, World, make_plan
from stillhouse.artifact import Artifact
from stillhouse.errors import Refused, StillhouseError, UserError
from stillhouse.files import read_json
from stillhouse.home import make_home
from stillhouse.store import Store
from tasks import registry
from tasks.register import register
from tasks.run_tracker import RunTracker


def plan_request(request: Request, home: Path) -> Plan:
    """The plan of a request; asks the registry, changes nothing."""
    recipe, path = load_recipe(request.recipe, request.overrides, home)
    store = Store(home)
    world = World(store, partial(registry.against_for, home), partial(_resolve_model, home, store))
    plan = make_plan(recipe, path, world, request.until)
    for name in request.rebuild:
        plan.step(name)
    return plan


def _resolve_model(home: Path, store: Store, spec: str) -> Artifact | None:
    key = registry.lineage_key(home, spec)
    if key is None:
        return None
    manifest, wrong = store.check(key)
    if manifest is None:
        raise UserError(
            f"registry:{spec} is registered, but its artifact {key[:12]} is {wrong or 'not in this store'}",
            "Use its home, run the recipe that made it again, or retrain --from-scratch",
        )
    return Artifact(key, manifest["kind"])


def run_request(request: Request, home: Path, listener: Listener) -> Result:
    """Do what `request` asks. Raises `StillhouseError` for failures; a refusal is a result."""
    started = time.monotonic()
    make_home(home)
    plan = plan_request(request, home)
    store = Store(home)
    listener.plan_made(plan, estimate_seconds(plan, store), causes(plan, store))
    rebuild = set(request.rebuild)
    if plan.complete and not rebuild and not (has_server() and not request.local):
        result = _all_hits(plan, home, request, listener)
    else:
        check_disk(home)
        save_pinned(plan, home)
        result = _run_local(plan, home, request, listener) if request.local else _run_flow(request, home, listener)
    result.seconds = time.monotonic() - started
    return result


def _all_hits(plan: Plan, home: Path, request: Request, listener: Listener) -> Result:
    outcomes: list[Outcome] = []
    for step in plan.steps:
        hit = find_hit(job_spec(step, plan, home))
        if hit is None:  # damaged between planning and now
            return _run_local(plan, home, request, listener)
        listener.step_finished(hit)
        outcomes.append(hit)
    return conclude(plan, home, request, outcomes, None)


def _run_local(plan: Plan, home: Path, request: Request, listener: Listener) -> Result:
    tracker = RunTracker(home, plan)
    try:
        outcomes = run_plan(plan, home, listener, set(request.rebuild), tracker.step)
        result = conclude(plan, home, request, outcomes, tracker.run_id)
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, StillhouseError) else "KILLED")
        raise
    tracker.finish("FINISHED", result.as_json())
    return result


def _run_flow(request: Request, home: Path, listener: Listener) -> Result:
    if not has_server():
        check_prefect_database()
    from flows.run import run_with_prefect

    return run_with_prefect(request, home, listener)


def conclude(plan: Plan, home: Path, request: Request, outcomes: list[Outcome], run_id: str | None) -> Result:
    """Push what the gate passed to the registry (idempotent), write the report, and put the account together."""
    result = _registered(plan, home, request, outcomes, run_id)
    add_report(result, plan, home, run_id)
    return result


def _registered(plan: Plan, home: Path, request: Request, outcomes: list[Outcome], run_id: str | None) -> Result:
    result = Result(plan.recipe.name, outcomes)
    release = next((step for step in plan.steps if step.kind == "release"), None)
    if release is None:
        return result
    directory = Store(home).path(release.key)
    verdict = read_json(directory / "verdict.json")
    result.gate = {"passed": verdict["passed"], "reasons": verdict["reasons"]}
    if not verdict["passed"]:
        result.refusal = "the gate refused: " + "; ".join(verdict["reasons"])
        return result
    try:
        result.model = push(plan, home, run_id, promote=request.promote and not request.approval)
    except Refused as refused:
        result.refusal = str(refused)
    return result


def push(plan: Plan, home: Path, run_id: str | None, *, promote: bool) -> dict[str, Any]:
    """Register the plan's release, which passed; see `tasks.register.register`."""
    store, release = Store(home), next(step for step in plan.steps if step.kind == "release")
    manifest = store.manifest(release.key)
    assert manifest is not None
    return register(
        home, plan.recipe.registered_name, store.path(release.key), manifest,
        promote=promote, lineage=store.lineage(release.key), run_id=run_id,
        steps={step.name: step.key for step in plan.steps}, tags=version_tags(plan, home),
    )  # fmt: skip
