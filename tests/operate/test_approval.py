"""A person approves, rejects or says nothing: a run of a deployment on a real server and worker."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_api import ask

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployment(up) -> str:
    """A deployment of the plain recipe flow, with the job variables that `up` gives to all of its own."""
    like = ask(up.api, "deployments/filter", {"limit": 1})[0]
    flow = ask(up.api, "flows/", {"name": "run-recipe"})
    made = {
        "name": "approval", "flow_id": flow["id"], "entrypoint": "flows.run:run_recipe", "pull_steps": [],
        "work_pool_name": like["work_pool_name"], "job_variables": like["job_variables"],
        "enforce_parameter_schema": False,
    }  # fmt: skip
    ask(up.api, "deployments/", made)
    return "run-recipe/approval"


@pytest.fixture
def recipe(shared_recipe: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The tiny recipe under a name of this test's own: its steps are made once for all of them."""
    path = tmp_path / f"{request.node.name.replace('_', '-')[:40]}.yaml"
    path.write_text(f"extends: {shared_recipe}\nname: {path.stem}\n")
    return path


def versions(up, name: str) -> tuple[dict[str, int], dict[str, str]]:
    """Aliases of the model, and the tags of its first version, as the MLflow server says."""
    model = up.mlflow_ask(f"api/2.0/mlflow/registered-models/get?name={name}")["registered_model"]
    first = up.mlflow_ask(f"api/2.0/mlflow/model-versions/get?name={name}&version=1")["model_version"]
    aliases = {one["alias"]: int(one["version"]) for one in model.get("aliases", [])}
    return aliases, {tag["key"]: tag["value"] for tag in first["tags"]}


def suspended(up, deployment: str, recipe: Path, hours: float = 1.0) -> str:
    """A run that waits for a person; its id."""
    run = up.deploy_run(deployment, {"recipe": str(recipe), "approval": True, "approval_timeout_hours": hours})
    deadline = time.monotonic() + 300
    while True:
        state = ask(up.api, f"flow_runs/{run}", method="GET")["state"] or {"type": ""}
        if state["type"] == "PAUSED":
            return run
        assert state["type"] not in ("FAILED", "CRASHED", "COMPLETED") and time.monotonic() < deadline, (
            state,
            up.log(),
        )
        time.sleep(0.2)


def answer(up, run: str, **said: Any) -> str:
    """Resume with this form; the server's word on it."""
    return ask(up.api, f"flow_runs/{run}/resume", {"run_input": said})["status"]


def test_approved(up, deployment, recipe):
    run = suspended(up, deployment, recipe)
    name = recipe.stem
    assert versions(up, name)[0] == {"challenger": 1}, "the alias moves after the answer, not before"
    keys = ask(up.api, f"flow_runs/{run}", method="GET")["state"]["state_details"]["run_input_keyset"]
    form = ask(up.api, f"flow_runs/{run}/input/{keys['schema']}", method="GET")
    form = json.loads(form) if isinstance(form, str) else form
    assert set(form["properties"]) == {"approve", "by", "comment"}
    assert answer(up, run, approve=True) == "REJECT", "without a name nothing is approved"
    assert up.state(run) == "PAUSED"
    assert answer(up, run, approve=True, by="release board", comment="looks fine") == "ACCEPT"
    done = up.finished(run)
    assert (done["state_type"], done["state_name"]) == ("COMPLETED", "Completed"), (done["state"], up.log())
    aliases, tags = versions(up, name)
    assert aliases == {"champion": 1}
    assert (tags["stillhouse.approved_by"], tags["stillhouse.approved_comment"]) == ("release board", "looks fine")
    assert tags["stillhouse.approved_at"] > "2026" and json.loads(tags["stillhouse.rules"])["max_loss"]["passed"]
    task_runs = ask(up.api, "task_runs/filter", {"task_runs": {"flow_run_id": {"any_": [run]}}})
    last: dict[str, str] = {}
    for task_run in sorted(task_runs, key=lambda one: one["start_time"]):
        last[task_run["name"]] = task_run["state_name"]
    assert len(task_runs) == 16, "the process ended, and another one began anew"
    assert len(last) == 8 and set(last.values()) == {"Cached"}, "nothing was done again after the pause"
    shown = up.cli("models", name).stdout
    assert "approved by release board at" in shown and "passed       max_loss" in shown


def test_rejected(up, deployment, recipe):
    run = suspended(up, deployment, recipe)
    assert answer(up, run, approve=False, by="release board", comment="wait for the spring") == "ACCEPT"
    done = up.finished(run)
    assert (done["state_type"], done["state_name"]) == ("COMPLETED", "Refused"), (done["state"], up.log())
    assert "release board did not approve version 1" in done["state"]["message"]
    aliases, tags = versions(up, recipe.stem)
    assert aliases == {"challenger": 1} and tags["stillhouse.rejected_by"] == "release board"
    again = up.cli.json("run", str(recipe), "--local")
    assert "rejected by release board" in again["model"]["note"]
    assert versions(up, recipe.stem)[0] == {"challenger": 1}, "no cached run promotes what a person rejected"


def test_no_answer_in_time(up, deployment, recipe):
    run = suspended(up, deployment, recipe, hours=8 / 3600)
    done = up.finished(run, 120)
    assert (done["state_type"], done["state"]["message"]) == ("FAILED", "The flow was paused and never resumed.")
    name = recipe.stem
    assert versions(up, name)[0] == {"challenger": 1}
    up.cli("promote", name, "1", "--by", "release board")
    aliases, tags = versions(up, name)
    assert aliases == {"champion": 1} and tags["stillhouse.approved_by"] == "release board"
