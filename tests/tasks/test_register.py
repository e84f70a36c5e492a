"""From a passed release to a version, whatever happens in between."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import Refused
from stillhouse.files import read_json, write_json
from tasks import registry
from tasks.decisions import note_decision
from tasks.mlflow_home import open_client
from tasks.register import check_lineage, register, short_rules
from tasks.versions import AGAINST, LINEAGE, METRICS, RELEASE_KEY, read_models
from tests.tasks.tiny_release import make_release, manifest_of

ROOT = Path(__file__).parents[2]


def push(home: Path, directory: Path, *, promote: bool = True, **release: Any) -> dict[str, Any]:
    """Register a tiny release as a run does: planned against what the registry says, unless `against` is given."""
    seed = release.get("seed", 0)
    release.setdefault("against", registry.against_for(home, "opinions", f"model-{seed}"))
    made = directory / f"release {len(list(directory.iterdir()))}"
    made, manifest, lineage = make_release(made, model_key=f"model-{seed}", **release)
    return register(home, "opinions", made, manifest, promote=promote, lineage=lineage)


def aliases(home: Path) -> dict[str, int]:
    listed = registry.list_models(home)
    return listed[0]["aliases"] if listed else {}


def test_a_first_release_becomes_champion_once(mlflow_home: Path, tmp_path: Path, checks: list[str]) -> None:
    first = push(mlflow_home, tmp_path)
    assert first == {"name": "opinions", "version": 1, "alias": "champion", "created": True}
    assert push(mlflow_home, tmp_path) == {**first, "created": False}
    assert len(checks) == 1, "the second time there is nothing to check"
    (version,) = read_models(mlflow_home)["opinions"]
    assert version.tags[AGAINST] == "null" and '"int8": "model-0"' in version.tags[LINEAGE]
    assert '"f1_macro": 0.7' in version.tags[METRICS] and len(version.tags[RELEASE_KEY]) == 64
    assert open_client(mlflow_home).get_model_version("opinions", "1").description == "# A tiny model\n"


def test_the_run_s_own_steps_come_before_others_of_their_names(
    mlflow_home: Path, tmp_path: Path, checks: list[str]
) -> None:
    release, manifest, lineage = make_release(tmp_path / "release")
    older = {**lineage[0], "key": "older-data", "content": "older"}
    own = {"data": lineage[0]["key"]}
    register(
        mlflow_home, "opinions", release, manifest, promote=True, lineage=[*lineage, older], steps=own,
        tags={"stillhouse.data_version": "4"},
    )  # fmt: skip
    (version,) = read_models(mlflow_home)["opinions"]
    assert f'"data": "{lineage[0]["key"]}"' in version.tags[LINEAGE]
    assert "older" not in version.tags["stillhouse.data"]
    assert version.tags["stillhouse.data_version"] == "4"


def test_no_file_of_a_logged_model_is_a_pickle(mlflow_home: Path, tmp_path: Path, checks: list[str]) -> None:
    push(mlflow_home, tmp_path)
    model = registry.resolve(mlflow_home, "opinions")["directory"].parents[1]
    files = [path for path in model.rglob("*") if path.is_file()]
    known = {".py", ".json", ".yaml", ".txt", ".md", ".onnx", ".npy", ""}
    assert {path.suffix for path in files} <= known
    assert [path.name for path in files if not path.suffix] == ["MLmodel"]
    for path in files:
        start = path.read_bytes()[:2]
        assert not (start[:1] == b"\x80" and start[1:] in b"\x02\x03\x04\x05"), f"{path} is a pickle"
    requirements = (model / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == [
        "mlflow", "numpy", "onnxruntime", "pandas", "tokenizers",
    ]  # fmt: skip
    assert all("==" in line for line in requirements)


def test_a_refused_release_leaves_no_trace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = push(home, tmp_path, passed=False)
    assert result == {"name": "opinions", "version": None, "alias": None, "created": False}
    assert not home.exists()


def test_the_next_model_replaces_the_champion(mlflow_home: Path, tmp_path: Path, checks: list[str]) -> None:
    push(mlflow_home, tmp_path, seed=0)
    assert push(mlflow_home, tmp_path, seed=1)["version"] == 2
    assert aliases(mlflow_home) == {"champion": 2, "previous": 1}


def test_an_unchanged_recipe_asks_for_the_same_release(two_versions: Path, tmp_path: Path, checks: list[str]) -> None:
    """Before and after a rollback; nothing moves, nothing is logged."""
    for there in ({"champion": 2, "previous": 1}, {"champion": 1, "previous": 2}):
        result = push(two_versions, tmp_path, seed=1)
        assert (result["version"], result["created"], aliases(two_versions)) == (2, False, there)
        if there["champion"] == 2:
            registry.rollback(two_versions, "opinions")
    assert "rolled back" in result["note"] and result["alias"] == "previous"
    assert checks == []


def test_a_model_that_was_rolled_back_is_not_promoted_under_another_gate(
    two_versions: Path, tmp_path: Path, checks: list[str]
) -> None:
    registry.rollback(two_versions, "opinions")
    result = push(two_versions, tmp_path, seed=1, gate="loose")
    assert (result["version"], result["alias"], result["created"]) == (3, None, True)
    assert "version 2 was rolled back" in result["note"]
    assert aliases(two_versions) == {"champion": 1, "previous": 2}


def test_another_gate_for_the_champion_itself(two_versions: Path, tmp_path: Path, checks: list[str]) -> None:
    """The newer verdict counts, and `previous` still is another model."""
    assert push(two_versions, tmp_path, seed=1, gate="loose")["version"] == 3
    assert aliases(two_versions) == {"champion": 3, "previous": 1}


def test_a_copied_home_writes_into_itself(two_versions: Path, tmp_path: Path, checks: list[str]) -> None:
    """MLflow keeps absolute addresses: a copy must not log its models into the original, nor read them there."""
    files = sorted(two_versions.rglob("*"))
    copy = tmp_path / "copy"
    shutil.copytree(two_versions, copy)
    assert push(copy, tmp_path, seed=2)["version"] == 3
    assert sorted(two_versions.rglob("*")) == files
    for version in ("opinions/1", "opinions/3"):
        assert registry.resolve(copy, version)["directory"].is_relative_to(copy)
    assert aliases(two_versions) == {"champion": 2, "previous": 1}


def test_a_champion_that_moved_is_respected(two_versions: Path, tmp_path: Path, checks: list[str]) -> None:
    old = {"version": 1, "digest": "what version 1 holds"}
    with pytest.raises(Refused, match="is version 2 now, but this release was measured against version 1") as refused:
        push(two_versions, tmp_path, seed=2, against=old)
    assert refused.value.code == 3 and "Run again" in refused.value.fix
    assert aliases(two_versions) == {"challenger": 3, "champion": 2, "previous": 1}
    assert push(two_versions, tmp_path, seed=2)["version"] == 4
    assert aliases(two_versions) == {"champion": 4, "previous": 2}


def test_without_promotion_it_is_challenger_until_asked_for(
    two_versions: Path, tmp_path: Path, checks: list[str]
) -> None:
    for created in (True, False):
        result = push(two_versions, tmp_path, seed=2, promote=False)
        assert result == {"name": "opinions", "version": 3, "alias": "challenger", "created": created}
    assert aliases(two_versions) == {"challenger": 3, "champion": 2, "previous": 1}
    assert push(two_versions, tmp_path, seed=2)["alias"] == "champion"
    assert aliases(two_versions) == {"champion": 3, "previous": 2}
    assert len(checks) == 1


def test_what_a_person_rejected_no_run_promotes(two_versions: Path, tmp_path: Path, checks: list[str]) -> None:
    push(two_versions, tmp_path, seed=2, promote=False)
    note_decision(two_versions, "opinions", 3, {"approve": False, "by": "board", "at": "2026-01-01"})
    result = push(two_versions, tmp_path, seed=2)
    assert (result["version"], result["alias"], result["created"]) == (3, "challenger", False)
    assert "rejected by board" in result["note"] and aliases(two_versions)["champion"] == 2


def test_the_rules_are_a_tag(mlflow_home: Path, tmp_path: Path, checks: list[str]) -> None:
    made, manifest, lineage = make_release(tmp_path / "release", model_key="model-0")
    rules = {
        "max_loss": {"limit": 0.02, "passed": True, "value": 0.0123456789},
        "max_p95_ms": {"limit": 9, "passed": True, "measured": 4.5},
        "max_loss_champion": {"limit": 0.01, "passed": None, "not_applied": "the scores have no champion"},
    }
    write_json(made / "verdict.json", {**read_json(made / "verdict.json"), "rules": rules})
    register(mlflow_home, "opinions", made, manifest, promote=True, lineage=lineage)
    (model,) = registry.list_models(mlflow_home, "opinions")
    assert model["versions"][0]["rules"] == {
        "max_loss": {"limit": 0.02, "passed": True, "value": 0.012346},
        "max_loss_champion": {"limit": 0.01, "passed": None, "value": None},
        "max_p95_ms": {"limit": 9, "passed": True, "value": 4.5},
    }


def test_many_rules_are_shortened_to_the_tightest_of_each_kind() -> None:
    rules = {f"max_slice_loss.champion.topic.{i}": {"limit": 0.1, "passed": True, "value": i / 1000} for i in range(99)}
    rules["max_slice_loss.champion.topic.tiny"] = {"limit": 0.1, "passed": None, "not_applied": "2 rows"}
    rules["floors.accuracy"] = {"limit": 0.7, "passed": True, "value": 0.8}
    assert json.loads(short_rules(rules)) == {
        "floors.accuracy": {"limit": 0.7, "passed": True, "value": 0.8},
        "max_slice_loss.champion.topic.98": {"limit": 0.1, "passed": True, "value": 0.098},
    }


def test_a_lineage_that_no_longer_agrees_is_refused() -> None:
    data = manifest_of("data", "data", "rows")
    teacher = manifest_of("full", "model.torch", "weights", data=data)
    scores = manifest_of("scores", "scores", "figures", data=data, model=teacher)
    check_lineage([data, teacher, scores])
    with pytest.raises(Refused, match='step "full" was made from other content of "data"') as refused:
        check_lineage([{**data, "content": "rebuilt otherwise"}, teacher, scores])
    assert "--rebuild full" in refused.value.fix
    renamed = {**scores, "content": "measured on another machine"}
    check_lineage([data, teacher, renamed, manifest_of("release", "release", "passed", scores=scores)])


CRASH = """
import sys
from pathlib import Path
from stillhouse.files import read_json
from tasks import register as registration
registration.check_in_fresh_process = lambda *given: ""
home, release = Path(sys.argv[1]), Path(sys.argv[2])
given = read_json(release.parent / "given.json")
registration.register(home, "opinions", release, given["manifest"], promote=True, lineage=given["lineage"])
"""


@pytest.mark.parametrize("point", ["register.logged", "register.version", "register.previous"])
def test_a_kill_in_between_is_repaired_by_the_next_run(
    two_versions: Path, tmp_path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    against = registry.against_for(two_versions, "opinions", "model-2")
    release, manifest, lineage = make_release(tmp_path / "release", seed=2, model_key="model-2", against=against)
    if point == "register.version":
        write_json(tmp_path / "given.json", {"manifest": manifest, "lineage": lineage})
        killed = subprocess.run(
            [sys.executable, "-c", CRASH, str(two_versions), str(release)],
            cwd=ROOT, env={**os.environ, "STILLHOUSE_FAULT": point}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert killed.returncode == -9, killed.stderr
    else:  # a process of its own would only cost time
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setenv("STILLHOUSE_FAULT", point)
            patch.setattr("os.kill", lambda pid, signal: sys.exit("killed"))
            register(two_versions, "opinions", release, manifest, promote=True, lineage=lineage)
    events = (two_versions / "logs" / "events.jsonl").read_text()
    assert f'"event": "{point}"' in events
    assert aliases(two_versions)["champion"] == 2, "the old champion until the very end"

    result = register(two_versions, "opinions", release, manifest, promote=True, lineage=lineage)
    assert (result["version"], result["alias"], result["created"]) == (3, "champion", point == "register.logged")
    assert aliases(two_versions) == {"champion": 3, "previous": 2}
    client = open_client(two_versions)
    experiment = client.get_experiment_by_name("opinions")
    assert experiment is not None
    logged = client.search_logged_models([experiment.experiment_id])
    assert len(logged) == 3, "one for each version, none twice"


def test_a_half_logged_model_is_replaced(mlflow_home: Path, tmp_path: Path, checks: list[str]) -> None:
    """As a kill while files are copied leaves it."""
    from tasks.mlflow_home import experiment_id
    from tasks.versions import DIGEST

    _, manifest, _ = make_release(tmp_path / "first", model_key="model-0")
    client = open_client(mlflow_home)
    experiment = experiment_id(mlflow_home, "opinions")
    tags = {RELEASE_KEY: manifest["key"], DIGEST: manifest["inputs"]["model"][0]["content"]}
    pending = client.create_logged_model(experiment, "opinions", tags=tags)
    push(mlflow_home, tmp_path)
    (kept,) = client.search_logged_models([experiment])
    assert kept.model_id != pending.model_id and str(kept.status) == "READY"
