"""Hits of steps whose input was rebuilt with other content."""

from pathlib import Path

import pytest

from pipelines.execute import find_hit
from stillhouse.keys import digest
from stillhouse.store import Store

DATA, MODEL, SCORES = (digest(name) for name in ("data", "model", "scores"))


def publish(store: Store, key: str, kind: str, text: str, fed_by: str | None = None) -> None:
    out = store.work(key) / "out"
    out.mkdir(parents=True)
    (out / "file").write_text(text)
    feeding = store.manifest(fed_by) if fed_by else None
    inputs = {"data": [{"key": fed_by, "kind": "data", "content": feeding["content"]}]} if feeding else {}
    store.publish(key, {"key": key, "kind": kind, "inputs": inputs, "step": kind, "recipe": "r", "metrics": {}})


def spec(home: Path, key: str, method: str) -> dict:
    return {"home": str(home), "key": key, "step": "s", "method": method, "rebuild": False}


@pytest.fixture
def rebuilt(home: Path) -> Path:
    """A store whose data were rebuilt, with other content, after a model and its scores were made of them."""
    store = Store(home)
    publish(store, DATA, "data", "rows")
    publish(store, MODEL, "model.torch", "weights", fed_by=DATA)
    publish(store, SCORES, "scores", "figures", fed_by=DATA)
    store.set_aside(store.path(DATA), "a test damages it")
    publish(store, DATA, "data", "other rows")
    return home


def test_a_model_stays_a_hit_with_a_warning(rebuilt):
    hit = find_hit(spec(rebuilt, MODEL, "train.stage"))
    assert hit is not None and hit["state"] == "cached"
    assert "other content" in hit["warning"] and '"data"' in hit["warning"]


def test_scores_are_made_again(rebuilt):
    job = spec(rebuilt, SCORES, "evaluate.compare")
    assert find_hit(job) is None and job["rebuild"] is True


def test_unchanged_inputs_warn_of_nothing(home):
    store = Store(home)
    publish(store, DATA, "data", "rows")
    publish(store, SCORES, "scores", "figures", fed_by=DATA)
    hit = find_hit(spec(home, SCORES, "evaluate.compare"))
    assert hit is not None and "warning" not in hit
