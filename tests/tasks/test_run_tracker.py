"""Only what really ran leaves a trace in MLflow, however little time it took."""

from types import SimpleNamespace

import pytest

from tasks import run_tracker
from tasks.run_tracker import RunTracker


@pytest.fixture
def logged(monkeypatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(run_tracker, "close_dead_runs", lambda home: None)
    monkeypatch.setattr(run_tracker, "start_parent", lambda home, name, config: "parent")
    monkeypatch.setattr(
        run_tracker, "log_step", lambda home, parent, name, manifest, directory, state: found.append((name, state))
    )
    return found


def test_steps_from_the_store_are_not_logged(tmp_path, logged):
    recipe = SimpleNamespace(name="tiny", model_dump=lambda **how: {})
    tracker = RunTracker(tmp_path, SimpleNamespace(recipe=recipe))  # type: ignore[arg-type]

    def step(name: str, state: str, seconds: float) -> None:
        tracker.step({"name": name, "uses": "x.y", "key": "k", "state": state, "seconds": seconds, "metrics": {}})

    step("data", "cached", 0.0)
    step("release", "refused", 0.0)
    assert logged == [] and tracker.run_id is None, "an unchanged recipe opens no run"
    step("quick", "ran", 0.0)
    step("again", "refused", 1.2)
    step("broken", "failed", 0.0)
    assert logged == [("quick", "ran"), ("again", "refused"), ("broken", "failed")]


def test_a_failed_rebuild_has_no_figures_of_what_is_still_there(tmp_path, logged, monkeypatch):
    told = []
    monkeypatch.setattr(run_tracker, "log_step", lambda home, parent, name, manifest, *rest: told.append(manifest))
    monkeypatch.setattr(run_tracker.Store, "manifest", lambda store, key: {"key": key, "metrics": {"f1_macro": 0.9}})
    recipe = SimpleNamespace(name="tiny", model_dump=lambda **how: {})
    tracker = RunTracker(tmp_path, SimpleNamespace(recipe=recipe))  # type: ignore[arg-type]
    outcome = {"name": "a", "uses": "x.y", "key": "k", "seconds": 1.0, "metrics": {}}
    tracker.step({**outcome, "state": "failed"})
    tracker.step({**outcome, "state": "ran"})
    assert [("metrics" in manifest) for manifest in told] == [False, True]
