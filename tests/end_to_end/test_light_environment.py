"""The demo's registered model in a new environment with only what its requirements name: no torch, no stillhouse.

`make test-light` makes the demo's home first and names it in DEMO_HOME.
"""

import json
import os
import random
import subprocess
import venv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stillhouse.release._awkward import awkward_texts
from stillhouse.scoring import OnnxScorer
from tasks import fresh_check
from tasks.logged_model import LARGEST_CHANGE
from tasks.mlflow_home import load_mlflow, no_warnings
from tests.end_to_end.model_server import predicted, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODEL = "models:/opinions@champion"
ROWS = 500
LEAST_AGREEMENT = 0.995
"""Of labels when rows meet other neighbours in a batch: what the gate asks for by default."""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    home = Path(os.environ.get("DEMO_HOME", ROOT / ".stillhouse")).resolve()
    assert (home / "mlflow.db").is_file(), f"{home} has no registered model: run this as `make test-light`"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    uri = f"sqlite:///{home / 'mlflow.db'}"
    return {**kept, "MLFLOW_TRACKING_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture(scope="module")
def bundle(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registered files, as MLflow hands them out."""
    mlflow = load_mlflow()
    with no_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
        model = mlflow.artifacts.download_artifacts(MODEL, dst_path=str(tmp_path_factory.mktemp("model")))
    return Path(model)


@pytest.fixture(scope="module")
def light_python(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment: the model's own requirements, at the locked versions, and nothing else."""
    directory = tmp_path_factory.mktemp("light")
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    command = ["-m", "pip", "install", "-qq", "-r", bundle / "requirements.txt", "-c", ROOT / "requirements.lock"]
    subprocess.run([python, *command], check=True)
    return python


@pytest.fixture(scope="module")
def light_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `stillhouse` of what deployments/Dockerfile.light installs."""
    directory = tmp_path_factory.mktemp("image")
    venv.create(directory, with_pip=True)
    light = ["-r", ROOT / "deployments" / "requirements-light.txt", "-c", ROOT / "requirements.lock"]
    for what in (light, ["--no-deps", ROOT]):
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "-qq", *what], check=True)
    return directory / "bin" / "stillhouse"


@pytest.mark.parametrize("model", ["opinions", "BUNDLE"])
def test_the_light_image_predicts_a_file(light_image, bundle, rows, environment, tmp_path, model) -> None:
    directory = str(next(bundle.glob("artifacts/*/model.onnx")).parent)
    pd.DataFrame({"text": [row["text"] for row in rows]}).to_parquet(tmp_path / "rows.parquet")
    home = os.environ.get("DEMO_HOME", ROOT / ".stillhouse")
    done = subprocess.run(
        [light_image, "predict", model.replace("BUNDLE", directory), "rows.parquet", "-o", "out.parquet", "--no-log"],
        env={**environment, "STILLHOUSE_HOME": str(Path(home).resolve())}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(tmp_path / "out.parquet")
    agreeing = [row["label"] == label for row, label in zip(rows, found["predicted"], strict=True)]
    assert sum(agreeing) / ROWS >= LEAST_AGREEMENT


@pytest.fixture(scope="module")
def rows(bundle: Path) -> list[dict[str, Any]]:
    """Awkward texts, and random pieces and mixtures of them, with what the gate's scorer says in one call."""
    rng = random.Random(0)
    texts = awkward_texts()
    while len(texts) < ROWS:
        first, second = rng.choices(texts, k=2)
        cut = rng.randint(0, len(first))
        texts.append(rng.choice(["", " ", "\n"]).join([first[:cut], second, first[cut:]])[: rng.choice([5, 80, 9000])])
    answers = OnnxScorer(next(bundle.glob("artifacts/*/model.onnx")).parent).predict(texts)
    return [{"text": text, **answer} for text, answer in zip(texts, answers, strict=True)]


@pytest.mark.parametrize("package", ["torch", "transformers", "stillhouse", "tasks", "prefect"])
def test_the_environment_is_light(light_python: Path, package: str) -> None:
    done = subprocess.run([light_python, "-I", "-c", f"import {package}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "No module named" in done.stderr


def test_loaded_it_gives_the_gates_answers(light_python, rows, environment, tmp_path) -> None:
    check = tmp_path / "check.json"
    check.write_text(json.dumps({"rows": rows}))
    command = [light_python, "-I", fresh_check.__file__, MODEL, check]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == ROWS and found["changed"] == 0, found
    assert found["largest_change"] <= LARGEST_CHANGE


def test_served_it_gives_the_gates_answers_in_any_batch(light_python, rows, environment, tmp_path) -> None:
    texts = [row["text"] for row in rows]
    with serving(light_python, MODEL, environment, tmp_path) as server:
        together = fresh_check.compare(rows, predicted(server, texts))
        sevens = [answer for start in range(0, ROWS, 7) for answer in predicted(server, texts[start : start + 7])]
    assert together["changed"] == 0 and together["largest_change"] <= LARGEST_CHANGE, together
    apart = fresh_check.compare(rows, sevens)
    assert 1 - apart["changed"] / ROWS >= LEAST_AGREEMENT, apart
    print(f"in batches of seven: {apart['changed']} of {ROWS} labels change, {apart['largest_change']:.2g} at most")
