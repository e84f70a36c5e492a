"""`store verify | gc | show` and `doctor`: what is on the disk, and whether it is sound."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from flows.environment import prepare
from flows.output import print_json
from flows.terminal import size
from stillhouse.home import find_home

if TYPE_CHECKING:
    from stillhouse.store import Store

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def add_commands(app: typer.Typer) -> None:
    store = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the artifacts on the disk.")
    for command in (verify, gc, show):
        store.command()(command)
    app.add_typer(store, name="store")
    app.command()(doctor)


def verify(as_json: Json = False) -> None:
    """Compare every file with its digest. Exit 1 when something is damaged.

    Example: stillhouse store verify
    """
    from stillhouse.store import Store
    from stillhouse.upkeep import verify_all

    report = verify_all(Store(find_home()))
    if as_json:
        print_json(report)
    else:
        print(f"{report['checked']} checked, {len(report['damaged'])} damaged")
        for entry in report["damaged"]:
            print(f"  {entry['name'][:24]}: {entry['why']} (set aside; the next run rebuilds it)")
    if report["damaged"]:
        raise typer.Exit(1)


def gc(
    days: Annotated[float, typer.Option(help="Keep what was made or used in the last DAYS.")] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Free space that nothing needs. Damaged and unfinished leftovers, old derived data, old artifacts of no release.

    Example: stillhouse store gc --dry-run
    """
    from stillhouse.store import Store
    from stillhouse.upkeep import collect_garbage
    from tasks.registry import kept_keys

    home = find_home()
    prepare(home)
    full, light = kept_keys(home)
    report = collect_garbage(Store(home), full, light, days, dry_run=dry_run)
    if as_json:
        print_json(report)
        return
    verb = "would free" if dry_run else "freed"
    print(f"{verb} {size(report['bytes'])}: {len(report['removed'])} entries")


def show(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="A key or its beginning; all without.")] = None,
    as_json: Json = False,
) -> None:
    """List the artifacts, or show one. What made it, from what, its files and figures.

    Example: stillhouse store show 3fa94c
    """
    from stillhouse.store import Store
    from stillhouse.upkeep import find_key

    store = Store(find_home())
    if key is None:
        _list_artifacts(store, as_json)
        return
    manifest = store.manifest(find_key(store, key))
    assert manifest is not None
    if as_json:
        print_json(manifest)
        return
    print(f"{manifest['recipe']}/{manifest['step']}  {manifest['method']}  {manifest['kind']}\n  {manifest['key']}")
    for slot, items in manifest["inputs"].items():
        print(f"  input {slot}: {', '.join(item['key'][:12] for item in items)}")
    for name, value in manifest["settings"].items():
        print(f"  {name}: {value}")
    for name, entry in manifest["files"].items():
        print(f"  {entry['bytes']:>12,}  {name}")
    print("  " + "  ".join(f"{name} {value:.4g}" for name, value in manifest["metrics"].items()))
    print(f"  {store.path(manifest['key'])}")


def _list_artifacts(store: "Store", as_json: bool) -> None:
    """The newest first."""
    manifests = [manifest for key in store.list_keys() if (manifest := store.manifest(key))]
    if as_json:
        print_json(manifests)
    for manifest in [] if as_json else manifests:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest["measured"]["created"]))
        held = size(sum(entry["bytes"] for entry in manifest["files"].values()))
        print(f"{manifest['key'][:12]}  {day}  {held:>9}  {manifest['recipe']}/{manifest['step']}")


def doctor(as_json: Json = False) -> None:
    """Say what is installed and what is wrong. Each fault with its remedy; runs whose process is dead are closed.

    Example: stillhouse doctor
    """
    from flows.doctor import examine

    home = find_home()
    prepare(home)
    findings = examine(home)
    if as_json:
        print_json(findings)
    else:
        for entry in findings["checks"]:
            print(f"{'ok ' if entry['ok'] else 'BAD'}  {entry['name']:<16} {entry['detail']}")
            if not entry["ok"] and entry["fix"]:
                print(f"     {'':<16} {entry['fix']}")
    if not all(entry["ok"] for entry in findings["checks"]):
        raise typer.Exit(1)
