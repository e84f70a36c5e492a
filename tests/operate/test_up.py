"""`stillhouse up` with its real servers and worker: runs through it, deaths of its parts, its own end."""

import pytest

pytestmark = pytest.mark.slow

TRAIN = "train/train"


def test_a_run_through_the_deployment_completes_and_the_second_is_cached(up, shared_recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = up.finished(up.deploy_run(TRAIN, {"recipe": str(shared_recipe)}))
    assert first["state_name"] == "Completed", (first["state"], up.log())
    states = up.task_states(first["id"])
    assert set(states.values()) == {"Completed"} and len(states) == 8
    second = up.finished(up.deploy_run(TRAIN, {"recipe": str(shared_recipe)}))
    assert up.task_states(second["id"]) == dict.fromkeys(states, "Cached")
