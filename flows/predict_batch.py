"""The flow of batch prediction, for the deployment `predict`: a schedule, a form, or a call from Python."""

import time
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.states import Completed, Failed
from pydantic import Field

from flows.environment import prepare
from flows.predict import predict_file
from stillhouse.batch.settings import Settings
from stillhouse.errors import StillhouseError
from stillhouse.home import find_home, make_home
from tasks.steps import best_effort

SECONDS = 2.0
"""Between two updates of the progress artifact."""


def _said(title: str, description: str, **constraints: Any) -> Any:
    """Title and description of a parameter. Prefect 3.8 replaces both by the function's own unless they are extra."""
    return Field(json_schema_extra={"title": title, "description": description}, **constraints)


@flow(name="predict_batch", flow_run_name="{model}", persist_result=False, log_prints=False)
def predict_batch(  # noqa: PLR0913 - a form is flat
    model: Annotated[str, _said("Model", "name, name@alias, name/version, or a directory")],
    input: Annotated[str, _said("Input", "CSV, TSV, JSONL or Parquet file: a path or a URL")],
    output: Annotated[str, _said("Output", "File to write; its suffix is its format")],
    text: Annotated[str, _said("Text", "Column with the text")] = "text",
    id: Annotated[str, _said("Id", "Column that tells rows apart, for later labels; empty: ids are made")] = "",
    topic: Annotated[str, _said("Topic", "Column with the topic, for the log; may be empty")] = "",
    time_column: Annotated[str, _said("Time", "Column with a row's time, for the log; empty: now")] = "",
    chunk_rows: Annotated[int, _said("Rows in a chunk", "Rows done at a time", ge=1)] = 10_000,
    log: Annotated[bool, _said("Log", "Add the rows to the model's prediction log")] = True,
    keep_texts: Annotated[bool, _said("Keep texts", "Whether the log holds the texts, or else embeddings")] = True,
    keep_days: Annotated[float, _said("Keep days", "Days the prediction log keeps", ge=0)] = 90,
) -> Any:
    """Predict every row of a file: one row out for one in, in order; run again after a kill it goes on where it was."""
    home = make_home(find_home())
    prepare(home)
    settings = Settings(text, id or None, topic or None, time_column or None, chunk_rows, log, keep_texts)
    notes: list[str] = []
    try:
        account = predict_file(
            model, input, Path(output).expanduser(), settings, lambda: home,
            keep_days=keep_days, tell=_Progress(), say=notes.append,
        )  # fmt: skip
    except StillhouseError as error:
        return Failed(message=str(error), data=error)
    with best_effort():
        lines = [f"# {account['rows']:,} rows", *notes, *(f"- {key}: {value}" for key, value in account.items())]
        create_markdown_artifact("\n".join(lines), key="predictions", description=f"Predictions of {account['model']}")
    return Completed(message=f"{account['rows']:,} rows with {account['model']}", data=account)


class _Progress:
    """`tell` as a progress artifact on the run's page."""

    def __init__(self) -> None:
        self.artifact: Any = None
        self.last = 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        if time.monotonic() - self.last < SECONDS and note != "writing":
            return
        self.last = time.monotonic()
        share = 100 * done / total if total else 0.0
        with best_effort():
            if self.artifact is None:
                self.artifact = create_progress_artifact(share, key="rows", description="Rows predicted")
            else:
                update_progress_artifact(self.artifact, share)
