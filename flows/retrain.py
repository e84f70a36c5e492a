"""The Prefect flow `retrain`: by hand, on a schedule, on new data or on drift; one at a time for a model."""

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, tags
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.form import ApprovalHours, NeedsApproval, parameter
from flows.markdown_text import plain
from flows.own_process import own_process
from flows.request import Request, Result
from flows.retrain_text import describe
from flows.retraining import Ask, retrain_model, wait_for_approval
from flows.run import in_session, run_in_flow
from flows.triggers import Trigger
from pipelines.listener import Listener
from stillhouse.errors import StillhouseError
from tasks.dead_flow_runs import process_tag
from tasks.run_log import failed_state
from tasks.session import Session, open_session
from tasks.steps import best_effort

NAMES = {
    "released": "Released", "challenger": "Challenger", "refused": "Refused", "nothing-new": "NothingNew",
    "too-few": "TooFew", "cooling-down": "CoolingDown", "covered": "Covered",
}  # fmt: skip
"""State of a trigger → name of the flow run's state."""


@flow(name="retrain", flow_run_name="retrain {name}", persist_result=False, log_prints=False, validate_parameters=True)
def retrain(  # noqa: PLR0913
    name: Annotated[str, parameter("Model", "Registered name of the model")],
    reason: Annotated[str, parameter("Reason", "Why: by hand, schedule, new data, drift …")] = "by hand",
    landing: Annotated[
        str, parameter("Landing place", "Folder or URL of new files; empty: landing/NAME of the home")
    ] = "",
    min_rows: Annotated[int, parameter("Minimum rows", "Do nothing below so many new rows", ge=1)] = 1,
    cooldown_hours: Annotated[float, parameter("Cool-down", "Hours that must lie between two retrainings", ge=0)] = 0.0,
    from_scratch: Annotated[bool, parameter("From scratch", "Train every stage again; not from the champion")] = False,
    new_labels: Annotated[
        Literal["set-aside", "grow"],
        parameter("New labels", "Rows with a label that the model does not know: set aside, or learn it"),
    ] = "set-aside",
    unlabelled: Annotated[
        Literal["ignore", "extra"],
        parameter("Without label", "Texts without a label: ignore, or let the teachers explain them"),
    ] = "ignore",
    promote: Annotated[bool, parameter("Promote", "Make what passes the gate the champion")] = True,
    approval: NeedsApproval = False,
    approval_timeout_hours: ApprovalHours = 24,
    recipe: Annotated[str, parameter("Recipe", "Another recipe than the champion's own; empty: that")] = "",
    abandon: Annotated[bool, parameter("Abandon", "Give up what was begun and is not over; decide anew")] = False,
) -> Any:
    """Take in what arrived, then train the model again if there is enough new; on a retry go on with what was begun."""
    ask = Ask(
        name, reason, landing, min_rows, cooldown_hours, from_scratch, new_labels, unlabelled, promote, recipe,
        approval=approval, approval_timeout_hours=approval_timeout_hours, abandon=abandon, flow_run=_own_id(),
    )  # fmt: skip
    return in_session(lambda session: _retrain(ask, session))


def retrain_with_prefect(ask: Ask, home: Path, listener: Listener) -> Trigger:
    """Call the flow from this process, for a command whose home has a server."""
    with open_session(home, listener), own_process(), tags(process_tag()):
        state = retrain(
            ask.name, ask.reason, ask.landing, ask.min_rows, ask.cooldown_hours, ask.from_scratch, ask.new_labels,
            ask.unlabelled, ask.promote, recipe=ask.recipe, abandon=ask.abandon, return_state=True,
        )  # fmt: skip
    return state.result(raise_on_failure=True)


def _own_id() -> str:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else ""


class _Log(Listener):
    """What is said before and after the run goes to the flow run's log too; during it the run's page does that."""

    def __init__(self, other: Listener) -> None:
        self.other = other

    def note(self, text: str) -> None:
        get_run_logger().info("%s", text)
        self.other.note(text)


def _retrain(ask: Ask, session: Session) -> Any:
    def run(request: Request) -> Result:
        try:
            state = run_in_flow(request, session)
        except Pause:  # the process ends here, and begins anew once somebody has answered
            wait_for_approval(session.home, ask)
            raise
        return Result(**state.result(raise_on_failure=True))

    try:
        trigger = retrain_model(ask, session.home, _Log(session.listener), run)
    except StillhouseError as error:
        return failed_state(error)
    with best_effort():
        create_markdown_artifact(
            "\n".join(describe(trigger, plain)), key="retraining", description=f"Retraining of {ask.name}"
        )
    return Completed(name=NAMES[trigger["state"]], message=trigger.get("why") or None, data=trigger)
