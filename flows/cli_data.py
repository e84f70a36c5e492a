"""`data add | show`: new rows for a model in use."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.environment import prepare
from flows.output import print_json
from stillhouse.errors import UserError
from stillhouse.home import find_home

if TYPE_CHECKING:
    from stillhouse.dataset.data_set import DataSet
    from stillhouse.dataset.intake import Added

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")]


def add_commands(app: typer.Typer) -> None:
    data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="New rows for a model in use.")
    for command in (add, show):
        data.command()(command)
    app.add_typer(data, name="data")


def add(
    name: ModelName,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV, TSV, JSONL or Parquet; a path or a URL.")],
    text: Annotated[str | None, typer.Option(metavar="COL", help="Column with the text; else the recipe's.")] = None,
    label: Annotated[str | None, typer.Option(metavar="COL", help="Column with the label; else the recipe's.")] = None,
    identity: Annotated[str | None, typer.Option("--id", metavar="COL", help="Column with the row's id.")] = None,
    grow: Annotated[bool, typer.Option("--new-labels", help="Take labels that the model does not know yet.")] = False,
    as_json: Json = False,
) -> None:
    """Check the rows of a file against the model in use and add the good ones to its data set.

    Rows that do not fit are set aside with their reason. A file with the columns id and label, without a text, labels
    predictions of the prediction log. `stillhouse retrain NAME` then learns from what is new.

    Example: stillhouse data add opinions week-47.csv --text tweet --label sentiment
    """
    from stillhouse.dataset.data_set import DataSet
    from stillhouse.dataset.intake import add_file
    from stillhouse.dataset.judge import Columns
    from stillhouse.home import make_home
    from tasks.alerts import tell
    from tasks.champion_data import champion_of, schema_for, seen

    home = make_home(find_home())
    prepare(home)
    schema = schema_for(home, name, grow=grow)
    data_set = DataSet(home, name)
    path = _local(file, data_set)
    added = add_file(data_set, path, schema, Columns(text, label, identity), file.rpartition("/")[2], again=True)
    if added["rows"] and (not added["known"] or data_set.version() > seen(champion_of(home, name))):
        # Known and not learned yet: whoever added it may have been killed before this.
        tell(home, "new-data", name, version=data_set.version(), rows=added["rows"])
    if as_json:
        print_json(_shown(added, data_set))
    else:
        _say(added, data_set, name)
    if not added["known"] and not added["rows"]:
        raise typer.Exit(2)


def _local(file: str, data_set: "DataSet") -> Path:
    """The file, fetched first if it is behind a URL."""
    from stillhouse.dataset.landing import is_local, local_path

    if not is_local(file):
        from stillhouse.source import DigestMemo, fetch_url, resolve_source

        return fetch_url(resolve_source(file, "data", Path.cwd(), {}, DigestMemo()), data_set.root / "downloads")
    path = local_path(file)
    if path.is_dir():
        raise UserError(f"{file} is a directory", "Name a file in it")
    if not path.is_file():
        raise UserError(f"no file {file}", "Name a CSV, TSV, JSONL or Parquet file")
    return path


def _shown(added: "Added", data_set: "DataSet") -> dict[str, Any]:
    keys = ("number", "kind", "rows", "labels", "new_labels", "rejected", "source", "known")
    shown = {key: added[key] for key in keys}
    return {**shown, "rejected_file": _rejected_file(added, data_set), "version": data_set.version()}


def _rejected_file(added: "Added", data_set: "DataSet") -> str | None:
    return str(data_set.root / added["rejected_file"]) if added["rejected_file"] else None


def _say(added: "Added", data_set: "DataSet", name: str) -> None:
    from flows.retrain_text import counted
    from stillhouse.dataset.judge import REASONS

    if added["known"]:
        print(f"{added['source']}: this content was added before, as {added['number']} ({added['rows']:,} rows)")
        return
    what = f"version {added['number']}" if added["rows"] else "no row can be used"
    print(f"{name}: {what}: {counted(added)}")
    for reason, count in added["rejected"].items():
        print(f"  {count:>7,}  {REASONS[reason]}")
    if added["rejected"]:
        print(f"  set aside in {_rejected_file(added, data_set)}")
    if added["new_labels"]:
        print(f"  new labels: {', '.join(added['new_labels'])}")
    if added["rows"]:
        print(f"next:\n  stillhouse retrain {name}")
    else:
        print("  correct the rows and add the file again")


def show(name: ModelName, as_json: Json = False) -> None:
    """List what was added: rows, labels, rows set aside by reason. Exit 1 when a file of it is damaged.

    Example: stillhouse data show opinions
    """
    from stillhouse.dataset.data_set import DataSet
    from tasks.champion_data import champion_of, seen

    home = find_home()
    prepare(home)
    champion = champion_of(home, name)
    data_set = DataSet(home, name)
    manifest = data_set.manifest()
    damaged = data_set.damage(data_set.epochs())
    report = {
        "name": name, "version": data_set.version(), "champion": champion.version, "seen": seen(champion),
        **manifest, "damaged": damaged,
    }  # fmt: skip
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if damaged:
        raise typer.Exit(1)


def _print_report(report: dict[str, Any]) -> None:
    from flows.retrain_text import counted

    print(
        f"{report['name']}: version {report['version']} of its data set; "
        f"champion {report['champion']} has learned up to {report['seen']}"
    )
    for entry in report["epochs"]:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["added"]))
        print(f"  {entry['number']:>4}  {day}  {entry['source']}: {counted(entry)}")
    for entry in report["refused"]:
        print(f"     -  {entry['source']} was refused: {entry['reason']}")
    for line in report["damaged"]:
        print(f"  damaged: {line}")
