"""Batch prediction as a flow: recorded, progress and result on the run's page; a mistake fails it in one line."""

from collections.abc import Iterator

import pandas as pd
import pytest

from stillhouse.errors import UserError
from tests.stillhouse.batch.tiny_batch import write_rows
from tests.tasks.tiny_release import make_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_predicts_and_shows_it(tmp_path, monkeypatch):
    from prefect.client.orchestration import get_client

    from flows.predict_batch import predict_batch

    monkeypatch.setenv("STILLHOUSE_HOME", str(tmp_path / "home"))
    model, source = make_bundle(tmp_path / "model"), write_rows(tmp_path / "rows.csv", 50)
    asked = {"model": str(model), "input": str(source), "output": str(tmp_path / "out.parquet"), "chunk_rows": 20}
    account = predict_batch(**asked)
    assert account["rows"] == len(pd.read_parquet(tmp_path / "out.parquet")) == 50
    with get_client(sync_client=True) as client:
        shown = {artifact.key: artifact for artifact in client.read_artifacts()}
        (run,) = client.read_flow_runs()
    assert shown["rows"].type == "progress" and shown["rows"].data == 100
    assert "# 50 rows" in shown["predictions"].data and run.state.message == f"50 rows with {model}"
    state = predict_batch(**{**asked, "text": "txt"}, return_state=True)
    assert state.is_failed() and 'no column "txt"' in state.message
    with pytest.raises(UserError, match="no column"):
        state.result()


def test_every_parameter_says_what_it_is():
    from flows.predict_batch import predict_batch

    fields = predict_batch.parameters.properties
    assert {"model", "input", "output", "text", "id", "topic", "chunk_rows", "log", "keep_texts"} <= set(fields)
    for name, field in fields.items():
        assert field["title"][0].isupper() and len(field["description"]) > 10, name
