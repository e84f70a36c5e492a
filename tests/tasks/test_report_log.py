import json
from pathlib import Path

import pytest

from tasks import tracking
from tasks.mlflow_home import open_client
from tasks.report_log import log_report, report_address


def test_a_report_is_kept_with_its_run(mlflow_home: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-abc.html").write_text("<p>שלום</p>", encoding="utf-8")
    run = tracking.start_parent(mlflow_home, "opinions", {})
    experiment = log_report(mlflow_home, run, tmp_path / "tiny-abc.html")
    info = open_client(mlflow_home).get_run(run).info
    assert experiment == info.experiment_id
    kept = list((mlflow_home / "mlartifacts").rglob("report.html"))
    assert [path.read_text(encoding="utf-8") for path in kept] == ["<p>שלום</p>"] and run in str(kept[0])


def test_a_run_that_is_gone_costs_only_the_report(mlflow_home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>")
    assert log_report(mlflow_home, "f" * 32, tmp_path / "a.html") == ""
    (event,) = [json.loads(line) for line in (mlflow_home / "logs" / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["where"]) == ("tracking.failed", "log_report")


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("", ""),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000/#/experiments/7/runs/r/artifacts/report.html"),
        ("https://me:secret@host/ml", "https://host/ml/#/experiments/7/runs/r/artifacts/report.html"),
    ],
)
def test_the_address_is_that_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert report_address(tmp_path, "7", "r") == address
