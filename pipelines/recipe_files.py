"""Where a recipe's name leads: those that come with the package, those of a home, and files."""

from importlib import resources
from pathlib import Path

from stillhouse.errors import UserError, nearest

DIRECTORY = "recipes"
"""Below a home: recipes of its own, `NAME.yaml`."""


def shipped_recipes() -> dict[str, Path]:
    """`{name: file}` of the recipes that come with the package."""
    directory = Path(str(resources.files("pipelines") / "recipes"))
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))}


def home_recipes(home: Path | None) -> dict[str, Path]:
    """`{name: file}` of the recipes in `home`; none where there is no such directory."""
    if home is None:
        return {}
    return {path.stem: path.resolve() for path in sorted((home / DIRECTORY).glob("*.yaml")) if path.is_file()}


def recipe_names(home: Path | None = None) -> list[str]:
    """What `run NAME` and the form take: the shipped recipes, then those of the home."""
    shipped = shipped_recipes()
    return [*shipped, *(name for name in home_recipes(home) if name not in shipped)]


def recipe_path(name: str, home: Path | None = None) -> Path:
    """The file of a shipped recipe, of one in `home`, or of a path."""
    shipped, own = shipped_recipes(), home_recipes(home)
    if name in shipped and name in own:
        raise UserError(f'two recipes are called "{name}": the shipped one and {own[name]}', "Rename that file")
    if name in shipped or name in own:
        return (shipped | own)[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    known = recipe_names(home)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        fix = f"Recipes by name: {', '.join(known)}; `stillhouse new FILE` writes one for your data"
        raise UserError(f"no recipe file {name}", fix)
    raise UserError(f'no recipe "{name}"', nearest(name, set(known)))
