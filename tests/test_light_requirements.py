"""The light image: what is pinned there is what the lock pins, and predictions need nothing more."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.stillhouse.batch.tiny_batch import write_rows
from tests.tasks.tiny_release import make_bundle

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "datasets", "prefect", "mlflow", "sklearn", "matplotlib", "onnx", "huggingface_hub")
BLOCKED = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
runpy.run_module("flows.cli", run_name="__main__")
"""


def pins(path: Path) -> set[str]:
    return {line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")}


def test_the_light_requirements_are_those_of_the_lock():
    light = pins(ROOT / "deployments" / "requirements-light.txt")
    assert light and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in light)
    assert light <= pins(ROOT / "requirements.lock")
    names = {line.partition("==")[0] for line in light}
    assert not names & {"torch", "transformers", "datasets", "accelerate", "prefect", "onnx"}


def test_the_light_image_installs_them_and_only_copies_what_there_is():
    lines = (ROOT / "deployments" / "Dockerfile.light").read_text().splitlines()
    assert "RUN pip install -r requirements-light.txt -c requirements.lock" in lines
    sources = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert "deployments/requirements-light.txt" in sources and all((ROOT / source).exists() for source in sources)


def test_the_wheel_can_be_built_from_what_the_images_copy(tmp_path):
    for name in ("Dockerfile", "Dockerfile.light"):
        place = tmp_path / name
        for line in (ROOT / "deployments" / name).read_text().splitlines():
            *sources, target = line.split()[1:] if line.startswith("COPY ") else [""]
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    (place / target).mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place / target)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        done = subprocess.run(build, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (wheel,) = (place / "dist").iterdir()
        names = zipfile.ZipFile(wheel).namelist()
        assert "flows/deployments/prefect.yaml" in names and "pipelines/recipes/opinions.yaml" in names


def test_a_file_is_predicted_where_nothing_heavy_is_installed(tmp_path):
    make_bundle(tmp_path / "model")
    write_rows(tmp_path / "rows.csv", 30)
    command = ["predict", str(tmp_path / "model"), str(tmp_path / "rows.csv"), "-o", str(tmp_path / "out.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "30 rows" in done.stdout, done.stderr
    assert (tmp_path / "out.parquet").is_file()
