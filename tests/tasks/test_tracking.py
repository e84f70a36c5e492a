"""What a run leaves in MLflow, and that MLflow can never stop it."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.files import write_json
from tasks import tracking
from tasks.mlflow_home import open_client
from tasks.versions import read_models

MANIFEST: dict[str, Any] = {
    "key": "k" * 64, "method": "train.stage", "content": "c" * 64,
    "settings": {"learning_rate": 1e-3, "train": "last-2"},
    "metrics": {"f1_macro": 0.81}, "measured": {"seconds": 12.5, "created": 1_800_000_000.0},
}  # fmt: skip


def test_a_run_has_one_nested_run_for_each_step(mlflow_home: Path, tmp_path: Path) -> None:
    client = open_client(mlflow_home)
    parent = tracking.start_parent(mlflow_home, "opinions", {"seed": 42, "steps": {"top": {"with": {"epochs": 2}}}})
    trained = tracking.log_step(mlflow_home, parent, "top", MANIFEST, tmp_path, "ran")
    failed = tracking.log_step(mlflow_home, parent, "full", {"method": "train.stage"}, None, "failed")
    tracking.finish(mlflow_home, parent, "FINISHED", {"seconds": 3.5, "gate": {"passed": True}, "recipe": "opinions"})

    run = client.get_run(parent)
    assert run.info.status == "FINISHED" and run.info.run_name == "opinions"
    assert run.data.params == {"seed": "42", "steps.top.with.epochs": "2"}
    assert run.data.metrics == {"seconds": 3.5, "gate.passed": 1.0}
    experiment = client.get_experiment_by_name("opinions")
    assert experiment is not None and experiment.artifact_location.startswith((mlflow_home / "mlartifacts").as_uri())
    nested = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {run.info.run_id for run in nested} == {trained, failed}
    step = client.get_run(trained)
    assert (step.info.status, step.info.run_name) == ("FINISHED", "top")
    assert (step.info.end_time or 0) - step.info.start_time == 12_500
    assert step.data.params == {"learning_rate": "0.001", "train": "last-2"}
    assert step.data.metrics == {"f1_macro": 0.81, "seconds": 12.5}
    assert step.data.tags["stillhouse.key"] == MANIFEST["key"]
    assert step.data.tags["stillhouse.method"] == "train.stage"
    assert client.get_run(failed).info.status == "FAILED"


def test_curves_arrive_whole_and_in_batches(mlflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"step": n, "epoch": n / 700, "train_loss": 1 / n, "f1_macro": n / 2000} for n in range(1, 701)]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 701, "train_loss": NaN}\n{"step": 702, "tr'
    (tmp_path / "metrics.jsonl").write_text(text)
    client = open_client(mlflow_home)
    sizes: list[int] = []
    log_batch = client.log_batch

    def counted(run_id: str, *given: Any) -> None:
        sizes.append(len(given[0]))
        log_batch(run_id, *given)

    monkeypatch.setattr(client, "log_batch", counted)
    parent = tracking.start_parent(mlflow_home, "opinions", {})
    run = tracking.log_step(mlflow_home, parent, "top", MANIFEST, tmp_path, "ran")
    assert max(sizes) <= 1000 and len(sizes) > 1 and sum(sizes) == 3 * 700 + 2
    history = client.get_metric_history(run, "train_loss")
    assert [(point.step, point.value) for point in history] == [(n, 1 / n) for n in range(1, 701)]
    assert client.get_run(run).data.metrics["f1_macro"] == 0.81, "the step's own figure comes last"


def test_what_a_run_wrote_last_is_remembered(two_versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracking.start_parent(two_versions, "opinions", {})
    tracking.finish(two_versions, run, "FINISHED", {})
    monkeypatch.setattr("tasks.versions.open_registry", lambda home: pytest.fail("MLflow was asked"))
    assert [version.version for version in read_models(two_versions)["opinions"]] == [2, 1]


def test_a_broken_tracking_server_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuchscheme://somewhere")
    with caplog.at_level(logging.WARNING):
        parent = tracking.start_parent(home, "opinions", {"seed": 1})
        assert parent == ""
        assert tracking.log_step(home, parent, "top", MANIFEST, None, "ran") == ""
        tracking.finish(home, parent, "FINISHED", {"seconds": 1.0})
        assert tracking.log_step(home, "a run that is gone", "top", MANIFEST, None, "ran") == ""
        assert tracking.close_dead_runs(home) == []
    assert [record.levelname for record in caplog.records if record.name == "tasks.tracking"] == ["WARNING"]
    events = [json.loads(line) for line in (home / "logs" / "events.jsonl").read_text().splitlines()]
    assert [event["where"] for event in events] == ["start_parent", "log_step", "close_dead_runs"]


def test_runs_of_dead_processes_are_closed_and_no_others(mlflow_home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        started = tracking.process_start(owner.pid)
    died = tracking.start_parent(mlflow_home, "opinions", {})
    mine = tracking.start_parent(mlflow_home, "opinions", {})
    client = open_client(mlflow_home)
    client.set_tag(died, tracking.PID, str(owner.pid))
    client.set_tag(died, tracking.PROCESS, started)
    elsewhere = tracking.start_parent(mlflow_home, "opinions", {})
    client.set_tag(elsewhere, tracking.MACHINE, "another machine")
    client.set_tag(elsewhere, tracking.PROCESS, "long ago")
    reused = tracking.start_parent(mlflow_home, "opinions", {})
    client.set_tag(reused, tracking.PROCESS, "another start of the same pid")
    closed = tracking.close_dead_runs(mlflow_home)
    assert sorted(closed) == sorted([died, reused])
    assert [client.get_run(run).info.status for run in (died, reused, mine, elsewhere)] == [
        "KILLED", "KILLED", "RUNNING", "RUNNING",
    ]  # fmt: skip
    assert tracking.close_dead_runs(mlflow_home) == []


def test_closing_in_an_empty_home_needs_no_mlflow(tmp_path: Path) -> None:
    assert tracking.close_dead_runs(tmp_path / "home") == []
    assert not (tmp_path / "home").exists()


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    assert tracking.process_start(os.getpid()) == tracking.process_start(os.getpid())
    assert tracking.process_start(os.getpid()) != tracking.process_start(os.getppid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert tracking.process_start(ended.pid) is None


def test_settings_become_flat_names() -> None:
    nested = {"a": {"b c": [1, 2], "d:e": None}, "f": "text", "g": 1e-3}
    assert tracking.flatten(nested) == {"a.b c": "[1, 2]", "a.d_e": "null", "f": "text", "g": "0.001"}


def test_summaries_of_a_run_may_hold_anything(mlflow_home: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"seconds": 1.0})
    parent = tracking.start_parent(mlflow_home, "opinions", {f"setting {n}": n for n in range(250)})
    steps = [{"name": "top", "state": "ran", "metrics": {"f1": 0.5}}] * 400
    tracking.finish(mlflow_home, parent, "KILLED", {"steps": steps, "gate": None, "model": {}})
    run = open_client(mlflow_home).get_run(parent)
    assert run.info.status == "KILLED" and len(run.data.params) == 250
