"""A registered model answers as the gate saw it, in processes where torch, transformers and stillhouse do not exist."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import Refused
from stillhouse.files import read_json
from tasks import fresh_check, registry
from tasks.logged_model import LARGEST_CHANGE, save_served_model
from tasks.mlflow_home import load_pyfunc, open_client, tracking_uri
from tasks.register import register
from tests.end_to_end.model_server import asked, predicted, serving
from tests.tasks.tiny_release import TEXTS, make_bundle, make_release, swap_labels

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where a tiny model went through the whole registration, fresh process included."""
    home = tmp_path_factory.mktemp("served")
    release, manifest, lineage = make_release(home / "release")
    result = register(home, "opinions", release, manifest, promote=True, lineage=lineage)
    assert (result["version"], result["alias"]) == (1, "champion")
    return home


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory: pytest.TempPathFactory, served_home: Path) -> dict[str, str]:
    """An environment in which every Python process refuses the packages that a deployment does not have."""
    tmp_path = tmp_path_factory.mktemp("bare")
    (tmp_path / "site").mkdir()
    shutil.copyfile(fresh_check.__file__, tmp_path / "site" / "blocking.py")
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys, blocking\nsys.meta_path.insert(0, blocking.Blocker())\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {
        **kept, "PYTHONPATH": str(tmp_path / "site"), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": tracking_uri(served_home), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bare_environment: dict[str, str]) -> Iterator[str]:
    """The address of `mlflow models serve` with the champion."""
    with serving(
        Path(sys.executable), "models:/opinions@champion", bare_environment, tmp_path_factory.mktemp("server")
    ) as address:
        yield address


def test_a_served_model_answers_as_the_gate_saw(served_home: Path, server: str) -> None:
    rows = read_json(served_home / "release" / "bundle" / "check.json")["rows"]
    found = fresh_check.compare(rows, predicted(server, [row["text"] for row in rows]))
    assert found["rows"] == len(TEXTS) and found["changed"] == 0
    assert found["largest_change"] <= LARGEST_CHANGE


def test_many_at_once_get_their_own_answers(served_home: Path, server: str) -> None:
    rows = read_json(served_home / "release" / "bundle" / "check.json")["rows"]
    parts = [[rows[(start + i) % len(rows)] for i in range(1 + start % 5)] for start in range(96)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda part: predicted(server, [row["text"] for row in part]), parts))
    found = [fresh_check.compare(part, answer) for part, answer in zip(parts, answers, strict=True)]
    assert sum(one["changed"] for one in found) == 0
    assert max(one["largest_change"] for one in found) <= LARGEST_CHANGE


BAD = {
    "not json": ('{"dataframe_split": ', "application/json"),
    "a list": ("[1, 2]", "application/json"),
    "no known key": ('{"texts": ["a"]}', "application/json"),
    "another column": ('{"dataframe_split": {"columns": ["txt"], "data": [["a"]]}}', "application/json"),
    "a null text": ('{"dataframe_split": {"columns": ["text"], "data": [["a"], [null]]}}', "application/json"),
    "a number": ('{"dataframe_records": [{"text": 7}]}', "application/json"),
    "no rows": ('{"dataframe_split": {"columns": ["text"], "data": []}}', "application/json"),
    "an empty list": ('{"inputs": []}', "application/json"),
    "another type": ("a text", "text/plain"),
    "not utf-8": (b"\xff\xfe{", "application/json"),
}


def test_a_bad_request_is_refused_and_the_server_lives(served_home: Path, server: str) -> None:
    for name, (body, kind) in BAD.items():
        status, message = asked(server, body if isinstance(body, bytes) else body.encode(), kind)
        assert 400 <= status < 500 and len(message) > 10, (name, status, message)
    huge = "the good crew " * 200_000
    rows = read_json(served_home / "release" / "bundle" / "check.json")["rows"]
    assert [row["label"] for row in predicted(server, [huge, rows[0]["text"]])][1] == rows[0]["label"]
    found = fresh_check.compare(rows, predicted(server, [row["text"] for row in rows]))
    assert found["changed"] == 0


def test_a_bare_process_has_no_torch(bare_environment: dict[str, str]) -> None:
    """Or the tests here would show nothing."""
    for name in ("torch", "transformers", "stillhouse.errors"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"], env=bare_environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "must not need" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("labels swapped", "another answer than the gate saw"), ("torch needed", "must not need torch")],
)
def test_a_wrong_bundle_is_not_registered(served_home: Path, tmp_path: Path, wrong: str, message: str) -> None:
    against = registry.against_for(served_home, "opinions", "another")
    release, manifest, lineage = make_release(tmp_path / "release", seed=1, against=against)
    if wrong == "labels swapped":
        swap_labels(release)
    else:
        scoring = release / "bundle" / "scoring.py"
        scoring.write_text("import torch\n" + scoring.read_text())
    with pytest.raises(Refused, match=message) as refused:
        register(served_home, "opinions", release, manifest, promote=True, lineage=lineage)
    assert refused.value.code == 3
    assert [version["version"] for version in registry.list_models(served_home)[0]["versions"]] == [1]
    client = open_client(served_home)
    experiment = client.get_experiment_by_name("opinions")
    assert experiment is not None and len(client.search_logged_models([experiment.experiment_id])) == 1


def test_a_token_model_gives_its_entities(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", problem="token-classification")
    save_served_model(tmp_path / "model", bundle)
    rows = read_json(bundle / "check.json")["rows"]
    answers = load_pyfunc().load_model(str(tmp_path / "model")).predict([{"text": row["text"]} for row in rows])
    found = fresh_check.compare(rows, answers.to_dict("records"))
    assert found["changed"] == 0 and found["largest_change"] <= LARGEST_CHANGE
    assert any(row["entities"] for row in rows)


@pytest.mark.parametrize(
    ("got", "changed", "largest"),
    [
        ({"label": "a", "p_a": 0.75, "p_b": 0.25}, 0, 0.0),
        ({"label": "a", "p_a": 0.625, "p_b": 0.25}, 0, 0.125),
        ({"label": "b", "p_a": 0.75, "p_b": 0.25}, 1, 0.0),
        ({"label": "a", "p_a": 0.75}, 0, 1e9),
        ({"label": "a", "p_a": 0.75, "p_b": float("nan")}, 0, 1e9),
        ({"label": "a", "outcome": "unsure", "p_a": 0.75, "p_b": 0.25}, 1, 0.0),
    ],
)
def test_predictions_are_compared(got: dict[str, Any], changed: int, largest: float) -> None:
    row = {"text": "one", "label": "a", "outcome": "a", "probabilities": {"a": 0.75, "b": 0.25}}
    found = fresh_check.compare([row], [{"outcome": "a", **got}])
    assert found["changed"] == changed and found["largest_change"] == pytest.approx(largest)
