"""The Prefect flow that runs any recipe: every step a named task run, results and verdict on the run's page."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, tags
from prefect.context import FlowRunContext, TagsContext
from prefect.exceptions import UnfinishedRun
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.approval import decide_release
from flows.environment import has_server, prepare
from flows.form import ApprovalHours, NeedsApproval, parameter, run_name
from flows.own_process import own_process
from flows.recipe_run import conclude, plan_request
from flows.request import Request, Result
from flows.run_page import RunPage
from flows.run_results import headline, show_results
from flows.stale import log_trained_again
from pipelines.execute import check_disk, estimate_seconds, failed, job_spec, save_pinned
from pipelines.listener import Listener, Outcome
from pipelines.plan import Plan
from stillhouse.errors import StillhouseError
from stillhouse.home import find_home, make_home
from stillhouse.store import Store
from tasks.dead_flow_runs import close_dead_flow_runs, process_tag
from tasks.links import mlflow_links
from tasks.run_log import failed_state, one_line_errors
from tasks.run_tracker import RunTracker
from tasks.session import SESSION, Session, open_session
from tasks.steps import best_effort, task_for


def _name() -> str:
    filled = flow_run.parameters
    until = filled.get("until")
    changes = {"": ", ".join(filled.get("overrides") or []), "until": until}
    return run_name(str(filled.get("recipe")), changes)


@flow(name="run-recipe", flow_run_name=_name, persist_result=False, log_prints=False, validate_parameters=True)
def run_recipe(
    recipe: Annotated[str, parameter("Recipe", "A recipe's name, or a YAML file")],
    overrides: Annotated[list[str] | None, parameter("Overrides", "STEP.KEY=VALUE, one a line")] = None,
    until: Annotated[str | None, parameter("Until", "Stop after this step")] = None,
    rebuild: Annotated[list[str] | None, parameter("Rebuild", "Steps to build again")] = None,
    promote: Annotated[bool, parameter("Promote", "Make what passes the champion")] = True,
    approval: NeedsApproval = False,
    approval_timeout_hours: ApprovalHours = 24,
) -> Any:
    """Run every step of a recipe; what the store has comes back as Cached."""
    return run_in_session(
        lambda home: Request(
            recipe, overrides or [], until, rebuild or [], promote, approval=approval,
            approval_timeout_hours=approval_timeout_hours,
        )
    )  # fmt: skip


def run_in_session(request_for: Callable[[Path], Request]) -> Any:
    """What a flow returns that runs the recipe of `request_for(home)`: a state, whose message is for people."""
    return in_session(lambda session: _run(request_for, session))


def in_session(do: Callable[[Session], Any]) -> Any:
    """`do(session)` for a flow: in the session of the process that called it, else (a worker did) in one of its own."""
    one_line_errors()
    current = SESSION.get()
    if current is not None:
        return do(current)
    try:
        home = make_home(find_home())
    except StillhouseError as error:
        return failed_state(error)
    prepare(home)
    with open_session(home, Listener()) as session:
        return do(session)


def run_with_prefect(request: Request, home: Path, listener: Listener) -> Result:
    """Call the flow from this process; failures come back as the exceptions they were."""
    with open_session(home, listener) as session:
        if not has_server():
            listener.note("starting Prefect, half a minute the first time (--local runs without it)")
            session.launcher.warm_up(["torch", "transformers.modeling_utils"])
        with own_process(), tags(process_tag()):
            state = run_recipe(
                request.recipe, request.overrides, request.until, request.rebuild, request.promote, return_state=True
            )  # fmt: skip
    value = state.result(raise_on_failure=True)
    return Result(**value)


def run_in_flow(request: Request, session: Session) -> Any:
    """The state of a flow run that does what `request` asks; to be called inside a flow."""
    return _run(lambda home: request, session)


def _run(request_for: Callable[[Path], Request], session: Session) -> Any:
    close_dead_flow_runs()
    try:
        request = request_for(session.home)
        plan = plan_request(request, session.home)
        if not plan.complete:
            check_disk(session.home)
        save_pinned(plan, session.home)
    except StillhouseError as error:
        return failed_state(error)
    log_trained_again(plan, Store(session.home))
    to_run = {**dict.fromkeys(request.rebuild), **estimate_seconds(plan, Store(session.home))}
    page = RunPage(plan.recipe.name, to_run, session.listener)
    session.listener = page
    tracker = RunTracker(session.home, plan)
    try:
        page.start(len(plan.steps))
        result = _do(plan, request, session, tracker)
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, StillhouseError) else "KILLED")
        page.finish(str(error) or type(error).__name__, complete=False)
        if isinstance(error, StillhouseError):
            return failed_state(error)
        raise
    finally:
        session.listener = page.other
    page.finish(headline(result), complete=True)
    show_results(result, session.home)
    if request.approval and request.promote:
        decide_release(plan, session.home, request, result)
        show_results(result, session.home)  # what a person saw before the answer was about a challenger
    message = result.refusal or headline(result)
    return Completed(name="Refused" if result.refusal else "Completed", message=message, data=vars(result))


def _do(plan: Plan, request: Request, session: Session, tracker: RunTracker) -> Result:
    # The process's tag is the flow run's: a task run asks the server for a place under the limit of each tag.
    with TagsContext(current_tags=set()):
        outcomes = _run_steps(plan, session, set(request.rebuild), tracker)
    result = conclude(plan, session.home, request, outcomes, tracker.run_id)
    context = FlowRunContext.get()
    result.flow_run = str(context.flow_run.id) if context and context.flow_run else None
    tracker.finish("FINISHED", result.as_json())
    with best_effort():
        result.links += mlflow_links(session.home, result.model, tracker.run_id)
    return result


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
