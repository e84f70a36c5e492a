"""What CONTRIBUTING.md shows works as it stands there."""

import re
from pathlib import Path
from types import FunctionType

import stillhouse
from pipelines.catalog import describe_method
from pipelines.load import load_recipe
from pipelines.plan import World, make_plan
from stillhouse.methods import METHODS
from stillhouse.store import Store

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_method_shown_is_a_method_and_its_test_passes(tmp_path, monkeypatch):
    method, test = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (line,) = re.findall(r'^"(.+)": "(.+)",$', TEXT, re.MULTILINE)
    package = tmp_path / "stillhouse" / "merge"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "average.py").write_text(method, encoding="utf-8")
    monkeypatch.setattr(stillhouse, "__path__", [*stillhouse.__path__, str(package.parent)])
    monkeypatch.setitem(METHODS, *line)
    assert all(setting["description"] for setting in describe_method("merge.average")["settings"])
    names: dict = {}
    exec(compile(test, "CONTRIBUTING.md", "exec"), names)
    (shown,) = [value for name, value in names.items() if name.startswith("test_") and isinstance(value, FunctionType)]
    shown(tmp_path)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "soup.yaml").write_text(recipe, encoding="utf-8")
    made = make_plan(*load_recipe(str(tmp_path / "soup.yaml")), World(Store(tmp_path / "home")))
    assert [item.kind for item in made.step("student").inputs["teachers"]] == ["model.torch"]
    assert len(made.step("soup").inputs["models"]) == 2
