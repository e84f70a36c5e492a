"""The Prefect server, the MLflow server, the worker, killed in the middle of each flow: each comes back, nothing is
lost or doubled, and if the run itself could not go on, the next attempt completes.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.prefect_api import ask
from stillhouse.prediction_log import PredictionLog
from tests.operate.landing import land, triggers
from tests.operate.up_checks import STEPS, TRAIN, check_nothing_lost_or_doubled, mlflow_runs, processes, variant
from tests.operate.up_process import Up

pytestmark = pytest.mark.slow

VICTIMS = {"Prefect server": "prefect server", "MLflow server": "uvicorn", "worker": "prefect worker"}
"""Name in what `up` says → words of the command line."""
PREDICTED, CHUNK = 20_000, 200
WATCHED = 3000
ALERT_SECONDS = 90
"""An alert that the server could not take is sent by `up` within a sweep."""


@pytest.fixture(scope="module")
def champion(up: Up, shared_recipe: Path) -> str:
    """A model in the registry of `up`."""
    up.cli("run", str(shared_recipe))
    return "tiny"


@pytest.fixture(params=VICTIMS)
def victim(request: pytest.FixtureRequest) -> str:
    return request.param


def complete_through_kill(
    up: Up, deployment: str, parameters: dict[str, Any], victim: str, event: str, count: int = 1
) -> None:  # fmt: skip
    """Run, kill when the event was logged so often, wait until all is back, run again if the first one failed."""
    said, before = len(up.said), len(up.cli.events(event))
    run = up.deploy_run(deployment, parameters)
    wait(lambda: len(up.cli.events(event)) >= before + count, 200, lambda: (up.state(run), up.log()), pause=0.01)
    victims = processes(up, VICTIMS[victim])
    assert victims
    killed = datetime.now(UTC)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    up.said_since(said, f"the {victim} ")
    up.said_since(said, f"the {victim} is up")
    ended = up.finished(run)
    assert datetime.fromisoformat(ended["end_time"]) > killed, "it was over before the kill"
    print(f"{deployment}, {victim}: {ended['state_name']}")
    if ended["state_type"] != "COMPLETED":  # its connection broke at a bad moment, or its worker took it along
        ended = up.finished(up.deploy_run(deployment, parameters))
    assert ended["state_type"] == "COMPLETED", (ended["state"], up.log())


def wait(until: Callable[[], Any], seconds: float, why: Callable[[], object], pause: float = 0.2) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = until()
        if found:
            return found
        assert time.monotonic() < deadline, why()
        time.sleep(pause)


def test_train(up, shared_recipe, tmp_path, victim):
    recipe = f"kill-{victim.lower().replace(' ', '-')}"
    parameters = {"recipe": variant(shared_recipe, tmp_path, recipe), "overrides": [f"seed={len(victim)}"]}
    complete_through_kill(up, TRAIN, parameters, victim, "train.checkpoint", 2)
    check_nothing_lost_or_doubled(up, recipe, STEPS)


def test_predict(up, champion, tmp_path, victim):
    source, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    ids = [f"{victim}-{i}" for i in range(PREDICTED)]
    pd.DataFrame({"key": ids, "text": [f"the crew was great n{i}" for i in range(PREDICTED)]}).to_csv(
        source, index=False
    )
    parameters = {"model": champion, "input": str(source), "output": str(output), "id": "key", "chunk_rows": CHUNK}
    complete_through_kill(up, "predict_batch/predict", parameters, victim, "predict.chunk-done", 5)
    found = pd.read_csv(output)
    assert list(found["key"]) == ids and found["predicted"].notna().all()
    logged = PredictionLog(up.home, champion).read(columns=["id"])["id"]
    assert sorted(logged[logged.str.startswith(f"{victim}-")]) == sorted(ids)


def test_monitor(up, champion, tmp_path, victim):
    """All that the model is asked is of one kind, unlike what it learned from: an alarm, told once."""
    source = tmp_path / "rows.csv"
    rows = [(f"{victim}-watched-{i}", f"awful rude late cold angry n{i}") for i in range(WATCHED)]
    pd.DataFrame(rows, columns=["key", "text"]).to_csv(source, index=False)
    up.cli("monitor", champion)  # whatever other tests asked before
    up.cli("predict", champion, str(source), "--id", "key", "-o", str(tmp_path / "out.csv"))
    parameters = {"name": champion, "sample_rows": 5000, "cool_down_hours": 0}
    history = up.home / "monitor" / champion / "history.jsonl"
    before = history.read_text().splitlines()
    complete_through_kill(up, "monitor/monitor", parameters, victim, "monitor.begun")
    (line,) = [json.loads(text) for text in history.read_text().splitlines()[len(before) :]]
    assert line["rows"] == WATCHED and "drift" in line["alarms"]

    def told() -> list[dict[str, Any]]:
        found = ask(up.api, "events/filter", {"filter": {"event": {"name": ["stillhouse.drift"]}}, "limit": 50})
        return [one for one in found["events"] if one["payload"]["window_end"] == line["window"]["end"]]

    assert len(wait(told, ALERT_SECONDS, lambda: (up.said, up.log()))) == 1


def test_retrain(up, champion, victim):
    number = list(VICTIMS).index(victim)
    shown = up.cli.json("data", "show", champion)["epochs"] if number else []
    over = len([one for one in triggers(up.home) if one["state"] in ("released", "refused")])
    first = 400 + 60 * number
    land(up.home, first, first + 60)
    parameters = {"name": champion, "min_rows": 50, "cooldown_hours": 0}
    complete_through_kill(up, "retrain/retrain", parameters, victim, "train.checkpoint", 2)
    epochs = up.cli.json("data", "show", champion)["epochs"]
    assert [epoch["rows"] for epoch in epochs[len(shown) :]] == [60]
    now = [one for one in triggers(up.home) if one["state"] in ("released", "refused")]
    assert len(now) == over + 1 and not [one for one in triggers(up.home) if one["state"] == "open"]
    assert {run["status"] for run in mlflow_runs(up, champion)} <= {"FINISHED", "FAILED", "KILLED"}
