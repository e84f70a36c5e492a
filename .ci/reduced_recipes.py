"""Recipes `news` and `entities` from data to registered model, on few rows: do they run? `make recipes`: how well.

WNUT-17 is looked for beside the checkout; without it, `entities` gets made-up sentences.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WNUT = ROOT.parent / "shared" / "data" / "wnut17"
FEW = ["data.max_train_rows=240", "teacher.num_train_epochs=1", "student.num_train_epochs=1"]
LENIENT = ["release.max_loss=1", "int8.accept_loss=1"]
"""So little training says nothing about quality: what is tried here is that every step runs on the other's output."""
PLACES = ["Paris", "New York", "Lake Victoria", "Rome", "Addis Ababa", "Lima"]
FRAMES = ["we flew to {} last week", "{} was cold", "the train from {} is late again", "nothing happened today"]


def made_up_sentences(path: Path, count: int = 600) -> Path:
    """A CoNLL file of `count` sentences with tagged places."""
    rng = random.Random(0)
    blocks = []
    for number in range(count):
        lines = []
        for word in [*rng.choice(FRAMES).split(), f"n{number}"]:
            place = rng.choice(PLACES).split() if word == "{}" else []
            lines += [f"{part}\t{'B' if i == 0 else 'I'}-place" for i, part in enumerate(place)] or [f"{word}\tO"]
        blocks.append("\n".join(lines))
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


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
    source = WNUT if WNUT.is_dir() else made_up_sentences(Path(scratch) / "places.conll")
    run("entities", Path(scratch) / "home", [f"data.source={source}"])
