"""Recipes by name: shipped, and in a home."""

import pytest

from pipelines.load import load_recipe, recipe_names, shipped_recipes
from stillhouse.errors import UserError


@pytest.fixture
def recipes(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("extends: opinions\nsteps: {data: {with: {source: rows.csv}}}\n")
    return tmp_path / "recipes"


def test_a_recipe_of_the_home_is_found_by_name(recipes):
    recipe, path = load_recipe("mine", ["seed=3"], recipes.parent)
    assert recipe.registered_name == "mine" and recipe.seed == 3 and path == recipes / "mine.yaml"
    assert recipe.steps["data"].settings["source"] == str(recipes / "rows.csv")
    assert recipe_names(recipes.parent) == [*shipped_recipes(), "mine"]
    with pytest.raises(UserError, match="no recipe"):
        load_recipe("mine")


def test_it_can_be_extended_by_name_from_anywhere(recipes, tmp_path):
    (tmp_path / "other.yaml").write_text("extends: mine\nname: other\n")
    recipe, _ = load_recipe(str(tmp_path / "other.yaml"), home=recipes.parent)
    assert recipe.name == "other" and recipe.steps["data"].settings["source"] == str(recipes / "rows.csv")


def test_a_name_that_is_taken_is_said_not_guessed(recipes):
    (recipes / "news.yaml").write_text("extends: opinions\n")
    with pytest.raises(UserError, match=r'two recipes are called "news".*Rename'):
        load_recipe("news", home=recipes.parent)
    assert load_recipe("news")[0].name == "news"
    assert recipe_names(recipes.parent).count("news") == 1


def test_a_misspelt_name_is_answered_with_the_homes_too(recipes):
    with pytest.raises(UserError, match='did you mean "mine"'):
        load_recipe("mime", home=recipes.parent)


def test_a_home_without_recipes_has_the_shipped_ones(tmp_path):
    assert recipe_names(tmp_path) == recipe_names(None) == list(shipped_recipes())
