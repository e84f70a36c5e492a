"""`stillhouse up` with its real servers and worker: runs through it, its own end, and what comes after that."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from flows.marked import alive, marked
from flows.prefect_api import ask
from tests.operate.up_checks import STEPS, TRAIN, check_nothing_lost_or_doubled, variant
from tests.operate.up_process import Up

pytestmark = pytest.mark.slow


def test_a_run_through_the_deployment_completes_and_the_second_is_cached(up, shared_recipe, monkeypatch, tmp_path):
    """Asked for by a client in another directory, it lands in the home of `up`."""
    monkeypatch.chdir(tmp_path)
    parameters = {"recipe": variant(shared_recipe, tmp_path, "first"), "overrides": ["seed=5"]}
    first = up.finished(up.deploy_run(TRAIN, parameters))
    assert first["state_name"] == "Completed", (first["state"], up.log())
    assert up.task_states(first["id"]) == dict.fromkeys(STEPS, "Completed")
    second = up.finished(up.deploy_run(TRAIN, parameters))
    assert up.task_states(second["id"]) == dict.fromkeys(STEPS, "Cached")
    check_nothing_lost_or_doubled(up, "first", STEPS)
    assert not (tmp_path / ".stillhouse").exists()


def test_models_of_the_servers_are_used_by_every_command_and_shown_by_mlflow(up, tmp_path):
    """After the first test: a model that was registered through the MLflow server."""
    told = up.cli.json("predict", "first", "the crew was great n7")
    assert told["predictions"][0]["label"] in ("good", "bad", "plain")
    up.cli("export", "first", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle" / "stillhouse.json").is_file()
    version = up.mlflow_ask("api/2.0/mlflow/model-versions/get?name=first&version=1")["model_version"]
    model_id = version["source"].removeprefix("models:/")
    listed = up.mlflow_ask(f"ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/directories")
    assert "MLmodel" in {Path(item["path"]).name for item in listed["files"]}
    path = urllib.parse.quote("artifacts/bundle/stillhouse.json")
    address = f"{up.mlflow}/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path={path}"
    with urllib.request.urlopen(address, timeout=60) as response:
        assert json.load(response) == json.loads((tmp_path / "bundle" / "stillhouse.json").read_text())


def test_the_servers_answer_their_own_pages_alone(up):
    for address, path in ((up.api, "health"), (up.mlflow, "api/2.0/mlflow/experiments/search")):
        request = urllib.request.Request(f"{address}/{path}", headers={"Origin": "http://evil.example"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                assert response.headers.get("access-control-allow-origin") is None
        except urllib.error.HTTPError as error:
            assert error.code in (400, 403, 405)
    request = urllib.request.Request(f"{up.mlflow}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=30)
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    below = {*marked(up.home), up.process.pid}
    ours = [line.split()[3] for line in listening.splitlines() if any(f"pid={pid}," in line for pid in below)]
    assert len(ours) >= 2 and all(address.startswith("127.0.0.1:") for address in ours)


def test_a_run_that_waits_for_the_machine_says_so(up, shared_recipe, tmp_path):
    """Another process of this machine holds the lock of heavy steps; here the test does."""
    from stillhouse.store import Store

    recipe = variant(shared_recipe, tmp_path, "waits")
    lock = Store(up.home).lock("machine")
    with lock:
        run = up.deploy_run(TRAIN, {"recipe": recipe, "overrides": ["seed=77"]})
        deadline = time.monotonic() + 200
        while True:
            logs = ask(up.api, "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
            said = [line["message"] for line in logs if "another run uses this machine" in line["message"]]
            question = {"artifacts": {"flow_run_id": {"any_": [run]}}}
            shown = [artifact["description"] for artifact in ask(up.api, "artifacts/filter", question)]
            if said and any("waiting: another run uses this machine" in description for description in shown):
                break
            assert time.monotonic() < deadline, (shown, [line["message"] for line in logs], up.log())
            time.sleep(0.5)
    assert up.finished(run)["state_type"] == "COMPLETED"
    assert len(said) == 1, said


def test_a_second_up_tells_the_addresses_and_ends(up):
    told = up.cli.json("up")
    assert (told["prefect"], told["mlflow"], told["already_up"]) == (up.prefect, up.mlflow, True)
    assert "already up" in up.cli("up").stdout


def test_rollback_is_quick_while_up_is_up(up, shared_recipe, tmp_path):
    """Two versions of one model, then back."""
    recipe = variant(shared_recipe, tmp_path, "again")
    for seed in (1, 2):
        done = up.cli.json("run", recipe, "--set", f"seed={seed}", "--set", "release.max_loss_champion=1", code=None)
        assert done["model"], done
    before = {model["name"]: model["aliases"] for model in up.cli.json("models")}["again"]
    started = time.monotonic()
    up.cli.json("rollback", "again")
    seconds = time.monotonic() - started
    after = {model["name"]: model["aliases"] for model in up.cli.json("models")}["again"]
    assert (after["champion"], after["previous"]) == (before["previous"], before["champion"])
    assert seconds < 5, f"rollback: {seconds:.1f} s"


def below(up: Up) -> list[int]:
    return [up.process.pid, *marked(up.home)]


def still_there(pids: list[int], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [pid for pid in pids if alive(pid)]


def test_an_end_leaves_nothing_behind_and_a_restart_keeps_what_was(tmp_path, shared_recipe, monkeypatch):
    """Ctrl-C and SIGKILL of `up` with a run under way; each time the next `up` goes on where it was."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    home = tmp_path / "home"
    first = Up(home)
    addresses = (first.prefect, first.mlflow)
    run = first.deploy_run(TRAIN, {"recipe": str(shared_recipe)})
    deadline = time.monotonic() + 200
    while not first.cli.events("train.checkpoint"):
        assert time.monotonic() < deadline, first.log()
        time.sleep(0.1)
    pids = below(first)
    assert len(pids) >= 7, "servers, keeper, worker, flow run, and what trains"
    started = time.monotonic()
    assert first.stop() == 0
    print(f"Ctrl-C: {time.monotonic() - started:.1f} s")
    assert still_there(pids, 1) == [] and not marked(home)
    assert not (home / "up.json").exists()

    second = Up(home)
    try:
        assert (second.prefect, second.mlflow) == addresses
        assert second.state(run) == "CRASHED"
        again = second.deploy_run(TRAIN, {"recipe": str(shared_recipe), "overrides": ["full.num_train_epochs=30"]})
        seen = len(second.cli.events("train.checkpoint"))
        deadline = time.monotonic() + 200
        while len(second.cli.events("train.checkpoint")) < seen + 2:
            assert time.monotonic() < deadline, second.log()
            time.sleep(0.1)
        pids = below(second)
        second.process.kill()
        assert still_there(pids, 20) == [], "what a killed `up` left behind"
    finally:
        second.stop()

    third = Up(home)
    try:
        assert third.finished(again, 5)["state_type"] == "CRASHED"
        done = third.finished(third.deploy_run(TRAIN, {"recipe": str(shared_recipe)}))
        assert done["state_type"] == "COMPLETED", (done["state"], third.log())
        check_nothing_lost_or_doubled(third, "tiny", STEPS)
    finally:
        third.stop()


def test_a_port_that_is_taken_is_passed_over_or_refused(up, tmp_path):
    """The ports of the other `up` are taken."""
    port = int(up.prefect.rsplit(":", 1)[1])
    other = type(up.cli)(tmp_path / "home", tmp_path)
    refused = other("up", "--prefect-port", str(port), code=2)
    assert refused.stderr.strip().splitlines()[0].startswith(f"error: port {port} is taken")
    assert not marked(tmp_path / "home")
