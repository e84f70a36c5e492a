"""What a report can be asked of, and where it goes."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import run_report
from flows.report import default_path, write_report
from flows.request import Result
from flows.run_report import add_report
from stillhouse.errors import UserError
from stillhouse.files import read_json
from tests.stillhouse.report.tiny_report import make_home


@pytest.fixture
def run_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """(home with one finished run, the key of its release)."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home, make_home(home)


@pytest.mark.parametrize("spec", ["KEY", "tiny", "tiny@latest"])
def test_a_key_and_a_recipe_s_name_mean_its_release(run_home, spec):
    home, key = run_home
    path = write_report(home, key[:10] if spec == "KEY" else spec)
    assert path == default_path(home, key, "tiny") and "passed the gate" in path.read_text()


def test_the_newest_run_is_the_one_used_last(run_home):
    home, key = run_home
    scores = next(
        m["key"] for m in map(read_json, home.glob("store/artifacts/*/manifest.json")) if m["kind"] == "scores"
    )
    (home / "store" / "artifacts" / key / "manifest.json").unlink()
    os.utime(home / "store" / "artifacts" / scores / "manifest.json")
    assert write_report(home, "tiny") == default_path(home, scores, "tiny")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tinny", 'did you mean "tiny"'), ("none@champion", 'no model "none"'), ("none/3", 'no model "none"'),
        ("abcdef0", "no artifact"), ("", "no model, recipe or artifact"), ("no.yaml", "no.yaml"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_said_in_one_line(run_home, spec, message):
    with pytest.raises(UserError) as caught:
        write_report(run_home[0], spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_home_says_what_to_do(home):
    with pytest.raises(UserError, match="nothing to report on yet"):
        write_report(home, "opinions")


def test_where_it_goes(run_home, tmp_path):
    home, key = run_home
    assert write_report(home, "tiny", tmp_path) == tmp_path / f"tiny-{key[:12]}.html"
    assert write_report(home, "tiny", tmp_path / "a.html") == tmp_path / "a.html"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.html", f"tiny-{key[:12]}.html"]
    with pytest.raises(UserError, match="there is no directory"):
        write_report(home, "tiny", tmp_path / "none" / "a.html")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no file"):
        write_report(home, "tiny", tmp_path / "pipe")
    (tmp_path / "link.html").symlink_to("a.html")
    assert write_report(home, "tiny", tmp_path / "link.html") == tmp_path / "a.html"
    assert (tmp_path / "link.html").is_symlink()
    (tmp_path / "b.html").mkdir()
    assert write_report(home, "tiny", tmp_path / "b.html").parent == tmp_path / "b.html"


def a_plan(*steps: tuple[str, str]) -> Any:
    recipe = SimpleNamespace(registered_name="tiny")
    return SimpleNamespace(recipe=recipe, steps=[SimpleNamespace(kind=kind, key=key) for kind, key in steps])


def test_a_run_writes_its_report_and_a_cached_one_keeps_it(run_home, monkeypatch):
    home, key = run_home
    monkeypatch.setattr("tasks.report_log.log_report", lambda home, run, path: "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    steps = [{"name": "release", "uses": "release.gate", "key": key, "state": "cached", "seconds": 0.0, "metrics": {}}]
    first = Result("tiny", steps)  # type: ignore[arg-type]
    add_report(first, a_plan(("scores", "x" * 64), ("release", key)), home, "r1")
    address = "http://127.0.0.1:9/#/experiments/7/runs/r1/artifacts/report.html"
    assert first.report == address and first.links == [("Report", address)]
    assert "<td>cached</td>" in default_path(home, key, "tiny").read_text()

    monkeypatch.setattr(run_report, "report_of", lambda *given: pytest.fail("written again"))
    again = Result("tiny", steps)  # type: ignore[arg-type]
    add_report(again, a_plan(("release", key)), home, None)
    assert again.report == address
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    alone = Result("tiny", steps)  # type: ignore[arg-type]
    add_report(alone, a_plan(("release", key)), home, None)
    assert alone.report == str(default_path(home, key, "tiny")) and alone.links == []


def test_nothing_that_goes_wrong_costs_a_finished_run(run_home, monkeypatch):
    home, key = run_home

    def broken(*given: Any) -> Path:
        raise RuntimeError("no space")

    monkeypatch.setattr(run_report, "report_of", broken)
    result = Result("tiny", [])
    add_report(result, a_plan(("release", key)), home, "r1")
    add_report(result, a_plan(("data", key)), home, "r1")
    assert (result.report, result.links) == (None, [])
    assert "no space" in (home / "logs" / "events.jsonl").read_text()
    assert "report" not in result.as_json()
