"""The flow of batch prediction, for the deployment `predict`: a schedule, a form, or a call from Python."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.states import Completed

from flows.environment import prepare
from flows.form import parameter
from flows.predict import predict_file
from stillhouse.batch.settings import Settings
from stillhouse.errors import StillhouseError
from stillhouse.home import find_home, make_home
from tasks.run_log import failed_state, one_line_errors
from tasks.steps import best_effort

SECONDS = 2.0
"""Between two updates of the progress artifact."""


@flow(name="predict_batch", flow_run_name="{model}", persist_result=False, log_prints=False)
def predict_batch(  # noqa: PLR0913 - a form is flat
    model: Annotated[str, parameter("Model", "name, name@alias, name/version, or a directory")],
    input: Annotated[str, parameter("Input", "CSV, TSV, JSONL or Parquet file: a path or a URL")],
    output: Annotated[str, parameter("Output", "File to write; its suffix is its format")],
    text: Annotated[str, parameter("Text", "Column with the text")] = "text",
    id: Annotated[str, parameter("Id", "Column that tells rows apart, for later labels; empty: ids are made")] = "",
    topic: Annotated[str, parameter("Topic", "Column with the topic, for the log; may be empty")] = "",
    time_column: Annotated[str, parameter("Time", "Column with a row's time, for the log; empty: now")] = "",
    chunk_rows: Annotated[int, parameter("Rows in a chunk", "Rows done at a time", ge=1)] = 10_000,
    log: Annotated[bool, parameter("Log", "Add the rows to the model's prediction log")] = True,
    keep_texts: Annotated[bool, parameter("Keep texts", "Whether the log holds the texts, or else embeddings")] = True,
    keep_days: Annotated[float, parameter("Keep days", "Days the prediction log keeps", ge=0)] = 90,
) -> Any:
    """Predict every row of a file: one row out for one in, in order; run again after a kill it goes on where it was."""
    one_line_errors()
    settings = Settings(text, id or None, topic or None, time_column or None, chunk_rows, log, keep_texts)
    notes: list[str] = []
    try:
        home = make_home(find_home())
        prepare(home)
        account = predict_file(
            model, input, Path(os.path.expanduser(output)), settings, lambda: home,
            keep_days=keep_days, tell=_Progress(), say=notes.append,
        )  # fmt: skip
    except StillhouseError as error:
        return failed_state(error)
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
