"""A person's word before a model that passed its gate becomes champion.

A run of a deployment is suspended: it ends its process, and the page of the run shows a form. Whoever fills it lets the
run go on where it was; all its steps are hits then. Without an answer in time Prefect ends the run as failed, and
the version stays challenger. Where no form can be shown (a plain process, a subflow) nobody is asked: there
`stillhouse promote NAME VERSION --by WHO` is the answer.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, field_validator

from flows.recipe_run import push
from flows.request import Request, Result
from pipelines.plan import Plan
from stillhouse.errors import Refused
from stillhouse.files import read_json
from stillhouse.keys import digest
from stillhouse.store import Store
from tasks.decisions import decision, note_decision
from tasks.versions import CHALLENGER


@dataclass(frozen=True)
class Approval:
    """What a person decided, who it was, and when (UTC, ISO 8601)."""

    approve: bool
    by: str
    comment: str
    at: str


class Answer(RunInput):
    """The form on the page of a suspended run."""

    approve: bool = Field(title="Approve", description="Make this version the champion")
    by: str = Field(title="By", description="Who decides; kept with the version")
    comment: str = Field("", title="Comment", description="Kept with the version")

    @field_validator("by")
    @classmethod
    def _somebody(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("say who decides")
        return value.strip()


def ask(name: str, verdict: dict[str, Any], timeout_seconds: float) -> Approval | None:
    """Suspend this flow run until somebody answers for `verdict`; None where a run cannot be suspended.

    Does not return the first time: Prefect's signal ends the process, and the run begins anew once it is resumed. A
    verdict is asked for once: another one (the champion moved meanwhile) is another question.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None or run.parent_task_run_id is not None:
        return None
    form = Answer.with_initial_data(description=_description(name, verdict))
    key = f"approve-{digest(verdict)[:16]}"
    answer = suspend_flow_run(wait_for_input=form, timeout=max(1, int(timeout_seconds)), key=key)
    return Approval(answer.approve, answer.by, answer.comment, datetime.now(UTC).isoformat(timespec="seconds"))


def _description(name: str, verdict: dict[str, Any]) -> str:
    figures = ", ".join(f"{key} {value:.4g}" for key, value in verdict.get("metrics", {}).items())
    against = verdict.get("against")
    beaten = f"against version {against['version']}" if against else "there is no champion yet"
    applied = [rule for rule in verdict.get("rules", {}).values() if rule["passed"] is not None]
    return f"""# May this become the champion of {name}?

It passed all {len(applied)} rules of its gate ({beaten}).

{figures}"""


def decide_release(plan: Plan, home: Path, request: Request, result: Result) -> None:
    """For a run with `approval`, once its release is a challenger: ask, and promote what was approved.

    The answer is kept with the version before the alias moves, so that after a kill nobody is asked again. Changes
    `result`; call it last, since the first time it ends the process.
    """
    model = result.model
    if not model or model["alias"] != CHALLENGER:
        return
    name, version = model["name"], model["version"]
    kept = decision(home, name, version)
    release = next(step for step in plan.steps if step.kind == "release")
    verdict = read_json(Store(home).path(release.key) / "verdict.json")
    answer = Approval(**kept) if kept else ask(name, verdict, request.approval_timeout_hours * 3600)
    if answer is None:
        model["note"] = f"it waits for approval: stillhouse promote {name} {version} --by WHO"
        return
    if not kept:
        note_decision(home, name, version, vars(answer))
    if not answer.approve:
        why = f": {answer.comment}" if answer.comment else ""
        result.refusal = f"{answer.by} did not approve version {version}, it stays challenger{why}"
        return
    try:
        result.model = push(plan, home, None, promote=True)
    except Refused as refused:
        result.refusal = str(refused)
