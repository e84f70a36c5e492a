"""Recipes `news` and `entities` from data to registered model, on few rows: do they run? `make recipes`: how well.

`entities` wants WNUT-17 in ../shared/data/wnut17, beside the checkout.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WNUT = ROOT.parent / "shared" / "data" / "wnut17"
FEW = ["data.max_train_rows=240", "teacher.num_train_epochs=1", "student.num_train_epochs=1"]
LENIENT = ["release.max_loss=1", "int8.accept_loss=1"]
"""So little training says nothing about quality: what is tried here is that every step runs on the other's output."""


def run(name: str, home: Path, overrides: list[str]) -> None:
    sets = [part for override in [*FEW, *LENIENT, *overrides] for part in ("--set", override)]
    command = [str(Path(sys.executable).with_name("stillhouse")), "run", name, "--json", *sets]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "STILLHOUSE_HOME": str(home)}, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, f"{name}: exit {done.returncode}\n{done.stdout}"
    result = json.loads(done.stdout)
    assert {step["state"] for step in result["steps"]} == {"ran"}, result
    assert result["gate"]["passed"] and result["model"]["version"] == 1, result
    print(f"{name}: {result['seconds']:.0f} s, model {result['model']['name']} version {result['model']['version']}")


with tempfile.TemporaryDirectory() as scratch:
    run("news", Path(scratch) / "home", [])
    run("entities", Path(scratch) / "home", [f"data.source={WNUT}"])
