"""Recipes from YAML: 1.2 scalars, inheritance, overrides, and one clear line for a mistake."""

from pathlib import Path

import pytest

from pipelines.load import load_recipe, parse_yaml, shipped_recipes
from stillhouse.errors import UserError


def write(tmp_path: Path, text: str, name: str = "mine.yaml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, text), list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_scalars_follow_yaml_1_2():
    value = parse_yaml("a: 1e-3\nb: no\nc: on\nd: null\ne: 0.5", "x")
    assert value == {"a": 0.001, "b": "no", "c": "on", "d": None, "e": 0.5}


def test_there_are_shipped_recipes_and_all_load():
    assert {"opinions", "news", "entities"} <= set(shipped_recipes())
    for name in shipped_recipes():
        recipe, _ = load_recipe(name)
        assert recipe.name == name and recipe.description


def test_own_data_needs_no_more_than_ten_lines(tmp_path):
    text = "extends: opinions\nname: reviews\nsteps:\n  data: {with: {source: reviews.csv, text: body, label: stars}}\n"
    recipe, _ = load_recipe(write(tmp_path, text))
    shipped, _ = load_recipe("opinions")
    assert recipe.registered_name == "reviews"
    assert recipe.steps["data"].settings["source"] == str(tmp_path / "reviews.csv")
    for name in recipe.steps.keys() - {"data"}:
        own, base = recipe.steps[name], shipped.steps[name]
        assert (own.uses, own.settings, own.inputs) == (base.uses, base.settings, base.inputs)
        assert base.resources.expect_seconds and not own.resources.expect_seconds, "that was for other data"


def test_the_name_is_never_inherited(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, "extends: opinions\n", "own.yaml"))
    assert recipe.name == recipe.registered_name == "own"


def test_null_removes_and_lists_replace(tmp_path):
    write(tmp_path, "name: base\nsteps: {a: {uses: evaluate.compare, with: {slices: [x, y]}}, b: {uses: prepare.text}}")
    base = str(tmp_path / "mine.yaml")
    text = f"extends: {base}\nsteps: {{a: {{with: {{slices: [z]}}}}, b: null}}"
    recipe, _ = load_recipe(write(tmp_path, text, "other.yaml"))
    assert recipe.steps["a"].settings == {"slices": ["z"]}
    assert list(recipe.steps) == ["a"]


def test_a_path_is_relative_to_the_file_that_says_it(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, "steps: {data: {uses: prepare.text, with: {source: rows.csv}}}", "deep/base.yaml")
    recipe, _ = load_recipe(write(tmp_path, "extends: deep/base.yaml\nsteps: {data: {seed: 1}}"))
    assert recipe.steps["data"].settings["source"] == str(tmp_path / "deep" / "rows.csv")


def test_overrides_are_parsed_like_the_recipe():
    recipe, _ = load_recipe("opinions", ["teacher.learning_rate=1e-5", "seed=7", "int8.skip=true", "data.label='no'"])
    assert recipe.steps["teacher"].settings["learning_rate"] == 1e-5
    assert recipe.seed == 7
    assert recipe.steps["int8"].skip is True
    assert recipe.steps["data"].settings["label"] == "no"


BOMB = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 40)}]" for n in range(1, 5)]
"""Four lines that stand for a hundred million values."""


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("steps: {a: {uses: prepare.text}}\nsteps: {}", [], "duplicate key"),
        ("a: !!python/object/apply:os.system [ls]", [], "tag"),
        ("a: &x [*x]", [], "ircular"),
        ("\n".join([f"a0: &a0 [{', '.join('x' * 40)}]", *BOMB]), [], "aliases"),
        ("steps: [1, 2", [], "line"),
        ("just text", [], "not a recipe"),
        ("", [], "not a recipe"),
        ("steps: {}", [], "steps"),
        ("steps: {a: {use: prepare.text}}", [], "uses"),
        ("steps: {a: {uses: prepare.text, wiht: {}}}", [], 'did you mean "with"'),
        ("step: {a: {uses: prepare.text}}", [], 'did you mean "steps"'),
        ("steps: {a: {uses: prepare.txt, with: {source: x}}}", [], 'did you mean "prepare.text"'),
        ("extends: opinion\nsteps: {}", [], 'did you mean "opinions"'),
        ("extends: opinions\nsteps: {techer: {with: {dropout: 0}}}", [], 'did you mean "teacher"'),
        ("extends: opinions\nsteps: {teacher: {dropout: 0}}", [], "teacher: {with: {dropout: …}}"),
        ("extends: mine.yaml", [], "circle"),
        ("name: '../up'\nsteps: {a: {uses: prepare.text}}", [], "name"),
        ("extends: opinions", ["teachr.seed=1"], 'did you mean "teacher"'),
        ("extends: opinions", ["teacher"], "no value"),
        ("extends: opinions", ["sed=1"], "neither"),
        ("extends: opinions", ["int8.accept_loss.x=1"], "one value"),
        ("steps: {a: {with: {}}}", ["a.seed=1"], "no `uses`"),
        ("steps: {a.b: {uses: prepare.text}}", [], "steps"),
        ("extends: opinions", ["seed=abc"], "seed"),
        ("extends: opinions", ["seed=-1"], "seed"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, text, overrides, says):
    assert says in refused(tmp_path, text, *overrides)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match='did you mean "opinions"'):
        load_recipe("opinion")
    with pytest.raises(UserError, match=r"no recipe file.*stillhouse new"):
        load_recipe("missing.yaml")


def test_what_is_said_about_the_data_of_a_base_does_not_hold_for_other_data(tmp_path):
    shipped, _ = load_recipe("news")
    assert "research" in shipped.steps["data"].settings["licence"]
    own, _ = load_recipe(write(tmp_path, "extends: news\nsteps: {data: {with: {source: mine.csv}}}"))
    assert not {"licence", "language"} & set(own.steps["data"].settings)
    said, _ = load_recipe(write(tmp_path, "extends: news\nsteps: {data: {with: {source: mine.csv, licence: CC0-1.0}}}"))
    assert said.steps["data"].settings["licence"] == "CC0-1.0"
    other, _ = load_recipe("news", ["data.source=mine.csv"])
    assert "licence" not in other.steps["data"].settings
