"""Triggers of retraining, one JSON file each in `HOME/retrain/NAME`: what was asked, frozen, and what came of it.

A trigger is `open` until its run has an outcome; whoever retrains the model next goes on with it. The recipe of its run
stands beside it, in `recipes/ID.yaml`.
"""

import contextlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

from stillhouse.code_digest import code_digests
from stillhouse.files import flush, read_json, write_text
from stillhouse.keys import digest
from stillhouse.methods import METHODS

OPEN = "open"
JUDGED = ("released", "challenger", "refused")
"""States of triggers whose new model the gate has seen."""
RAN = (*JUDGED, "failed")
"""States of triggers whose run is over."""
IDLE = ("nothing-new", "too-few", "cooling-down")
"""States of triggers that ran nothing."""
Trigger = dict[str, Any]


def directory(home: Path, name: str) -> Path:
    return home / "retrain" / name


def recipe_file(home: Path, name: str, identity: str) -> Path:
    return directory(home, name) / "recipes" / f"{identity}.yaml"


def trigger_of(recipe: Path) -> Trigger | None:
    """The trigger for which `recipe` was written, if it is such a file."""
    path = recipe.parent.parent / f"{recipe.stem}.json"
    if recipe.parent.name != "recipes" or not path.is_file():
        return None
    return read_json(path)


def new_trigger(name: str, reason: str, **fields: Any) -> Trigger:
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"{int(now % 1 * 1000):03d}"
    return {
        "id": f"{stamp}-{secrets.token_hex(3)}", "name": name, "reason": reason, "created": now, "state": OPEN, **fields
    }  # fmt: skip


def save(home: Path, trigger: Trigger) -> None:
    place = directory(home, trigger["name"])
    place.mkdir(parents=True, exist_ok=True)
    # Not `write_json`, which sorts: a recipe's steps keep their order.
    write_text(place / f"{trigger['id']}.json", json.dumps(trigger, indent=2, ensure_ascii=False) + "\n")
    flush(place)


def read_triggers(home: Path, name: str) -> list[Trigger]:
    """All triggers of a model, the oldest first; a file that somebody else left there is passed over."""
    found = []
    for path in sorted(directory(home, name).glob("*.json")):
        with contextlib.suppress(ValueError, OSError):
            value = read_json(path)
            if isinstance(value, dict) and _is_trigger(value, name, path.stem):
                found.append(value)
    return found


def _is_trigger(value: Trigger, name: str, identity: str) -> bool:
    """Ours, and under its own id: that is where it is saved again."""
    words = all(isinstance(value.get(key), str) for key in ("state", "reason"))
    return (
        words and value.get("id") == identity and value.get("name") == name and isinstance(value.get("created"), float)
    )


def open_trigger(home: Path, name: str) -> Trigger | None:
    return next((one for one in reversed(read_triggers(home, name)) if one["state"] == OPEN), None)


def record_idle(home: Path, trigger: Trigger) -> Trigger:
    """Keep a trigger that ran nothing; a schedule that finds the same again and again is counted in one file."""
    last = next(iter(reversed(read_triggers(home, trigger["name"]))), None)
    same = ("state", "reason") if trigger["state"] == "cooling-down" else ("state", "reason", "why")  # it says how long
    if last and trigger["state"] in IDLE and all(last.get(key) == trigger.get(key) for key in same):
        trigger = {**last, "why": trigger["why"], "times": last.get("times", 1) + 1, "last": trigger["created"]}
    save(home, trigger)
    return trigger


def code_now() -> dict[str, str]:
    """`{module: digest}` of the code behind all methods."""
    found: dict[str, str] = {}
    for entry in METHODS.values():
        found.update(code_digests(entry.partition(":")[0]))
    return dict(sorted(found.items()))


def code_digest(modules: dict[str, str]) -> str:
    return digest(modules)


def changed_modules(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
