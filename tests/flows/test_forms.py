"""The forms that Prefect makes of the deployed flows, and what is made of what they are filled in with. No server."""

import importlib
from pathlib import Path

import pytest

from flows.form import overrides_of, run_name
from pipelines.load import load_recipe, parse_yaml, recipe_names
from stillhouse.errors import UserError

FILE = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
CHOICES = {"train": {"recipe"}}
"""Parameters that must be choices."""


def deployed() -> dict[str, str]:
    return {one["name"]: one["entrypoint"] for one in parse_yaml(FILE.read_text(), FILE.name)["deployments"]}


def form_of(entrypoint: str) -> dict[str, dict]:
    from prefect.utilities.callables import parameter_schema

    module, _, name = entrypoint.partition(":")
    return parameter_schema(getattr(importlib.import_module(module), name)).properties


@pytest.mark.parametrize("name", deployed())
def test_every_parameter_of_a_deployed_flow_is_titled_described_and_flat(name):
    for key, field in form_of(deployed()[name]).items():
        assert field["title"] != key and field.get("description"), f"{key}: use flows.form.parameter"
        types = [one.get("type") for one in field.get("anyOf", [field])]
        assert "$ref" not in str(field) and "object" not in types, f"{key} is not flat: {field}"
        assert len(set(types) - {"null"}) == 1, f"{key} shows a switch between types: {field}"
        if key in CHOICES.get(name, set()):
            assert field["enum"]


def test_the_form_offers_the_recipes_of_the_home(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("extends: opinions\n")
    monkeypatch.setenv("STILLHOUSE_HOME", str(tmp_path))
    import flows.train

    fresh = importlib.reload(flows.train)
    monkeypatch.undo()
    assert form_of("flows.train:train")["recipe"]["enum"] == [*recipe_names(), "mine"]
    # A recipe that came later is no choice of this form yet, and none of the flow's own refusals.
    assert fresh.train.validate_parameters({"recipe": "later"})["recipe"] == "later"
    importlib.reload(flows.train)


def filled(**data):
    return {"source": "", "text": "", "label": "", "max_train_rows": -1} | data


def test_an_empty_form_changes_nothing(tmp_path):
    assert overrides_of("opinions", tmp_path, filled(), -1) == []


def test_what_is_filled_in_changes_the_step_that_prepares_data(tmp_path):
    overrides = overrides_of("opinions", tmp_path, filled(source="/d/x.csv", label="a: b", max_train_rows=0), 7)
    recipe, _ = load_recipe("opinions", overrides)
    settings = recipe.steps["data"].settings
    assert (settings["source"], settings["label"], settings["text"]) == ("/d/x.csv", "a: b", "text")
    assert settings["max_train_rows"] == 0 and recipe.seed == 7
    other, _ = load_recipe("news", overrides_of("news", tmp_path, filled(source="/d/x.csv"), -1))
    assert "licence" not in other.steps["data"].settings, "that was for other data"


@pytest.mark.parametrize("source", ["rows.csv", "./rows.csv", "data/rows"])
def test_a_relative_source_is_refused(tmp_path, source):
    with pytest.raises(UserError, match=r"relative path\. Write the whole path"):
        overrides_of("opinions", tmp_path, filled(source=source), -1)


def test_a_recipe_with_two_steps_that_prepare_data_wants_overrides(tmp_path):
    (tmp_path / "recipes").mkdir()
    one = "uses: prepare.text, with: {source: x.csv}"
    (tmp_path / "recipes" / "two.yaml").write_text(f"steps: {{a: {{{one}}}, b: {{{one}}}}}")
    with pytest.raises(UserError, match=r"two.yaml has 2 steps that prepare data.*use overrides"):
        overrides_of("two", tmp_path, filled(label="x"), -1)
    assert overrides_of("two", tmp_path, filled(), 3) == ["seed=3"]


def test_a_runs_name_says_what_differs():
    assert run_name("opinions", {"seed": None, "source": ""}) == "opinions"
    assert run_name("/a/b/mine.yaml", {"seed": 7, "": "x.y=1"}) == "mine, seed 7, x.y=1"
    assert len(run_name("opinions", {"": "x" * 300})) == 100
