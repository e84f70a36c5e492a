"""Rules of the house that no linter knows."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stillhouse.methods import METHODS

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "pipelines", "stillhouse")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_there_are_sources():
    assert len(SOURCES) > 50


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_is_a_page_or_two_and_says_what_it_is(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    most = 400 if path.name == "scoring.py" else 300  # that one travels in every bundle, alone
    assert len(lines) <= most
    assert not lines or lines[0].startswith('"""')


def test_the_wheel_has_all_four_packages_and_the_recipes(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipelines" / "recipes").glob("*.yaml")}
    templates = [path.relative_to(ROOT).as_posix() for path in (ROOT / "stillhouse/report/templates").iterdir()]
    assert len(templates) > 10 and set(templates) <= names
    assert expected <= names
    assert not any(name.startswith(("tests", "benchmarks")) for name in names)


def test_no_flow_module_hides_a_library():
    """Prefect puts a file entrypoint's folder first on the path: `flows/evaluate.py` would be `import evaluate`."""
    for path in (ROOT / "flows").glob("*.py"):
        if path.stem != "__init__":
            assert importlib.util.find_spec(path.stem) is None, path.stem


def test_methods_are_sorted_and_each_has_a_test_of_its_package():
    assert list(METHODS) == sorted(METHODS)
    for name in METHODS:
        folder = METHODS[name].split(":")[0].split(".")[1]
        assert list((ROOT / "tests" / "stillhouse" / folder).glob("test_*.py")), name


def test_the_command_line_imports_nothing_heavy():
    heavy = {"torch", "prefect", "mlflow", "pandas", "transformers"}
    code = f"import sys, flows.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "word", ["trust_remote_code=True", "torch.load(", "pickle.load", "allow_pickle=True", "import yaml"]
)
def test_nothing_unsafe_is_called(word):
    assert [path.name for path in SOURCES if word in path.read_text(encoding="utf-8")] == []


COMMANDS = (
    "run", "plan", "new", "recipes", "methods", "predict", "models", "promote", "rollback", "export", "doctor", "up",
    "report", "retrain", "monitor", "serve",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"stillhouse {command}" in done.stdout and "Example" in done.stdout
