"""`models`, `promote`, `rollback` and `export`: what came out of the runs."""

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.environment import prepare
from flows.output import print_json, visible
from stillhouse.home import find_home

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")]


def add_commands(app: typer.Typer) -> None:
    for command in (models, promote, rollback, export):
        app.command()(command)


def _home() -> Path:
    home = find_home()
    prepare(home)
    return home


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model, with the rules it passed.")] = None,
    as_json: Json = False,
) -> None:
    """List the registered models, their versions and aliases; of one also rules, verdict and approval.

    Example: stillhouse models opinions
    """
    from tasks.registry import list_models

    name = re.split("[/@]", name)[0] if name else None  # as other commands name a version
    listed = list_models(_home(), name)
    if as_json:
        print_json(listed)
        return
    if not listed:
        print("no model yet; `stillhouse run opinions` makes one")
    for entry in listed:
        print(entry["name"])
        for version in sorted(entry["versions"], key=lambda v: -v["version"]):
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(version["created"]))
            marks = [*version["aliases"], *(["rolled back"] if version["rolled_back"] else [])]
            shown = "  ".join(f"{k} {v:.4f}" for k, v in list(version["metrics"].items())[:3] if isinstance(v, float))
            print(f"  {version['version']:>3}  {day}  {', '.join(marks) or '-':<22} {shown}".rstrip())
            for line in _release_lines(version) if name else ():
                print(f"       {visible(line)}")


def _release_lines(version: dict[str, Any]) -> list[str]:
    """The verdict, what a person decided, and every rule, for people."""
    against = f", against version {version['against']['version']}" if version["against"] else ""
    lines = [f"gate {version['verdict'] or 'none'}{against}"]
    decision = version["decision"]
    if decision:
        word = "approved" if decision["approve"] else "rejected"
        who = f" by {decision['by']}" if decision["by"] else ""
        lines.append(f"{word}{who} at {decision['at']}" + (f": {decision['comment']}" if decision["comment"] else ""))
    for rule, found in version["rules"].items():
        result = {True: "passed", False: "failed", None: "not applied"}[found["passed"]]
        value = "" if found["value"] is None else f"  {found['value']:.4g}"
        lines.append(f"{result:<11}  {rule}{value}  (limit {found['limit']:g})")
    return lines


def promote(
    name: ModelName,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version of it.")],
    force: Annotated[bool, typer.Option(help="Even without a passed verdict.")] = False,
    by: Annotated[str, typer.Option(metavar="WHO", help="Who approves; kept with the version.")] = "",
    comment: Annotated[str, typer.Option(help="Why; kept with the version.")] = "",
    as_json: Json = False,
) -> None:
    """Make a version the champion.

    Example: stillhouse promote opinions 3 --by "release board"
    """
    from tasks import registry

    _report(registry.promote(_home(), name, version, force, by=by, comment=comment), as_json)


def rollback(name: ModelName, as_json: Json = False) -> None:
    """Go back to the previous champion.

    Example: stillhouse rollback opinions
    """
    from tasks import registry

    _report(registry.rollback(_home(), name), as_json)


def export(
    name: ModelName, directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to.")], as_json: Json = False
) -> None:
    """Copy a registered model into a directory. It scores there without stillhouse.

    Example: stillhouse export opinions ./opinions-model
    """
    from tasks import registry

    _report(registry.export(_home(), name, directory), as_json)


def _report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        print("  ".join(f"{key} {value}" for key, value in result.items() if value is not None))
