"""`recipes`, `methods` and `new`: what there is, and how to begin."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.output import print_json
from stillhouse.errors import UserError
from stillhouse.home import find_home

if TYPE_CHECKING:
    from pipelines.schema import Recipe

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
STARTER = """\
# Own data on the `{base}` recipe. Run it with: stillhouse run {file}
extends: {base}
name: "{name}"
steps:
  data: {{with: {{source: {source}{columns}{extra}}}}}
"""


def add_commands(app: typer.Typer) -> None:
    app.command()(recipes)
    app.command()(methods)
    app.command()(new)


def recipes(as_json: Json = False) -> None:
    """List the shipped recipes and those in the home's `recipes/`.

    Example: stillhouse recipes
    """
    from pipelines.load import recipe_names

    home = find_home()
    listed = [_recipe_entry(name, home) for name in recipe_names(home)]
    if as_json:
        print_json(listed)
        return
    for entry in listed:
        print(f"{entry['name']:<12} {entry['description']}\n{'':<12} {' → '.join(entry['steps'])}".rstrip())


def _recipe_entry(name: str, home: Path) -> dict[str, Any]:
    """A recipe of the home that cannot be used is listed with the reason: the others can."""
    from pipelines.load import load_recipe
    from pipelines.recipe_files import home_recipes

    try:
        recipe, path = load_recipe(name, home=home)
    except UserError as error:
        file = str(home_recipes(home).get(name, ""))
        return {"name": name, "description": f"cannot be used: {error}", "steps": [], "file": file}
    return {"name": name, "description": recipe.description, "steps": list(recipe.steps), "file": str(path)}


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="METHOD", help="One method: its slots, settings and defaults.")
    ] = None,
    as_json: Json = False,
    schema: Annotated[bool, typer.Option("--schema", help="JSON schema of recipes, for editors.")] = False,
) -> None:
    """List the methods, or describe one.

    Example: stillhouse methods train.stage
    """
    from pipelines.catalog import describe_method, recipe_schema
    from stillhouse.methods import METHODS

    if schema:
        print_json(recipe_schema())
        return
    described = [describe_method(entry) for entry in ([name] if name else METHODS)]
    if as_json:
        print_json(described[0] if name else described)
        return
    width = max(len(method["name"]) for method in described)
    for method in described:
        print(f"{method['name']:<{width}} {method['summary']}")
        if name:
            _print_details(method)


def _print_details(method: dict[str, Any]) -> None:
    print(f"\ninputs   {', '.join(f'{k}: {v}' for k, v in method['slots'].items()) or 'none'}")
    print(f"output   {method['output']}\n\nsettings")
    for setting in method["settings"]:
        default = "required" if setting["required"] else json.dumps(setting["default"], ensure_ascii=False)
        print(f"  {setting['name']}: {setting['type']} = {default}")
        if setting["description"]:
            print(f"      {setting['description']}")
    print(f"\nexample\n  {method['example']}")


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your data: CSV, TSV, JSONL, Parquet, or a folder.")],
    text: Annotated[str, typer.Option(help="Column with the text.")] = "text",
    label: Annotated[str, typer.Option(help="Column with the label.")] = "label",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The recipe to write.")] = None,
    base: Annotated[str, typer.Option(help="Recipe to start from, shipped or in HOME/recipes.")] = "opinions",
    as_json: Json = False,
) -> None:
    """Write a starter recipe for your own data.

    Example: stillhouse new reviews.csv --text body --label stars
    """
    from pipelines.load import OF_THE_SOURCE, load_recipe

    if not file.exists():
        raise UserError(f"no file {file}", "Name a CSV, TSV, JSONL or Parquet file, or a folder")
    if not (file.is_file() or file.is_dir()):
        raise UserError(f"{file} is neither a file nor a folder", "Copy what it gives into a file")
    name = (
        "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in file.stem)
        .strip("-_")[:50]
        .strip("-_")
        or "own-data"
    )
    path = output or Path(f"{name}.yaml")
    source = json.dumps(_relative(file.resolve(), path.resolve().parent), ensure_ascii=False)
    home = find_home()
    shipped, _ = load_recipe(base, home=home)
    columns, words = {}, 0
    if shipped.steps["data"].uses == "prepare.text":
        words = _check_columns(file, text, label)
        columns = {"text": text, "label": label}
    kept = {"source", "max_train_rows", *OF_THE_SOURCE, *columns}
    extra = "".join(f", {key}: null" for key in shipped.steps["data"].settings if key not in kept)
    said = "".join(f", {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in columns.items())
    if path.exists():
        raise UserError(f"{path} is there already", "Name another with --output")
    content = STARTER.format(base=base, name=name, file=path, source=source, columns=said, extra=extra)
    content += _longer_input(shipped, words)
    path.write_text(content, encoding="utf-8")
    try:
        load_recipe(str(path), home=home)
    except UserError:
        path.unlink()
        raise
    if as_json:
        print_json({"recipe": str(path)})
    else:
        print(f"{path}:\n\n{content}\nnext:\n  stillhouse plan {path}\n  stillhouse run {path}")


def _longer_input(shipped: "Recipe", words: int) -> str:
    """A line of the recipe for texts that its first stage would cut; a word is about 1.4 tokens."""
    for name, step in shipped.steps.items():
        if step.settings.get("base"):
            tokens = min(512, 64 * -(-round(1.4 * words) // 64))
            if tokens > step.settings.get("max_length", 128):
                return (
                    f"  {name}: {{with: {{max_length: {tokens}}}}} # one text in twenty has more than {words} words\n"
                )
    return ""


def _check_columns(file: Path, text: str, label: str) -> int:
    """Words that 95 % of the first texts do not exceed; 0 for a folder."""
    if file.is_dir():
        return 0
    from stillhouse.data.rows import iter_rows

    for chunk in iter_rows(file, text):
        if label not in chunk.columns:
            from stillhouse.errors import nearest

            raise UserError(f'{file.name} has no column "{label}"', nearest(label, {str(c) for c in chunk.columns}))
        return int(chunk[text].str.split().str.len().quantile(0.95)) if len(chunk) else 0
    raise UserError(f"{file} has no rows", "Give a file with a header and at least one row")


def _relative(path: Path, directory: Path) -> str:
    try:
        return str(path.relative_to(directory))
    except ValueError:
        return str(path)
