"""Releases and rollbacks through a real MLflow server over HTTP, from several processes at once."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stillhouse.files import write_json
from tasks import registry
from tasks.light_registry import HttpRegistry
from tasks.mlflow_home import load_mlflow
from tasks.versions import ask_models
from tests.tasks.tiny_release import make_release
from tests.tiny_runs import ROOT

pytestmark = pytest.mark.slow

RELEASE = """
import json, sys, time
from pathlib import Path
from stillhouse.errors import Refused
from stillhouse.files import read_json
from tasks import register as registration
from tasks.mlflow_home import load_mlflow
registration.check_in_fresh_process = lambda *given: ""
home, release, go = map(Path, sys.argv[1:4])
given = read_json(release / "given.json")
load_mlflow()
(release / "ready").touch()
while not go.exists():
    time.sleep(0.01)
try:
    said = registration.register(
        home, sys.argv[4], release, given["manifest"], promote=True, lineage=given["lineage"]
    )
except Refused as refused:
    said = {"refused": str(refused), "code": refused.code}
print(json.dumps(said))
"""


@pytest.fixture
def home(up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another home on the same MLflow server: nothing is known here but what the server says."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", up.mlflow)
    return tmp_path / "home"


def start(home: Path, directory: Path, name: str, seed: int, go: Path) -> "subprocess.Popen[str]":
    """A process that registers the model of `seed`, measured against the champion of now, once `go` exists."""
    against = registry.against_for(home, name, f"model-{seed}")
    release, manifest, lineage = make_release(
        directory / f"release-{seed}", seed=seed, model_key=f"model-{seed}", against=against
    )
    write_json(release / "given.json", {"manifest": manifest, "lineage": lineage})
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", RELEASE, str(home), str(release), str(go), name],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def released(home: Path, directory: Path, name: str, *seeds: int) -> list[dict[str, Any]]:
    """What each of these releases said, all of them started at the same moment."""
    go = directory / f"go-{'-'.join(map(str, seeds))}"
    running = [start(home, directory, name, seed, go) for seed in seeds]
    while not all((directory / f"release-{seed}" / "ready").exists() for seed in seeds):
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)
    go.touch()
    return [json.loads(process.communicate(timeout=300)[0]) for process in running]


def test_of_two_releases_at_once_one_wins(home, tmp_path):
    """And the other, measured against a champion that is none any more, is told so; the winner can be taken back."""
    (first,) = released(home, tmp_path, "contest", 0)
    assert (first["version"], first["alias"]) == (1, "champion")
    both = released(home, tmp_path, "contest", 1, 2)
    won = [said for said in both if said.get("alias") == "champion"]
    lost = [said for said in both if "refused" in said]
    assert len(won) == len(lost) == 1, both
    assert lost[0]["code"] == 3 and "measured against version 1; it stays challenger" in lost[0]["refused"]
    winner, loser = won[0]["version"], 5 - won[0]["version"]
    (model,) = registry.list_models(home, "contest")
    assert model["aliases"] == {"champion": winner, "previous": 1, "challenger": loser}

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "rollback", "contest", "--json"],
        cwd=ROOT, env={**os.environ, "STILLHOUSE_HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    assert json.loads(done.stdout) == {"name": "contest", "version": 1, "alias": "champion", "previous": winner}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"rollback over HTTP: {seconds:.2f} s, {cpu:.2f} s of a processor")
    assert cpu < 2.5, "the promise is five seconds of a quiet machine"


def test_the_light_client_says_and_does_over_http_what_mlflow_s_own_does(up):
    real = load_mlflow().MlflowClient(tracking_uri=up.mlflow, registry_uri=up.mlflow)
    light = HttpRegistry(up.mlflow)
    name = "it's a (model)"
    real.create_registered_model(name)
    for number in range(3):
        real.create_model_version(name, f"s3://models/{number}", tags={"number": str(number)})
    light.set_registered_model_alias(name, "champion", "2")
    light.set_registered_model_alias(name, "previous", "1")
    light.delete_registered_model_alias(name, "previous")
    light.set_model_version_tag(name, "3", "note", 'two words & "more"')
    light.set_model_version_tag(name, "1", "gone", "x")
    light.delete_model_version_tag(name, "1", "gone")
    assert ask_models(light) == ask_models(real)
    (found,) = ask_models(light, name).values()
    assert [(v.version, v.aliases, v.tags) for v in found] == [
        (3, (), {"number": "2", "note": 'two words & "more"'}), (2, ("champion",), {"number": "1"}),
        (1, (), {"number": "0"}),
    ]  # fmt: skip
