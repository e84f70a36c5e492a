"""The Prefect flow that runs any recipe: every step a named task run, results and verdict on the run's page."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, tags
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext, SettingsContext, TagsContext, get_settings_context
from prefect.exceptions import UnfinishedRun
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from pydantic import Field

from flows.approval import decide_release
from flows.environment import has_server
from flows.recipe_run import conclude, plan_request
from flows.request import Request, Result
from pipelines.execute import failed, job_spec, save_pinned
from pipelines.listener import Listener, Outcome
from pipelines.plan import Plan
from stillhouse.errors import StillhouseError
from stillhouse.home import find_home, make_home
from stillhouse.launcher import Launcher
from tasks.dead_flow_runs import close_dead_flow_runs, process_tag
from tasks.run_tracker import RunTracker
from tasks.session import SESSION, Session
from tasks.steps import best_effort, task_for


@flow(name="run-recipe", flow_run_name="{recipe}", persist_result=False, log_prints=False, validate_parameters=True)
def run_recipe(
    recipe: Annotated[str, Field(title="Recipe", description="A shipped recipe's name, or a YAML file")],
    overrides: Annotated[list[str] | None, Field(title="Overrides", description="STEP.KEY=VALUE, one a line")] = None,
    until: Annotated[str | None, Field(title="Until", description="Stop after this step")] = None,
    rebuild: Annotated[list[str] | None, Field(title="Rebuild", description="Steps to build again")] = None,
    promote: Annotated[bool, Field(title="Promote", description="Make what passes the champion")] = True,
    approval: Annotated[bool, Field(title="Approval", description="Wait for a person before it is promoted")] = False,
    approval_timeout_hours: Annotated[
        float, Field(title="Hours to approve", description="Then it stays challenger", gt=0)
    ] = 24,
) -> Any:
    """Run every step of a recipe; what the store has comes back as Cached."""
    request = Request(
        recipe, overrides or [], until, rebuild or [], promote, approval=approval,
        approval_timeout_hours=approval_timeout_hours,
    )  # fmt: skip
    current = SESSION.get()
    if current is not None:
        return _run(request, current)
    home = make_home(find_home())
    session = Session(home, Launcher(home), Listener())
    token = SESSION.set(session)
    try:
        return _run(request, session)
    finally:
        session.launcher.close()
        SESSION.reset(token)


def run_with_prefect(request: Request, home: Path, listener: Listener) -> Result:
    """Call the flow from this process; failures come back as the exceptions they were."""
    session = Session(home, Launcher(home), listener)
    if not has_server():
        listener.note("starting Prefect, half a minute the first time (--local runs without it)")
        session.launcher.warm_up(["torch", "transformers.modeling_utils"])
    token = SESSION.set(session)
    try:
        with without_heartbeats(), tags(process_tag()):
            state = run_recipe(
                request.recipe, request.overrides, request.until, request.rebuild, request.promote, return_state=True
            )  # fmt: skip
    finally:
        session.launcher.close()
        SESSION.reset(token)
    value = state.result(raise_on_failure=True)
    return Result(**value)


def without_heartbeats() -> AbstractContextManager[Any]:
    """For flow runs of this process: every flow would wait up to a second for its heartbeat thread (Prefect 3.8).

    Nobody listens to them here: the next run closes what a dead process left (`close_dead_flow_runs`). Runs that a
    Prefect worker starts keep theirs, and so does whoever sets the variable.
    """
    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" in os.environ:
        return nullcontext()
    current = get_settings_context()
    # Not `temporary_settings`: that reads all settings anew, 0.2 s.
    flows = current.settings.flows.model_copy(update={"heartbeat_frequency": None})
    return SettingsContext(profile=current.profile, settings=current.settings.model_copy(update={"flows": flows}))


def _run(request: Request, session: Session) -> Any:
    close_dead_flow_runs()
    plan = plan_request(request, session.home)
    save_pinned(plan, session.home)
    tracker = RunTracker(session.home, plan)
    try:
        # The process's tag is the flow run's: a task run asks the server for a place under the limit of each tag.
        with TagsContext(current_tags=set()):
            outcomes = _run_steps(plan, session, set(request.rebuild), tracker)
        result = conclude(plan, session.home, request, outcomes, tracker.run_id)
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, StillhouseError) else "KILLED")
        if isinstance(error, StillhouseError):
            return Failed(message=str(error), data=error)
        raise
    context = FlowRunContext.get()
    result.flow_run = str(context.flow_run.id) if context and context.flow_run else None
    tracker.finish("FINISHED", result.as_json())
    _show(result)
    if request.approval and request.promote:
        decide_release(plan, session.home, request, result)
    return Completed(name="Refused" if result.refusal else "Completed", message=result.refusal, data=vars(result))


def _run_steps(plan: Plan, session: Session, rebuild: set[str], tracker: RunTracker) -> list[Outcome]:
    futures: dict[str, PrefectFuture[Any]] = {}
    by_key = {step.key: step.name for step in plan.steps}
    for step in plan.steps:
        spec = job_spec(step, plan, session.home, rebuild=step.name in rebuild)
        feeds = [by_key[item.key] for items in step.inputs.values() for item in items if item.key in by_key]
        run = task_for(step.uses, step.name, step.resources.retries)
        futures[step.name] = run.submit(spec, wait_for=[futures[name] for name in feeds])
    outcomes: list[Outcome] = []
    first: StillhouseError | None = None
    for step in plan.steps:
        future = futures[step.name]
        future.wait()
        try:
            outcomes.append(future.result())
        except UnfinishedRun:  # it could not start because another failed: that one is what there is to say
            continue
        except StillhouseError as error:
            first = first or error
            tracker.step(failed(job_spec(step, plan, session.home), error))
        else:
            tracker.step(outcomes[-1])
    if first is not None:
        raise first
    return outcomes


def _show(result: Result) -> None:
    with best_effort():
        _show_steps(result)
        _show_verdict(result)


def _show_steps(result: Result) -> None:
    rows = [
        {
            "step": step["name"], "method": step["uses"], "state": step["state"], "seconds": step["seconds"],
            **{name: round(value, 4) for name, value in list(step["metrics"].items())[:4]},
        }
        for step in result.steps
    ]  # fmt: skip
    create_table_artifact(table=rows, key="results", description=f"Steps of {result.recipe}")


def _show_verdict(result: Result) -> None:
    if result.gate is None:
        return
    verdict = "passed" if result.gate["passed"] else "refused"
    lines = [f"# Gate: {verdict}", *(f"- {reason}" for reason in result.gate["reasons"])]
    if result.model:
        lines.append(f"\nRegistered: **{result.model['name']}** version {result.model['version']}")
    if result.refusal:
        lines.append(f"\n{result.refusal}")
    create_markdown_artifact("\n".join(lines), key="verdict", description="The gate's verdict")
