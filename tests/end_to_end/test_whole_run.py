"""The whole chain on a tiny encoder: run, run again, predict, roll back, damage, change one setting."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.store import Store

OTHER = "int8.per_channel=false"
STEPS = ["data", "head", "full", "student", "onnx", "int8", "scores", "release"]


def states(result: dict) -> dict[str, str]:
    return {step["name"]: step["state"] for step in result["steps"]}


def test_from_rows_to_a_registered_model_and_back(cli_after_run, first_run, tiny_recipe):
    cli, recipe, first = cli_after_run, str(tiny_recipe), first_run
    assert states(first) == dict.fromkeys(STEPS, "ran")
    assert first["gate"] == {"passed": True, "reasons": []}
    assert (first["model"]["name"], first["model"]["version"], first["model"]["alias"]) == ("tiny", 1, "champion")

    second = cli.json("run", recipe)
    assert states(second) == dict.fromkeys(STEPS, "cached")
    assert second["model"]["version"] == 1 and second["flow_run"] is None
    assert (kept := Path(second["report"])).parent == cli.home / "reports"
    assert kept.read_bytes() == Path(first["report"]).read_bytes(), "nothing ran, and yet it was written again"
    logged = list((cli.home / "mlartifacts").rglob("report.html"))
    assert [path.read_bytes() for path in logged] == [kept.read_bytes()]
    assert Path(cli("report", "tiny").stdout.strip()) == kept and "tiny version 1" in kept.read_text()

    answer = cli.json("predict", "tiny", "the crew was awful rude")["predictions"][0]
    assert set(answer["probabilities"]) == {"good", "bad", "plain"}
    assert answer["label"] == "bad"

    explained = cli("plan", recipe, "--set", OTHER, "--explain").stdout
    assert "setting per_channel True → False" in explained
    listed = cli("store", "show").stdout
    assert len(listed.splitlines()) == len(STEPS) and "tiny/release" in listed
    run = cli("run", recipe, "--local", "--set", OTHER, "--json")
    assert "setting per_channel True → False: int8" in run.stderr
    third = json.loads(run.stdout)
    changed = {"int8", "scores", "release"}
    assert states(third) == {name: "ran" if name in changed else "cached" for name in STEPS}
    assert third["model"]["version"] == 2

    assert states(cli.json("run", recipe, "--set", OTHER)) == dict.fromkeys(STEPS, "cached")
    cli("rollback", "tiny")
    assert {v["version"]: v["aliases"] for v in cli.json("models")[0]["versions"]}[1] == ["champion"]
    again = cli.json("run", recipe, "--set", OTHER)
    assert states(again) == dict.fromkeys(STEPS, "cached")
    assert {v["version"]: v["aliases"] for v in cli.json("models")[0]["versions"]}[1] == ["champion"], "promoted again"

    cli("export", "tiny", str(cli.cwd / "bundle"))
    alone = subprocess.run(
        [sys.executable, "scoring.py", "the crew was awful rude"], cwd=cli.cwd / "bundle", capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert json.loads(alone.stdout.splitlines()[0])["label"] == "bad"
    needed = ("model.onnx", "tokenizer.json", "stillhouse.json")
    on_disk = sum((cli.cwd / "bundle" / name).stat().st_size for name in needed)
    champion = next(v for v in cli.json("models")[0]["versions"] if v["aliases"] == ["champion"])
    assert champion["metrics"]["size_mb"] == pytest.approx(on_disk / 1e6, abs=1e-9)


def test_what_is_deleted_or_damaged_is_rebuilt(cli_after_run, tiny_recipe):
    cli, recipe = cli_after_run, str(tiny_recipe)
    keys = {step["name"]: step["key"] for step in cli.json("plan", recipe)["steps"]}
    store = Store(cli.home)
    shutil.rmtree(store.path(keys["head"]))
    path = store.path(keys["onnx"]) / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged: model.onnx was changed" in cli("plan", recipe, "--explain").stdout
    result = states(cli.json("run", recipe, "--local"))
    assert result["head"] == result["onnx"] == "ran"
    assert {name for name, state in result.items() if state != "cached"} == {"head", "onnx"}
    assert cli.json("store", "verify")["damaged"] == []


def test_a_refusal_is_exit_3_also_when_cached_and_moves_nothing(cli_after_run, tiny_recipe):
    cli = cli_after_run
    before = cli.json("models")
    arguments = ("run", str(tiny_recipe), "--local", "--set", "release.max_size_mb=0.02")
    for _ in range(2):
        refused = cli.json(*arguments, code=3)
        assert states(refused)["release"] == "refused"
        assert refused["gate"]["passed"] is False and "0.02 MB allowed" in refused["gate"]["reasons"][0]
        assert refused["model"] is None
    assert cli.json("models") == before


def test_a_challenger_is_compared_with_the_champion_and_is_a_hit_once_it_is_champion_itself(cli_after_run, tiny_recipe):
    cli, recipe = cli_after_run, tiny_recipe.with_name("against.yaml")
    recipe.write_text(
        'extends: tiny.yaml\nname: tiny\nsteps:\n  scores: {inputs: {champion: "registry:tiny@champion"}}\n'
        "  int8: {with: {per_channel: false}}\n"
    )
    arguments = ("run", str(recipe), "--local")
    first = cli.json(*arguments)
    assert {name for name, state in states(first).items() if state == "ran"} == {"int8", "scores", "release"}
    assert (first["model"]["version"], first["model"]["alias"]) == (2, "champion")
    keys = {step["name"]: step["key"] for step in first["steps"]}
    scores = json.loads((Store(cli.home).path(keys["scores"]) / "scores.json").read_text())
    assert set(scores["champion"]["metrics"]) == set(scores["candidate"]["metrics"])
    assert set(scores["differences"]) == {"baseline", "champion"}

    assert states(cli.json(*arguments)) == dict.fromkeys(STEPS, "cached"), "it is the champion now"
    cli("rollback", "tiny")
    assert states(cli.json(*arguments)) == dict.fromkeys(STEPS, "cached"), "the first is champion again"


def test_a_registered_model_that_is_lost_or_damaged_is_not_used_and_the_next_run_mends_it(cli_after_run, tiny_recipe):
    cli, run = cli_after_run, ("run", str(tiny_recipe))
    cli.json(*run, "--local")
    (model,) = (cli.home / "mlartifacts").rglob("model.onnx")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    for arguments in (("predict", "tiny", "awful"), ("export", "tiny", "copy")):
        assert "was changed" in cli(*arguments, code=2).stderr
    assert cli.json(*run)["model"]["version"] == 1
    cli("export", "tiny", "copy")
    shutil.rmtree(model.parent)
    assert "is missing" in cli("predict", "tiny", "awful", code=2).stderr
    assert states(cli.json(*run)) == dict.fromkeys(STEPS, "cached")
    assert cli.json("predict", "tiny", "the crew was awful rude")["predictions"][0]["label"] == "bad"
    assert len(cli.events("register.mended")) == 2


def test_a_home_that_is_moved_takes_its_models_along(cli_after_run):
    cli = cli_after_run
    moved = cli.home.with_name("moved")
    cli.home.rename(moved)
    cli.home = moved
    assert cli.json("predict", "tiny", "the crew was awful rude")["predictions"][0]["label"] == "bad"


def test_python_files_beside_the_data_are_not_ours(cli, tiny_recipe):
    for name in ("random.py", "csv.py", "json.py"):
        (cli.cwd / name).write_text("raise SystemExit('a file of the user was imported')")
    stillhouse = str(Path(sys.executable).with_name("stillhouse"))
    done = subprocess.run(
        [stillhouse, "run", str(tiny_recipe), "--until", "data", "--local"], cwd=cli.cwd, capture_output=True,
        text=True, env={**os.environ, "STILLHOUSE_HOME": str(cli.home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
