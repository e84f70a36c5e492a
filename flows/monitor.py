"""The Prefect flow `monitor`: what a model was asked since the last run, with tables on the run's page."""

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Completed

from flows.environment import prepare
from flows.form import parameter
from flows.monitor_text import markdown, one_line, table
from flows.monitoring import run_monitor
from flows.own_process import own_process
from stillhouse.errors import StillhouseError
from stillhouse.home import find_home, make_home
from stillhouse.monitor.settings import MonitorSettings
from tasks.run_log import failed_state, one_line_errors
from tasks.steps import best_effort

EVERY_LABEL: list[str] = []
"""Not None: Prefect's form shows `list | None` as a switch between two types."""
DEFAULT = MonitorSettings.model_validate({})


@flow(name="monitor", flow_run_name="monitor {name}", persist_result=False, log_prints=False, validate_parameters=True)
def monitor(  # noqa: PLR0913 - a form is flat
    name: Annotated[str, parameter("Model", "Registered name of the model")],
    since: Annotated[str, parameter("Since", "7d, 12h, 30m ago or a date; empty: what came since the last run")] = "",
    until: Annotated[str, parameter("Until", "The same; empty: the newest row")] = "",
    topic: Annotated[str, parameter("Topic column", "Column of the prediction log")] = DEFAULT.topic,
    surge_labels: Annotated[list[str], parameter("Labels", "Whose rise is a surge; none: every label")] = EVERY_LABEL,
    window_minutes: Annotated[
        float, parameter("Window", "Minutes in which labels are counted for surges", gt=0)
    ] = DEFAULT.window_minutes,
    baseline_days: Annotated[
        float, parameter("Baseline", "Days that a window is compared with", gt=0)
    ] = DEFAULT.baseline_days,
    false_alarm_rate: Annotated[
        float, parameter("False alarms", "Share of runs on steady data that may raise one", gt=0, lt=0.5)
    ] = DEFAULT.false_alarm_rate,
    sample_rows: Annotated[
        int, parameter("Sample", "Embeddings that are compared", ge=50, le=5000)
    ] = DEFAULT.sample_rows,
    min_rows: Annotated[
        int, parameter("Minimum rows", "With fewer rows only surges are tested", ge=20)
    ] = DEFAULT.min_rows,
    min_auc: Annotated[
        float, parameter("Input drift from", "AUC below which it is no alarm", ge=0.5, lt=1)
    ] = DEFAULT.min_auc,
    min_change: Annotated[
        float, parameter("Prediction drift from", "Share of other answers that is an alarm", ge=0, lt=1)
    ] = DEFAULT.min_change,
    min_drop: Annotated[
        float, parameter("Quality from", "Loss of accuracy that is an alarm", ge=0, lt=1)
    ] = DEFAULT.min_drop,
    min_rise: Annotated[
        float, parameter("Surge from", "Rise of a label's share that is an alarm", ge=0, lt=1)
    ] = DEFAULT.min_rise,
    min_count: Annotated[
        int, parameter("Surge count", "Rows of the label that a surge has at least", ge=1)
    ] = DEFAULT.min_count,
    cool_down_hours: Annotated[
        float, parameter("Cool-down", "Hours in which the same is not told again", ge=0)
    ] = DEFAULT.cool_down_hours,
    reference: Annotated[
        Literal["release", "log"],
        parameter("Reference", "What the release knew, or the log's first rows"),
    ] = DEFAULT.reference,
) -> Any:
    """Look for drift, lost quality and surges in what the model was asked since the last run."""
    settings = {
        "topic": topic, "surge_labels": tuple(surge_labels), "window_minutes": window_minutes,
        "baseline_days": baseline_days, "false_alarm_rate": false_alarm_rate, "sample_rows": sample_rows,
        "min_rows": min_rows, "min_auc": min_auc, "min_change": min_change, "min_drop": min_drop,
        "min_rise": min_rise, "min_count": min_count, "cool_down_hours": cool_down_hours, "reference": reference,
    }  # fmt: skip
    one_line_errors()
    try:
        home = make_home(find_home())
        prepare(home)
        line = run_monitor(home, name, since, until, settings)
    except StillhouseError as error:
        return failed_state(error)
    with best_effort():
        create_markdown_artifact(markdown(line), key="monitor", description=f"What was seen of {name}")
        create_table_artifact(table(line), key="monitor-tests", description=f"Tests of {name}")
    return Completed(name="Alarm" if line["alarms"] else "Completed", message=one_line(line), data=line)


def monitor_with_prefect(name: str, since: str, until: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Call the flow from this process, for a command whose home has a server; a failure comes back as it was."""
    given = {**settings, "surge_labels": list(settings.get("surge_labels") or [])}
    with own_process():
        state = monitor(name, since, until, **given, return_state=True)
    return state.result(raise_on_failure=True)
