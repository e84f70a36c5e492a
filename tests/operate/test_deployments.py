"""Templates and schedules of deployments, held against the real Prefect server of `up`."""

import json
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from flows.prefect_api import ask

pytestmark = pytest.mark.slow

DIRECTORY = Path(__file__).parents[2] / "deployments"


def test_the_server_takes_the_kubernetes_pool_and_refuses_a_variable_it_does_not_declare(up):
    template = json.loads((DIRECTORY / "kubernetes-pool.json").read_text())
    pool = {"name": "somewhere", "type": "kubernetes", "base_job_template": template}
    try:
        assert ask(up.api, "work_pools/", pool)["type"] == "kubernetes"
    finally:
        ask(up.api, "work_pools/somewhere", method="DELETE")
    template["job_configuration"]["name"] = "{{ nobody_knows }}"
    with pytest.raises(urllib.error.HTTPError, match="422"):
        ask(up.api, "work_pools/", pool)


def test_a_schedule_of_the_user_survives_the_next_deploy(up):
    """As `up` does at every start; commands are those of the guide."""
    name = "train/train"
    environment = {**up.cli.environment(), "PREFECT_API_URL": up.api}
    command = [sys.executable, "-m", "prefect"]
    schedule = ["--cron", "0 3 * * 1", "--timezone", "Europe/Berlin"]
    subprocess.run([*command, "deployment", "schedule", "create", name, *schedule], env=environment, check=True)
    prefect_file = ["--prefect-file", str(DIRECTORY / "prefect.yaml")]
    variables = {"STILLHOUSE_HOME": str(up.home), "MLFLOW_TRACKING_URI": up.mlflow}
    subprocess.run(
        [*command, "--no-prompt", "deploy", "--all", *prefect_file], env={**environment, **variables}, check=True
    )
    found = ask(up.api, f"deployments/name/{name}", method="GET")
    assert [each["schedule"]["cron"] for each in found["schedules"]] == ["0 3 * * 1"]
    assert [each["schedule"]["timezone"] for each in found["schedules"]] == ["Europe/Berlin"]
    subprocess.run(
        [*command, "--no-prompt", "deployment", "schedule", "clear", name, "-y"], env=environment, check=True
    )


def test_a_server_elsewhere_gets_the_automations_and_the_recipes(up):
    """As `worker.sh` does, here against a server that has them: it finds them, and makes what is missing."""
    (lost,) = [a for a in ask(up.api, "automations/filter") if a["name"] == "stillhouse: lost runs"]
    ask(up.api, f"automations/{lost['id']}", method="DELETE")
    command = [sys.executable, "-m", "flows.prepare_server"]
    subprocess.run(command, env={**up.cli.environment(), "PREFECT_API_URL": up.api}, check=True)
    assert {"stillhouse: lost runs", "stillhouse: retrain"} <= {a["name"] for a in ask(up.api, "automations/filter")}
    form = ask(up.api, "deployments/name/train/train", method="GET")["parameter_openapi_schema"]
    assert "opinions" in form["properties"]["recipe"]["enum"]
