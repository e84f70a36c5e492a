"""The `retrain:` section: merged over the steps, inherited, checked when it is read; what a retraining makes of it."""

from pathlib import Path

import pytest

from pipelines.load import load_recipe
from pipelines.retraining import Fresh, retrain_tree
from pipelines.schema import Recipe
from stillhouse.errors import UserError

BASE = """
name: base
steps:
  data: {uses: prepare.text, with: {source: rows.csv, text: tweet, label: mood, labels: {spam: null}, format: csv}}
  head: {uses: train.stage, inputs: {data: data}, with: {base: encoder, train: head}}
  full: {uses: train.stage, inputs: {data: data, model: head}, with: {train: all, num_train_epochs: 3}}
  student: {uses: distill.logits, inputs: {data: data, teachers: [full]}, with: {layers: 1}}
  onnx: {uses: export.onnx, inputs: {model: student}}
  scores: {uses: evaluate.compare, inputs: {data: data, model: onnx, baseline: full}, with: {slices: [topic]}}
"""
RETRAIN = """
retrain:
  head: null
  full: {inputs: {model: "registry:@champion/full"}, with: {num_train_epochs: 1}}
"""


def load(tmp_path: Path, text: str, name: str = "base") -> Recipe:
    (tmp_path / f"{name}.yaml").write_text(text)
    return load_recipe(str(tmp_path / f"{name}.yaml"))[0]


def again(recipe: Recipe, **fresh: object) -> dict:
    whole = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    tree = retrain_tree(whole, Fresh(recipe.registered_name, 7, Path("/new.parquet"), **fresh))  # type: ignore[arg-type]
    Recipe.model_validate(tree)
    return tree["steps"]


def test_the_section_changes_the_steps_of_a_retraining_alone(tmp_path):
    recipe = load(tmp_path, BASE + RETRAIN)
    assert list(recipe.steps) == ["data", "head", "full", "student", "onnx", "scores"]
    steps = again(recipe)
    assert list(steps) == ["data", "full", "student", "onnx", "scores"]
    assert steps["full"]["inputs"] == {"data": "data", "model": "registry:base/7/full"}
    assert steps["full"]["with"] == {"train": "all", "num_train_epochs": 1}
    assert steps["data"]["inputs"] == {"previous": "registry:base/7/data"}
    assert steps["data"]["with"] == {"source": "/new.parquet", "text": "text", "label": "label"}
    assert steps["scores"]["inputs"]["champion"] == "registry:base@champion"
    assert steps["scores"]["with"]["slices"][0] == "topic"


@pytest.mark.parametrize("section", ["", RETRAIN])
def test_from_scratch_only_the_data_step_changes(tmp_path, section):
    recipe = load(tmp_path, BASE + section)
    steps = again(recipe, from_scratch=True)
    assert list(steps) == list(recipe.steps)
    assert steps["full"]["inputs"] == {"data": "data", "model": "head"}
    assert steps["data"]["inputs"] == {"previous": "registry:base/7/data"}


def test_a_child_inherits_the_section_under_its_own_name(tmp_path):
    load(tmp_path, BASE + RETRAIN)
    child = "extends: base.yaml\nname: child\nretrain: {student: {with: {layers: 2}}, full: {with: {train: null}}}\n"
    steps = again(load(tmp_path, child, "child"))
    assert "head" not in steps
    assert steps["full"]["inputs"]["model"] == "registry:child/7/full"
    assert steps["full"]["with"] == {"num_train_epochs": 1}
    assert steps["student"]["with"] == {"layers": 2}
    assert list(again(load(tmp_path, "extends: base.yaml\nname: none\nretrain: null\n", "none")))[1] == "head"


def test_the_own_name_is_filled_in_for_ordinary_inputs_too(tmp_path):
    extra = "  more: {uses: train.stage, inputs: {data: data, model: 'registry:@champion/full'}, with: {train: all}}\n"
    recipe = load(tmp_path, BASE + extra + "model: other\n")
    assert recipe.steps["more"].inputs["model"] == "registry:other@champion/full"


def test_a_head_grows_only_where_a_stage_starts_from_the_champion(tmp_path):
    steps = again(load(tmp_path, BASE + RETRAIN), grow=True)
    assert steps["full"]["with"]["grow_head"] is True
    assert all("grow_head" not in step for step in again(load(tmp_path, BASE), grow=True).values())


def test_texts_without_labels_go_to_the_teachers(tmp_path):
    steps = again(load(tmp_path, BASE), unlabelled=Path("/texts.parquet"))
    assert steps["student"]["inputs"]["extra"] == "unlabelled"
    assert steps["unlabelled"]["with"]["source"] == "/texts.parquet"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{ful: {with: {}}}", 'base.yaml: retrain.ful has no `uses`, and there is no step "ful"'),
        ("{full: {wiht: {}}}", 'base.yaml: retrain: unknown key "wiht" in steps.full'),
        ("{full: {with: {learning_rat: 1}}}", "base.yaml: retrain.full.with: unknown key"),
        ("{full: {inputs: {modle: head}}}", 'base.yaml: retrain.full.inputs: train.stage has no slot "modle"'),
        ("{more: {uses: train.stge}}", 'base.yaml: retrain.more.uses: unknown method "train.stge"'),
        ("{full: 3}", "base.yaml: retrain.full"),
        ("[full]", "base.yaml: retrain"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path, section, said):
    with pytest.raises(UserError) as error:
        load(tmp_path, f"{BASE}retrain: {section}\n")
    assert said in str(error.value)


def test_a_recipe_without_one_step_of_texts_cannot_be_retrained(tmp_path):
    recipe = load(tmp_path, "name: x\nsteps: {data: {uses: prepare.tokens, with: {source: rows.conll}}}\n")
    with pytest.raises(UserError, match=r"one step prepare.text \(it has prepare.tokens\)"):
        again(recipe)
