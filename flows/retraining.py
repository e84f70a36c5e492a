"""Retraining, whoever asks for it: take in what arrived, decide, freeze, run, account. Knows no Prefect.

One at a time for a model: a kernel lock, gone with its holder. What a trigger froze (champion, data, code, options,
recipe) stays under its id until its run is over, so that a retry after a kill does what was begun.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from flows.recipe_run import plan_request
from flows.request import Request, Result
from flows.retrain_quality import quality_of
from flows.retrain_recipe import write_recipe
from flows.triggers import (
    RAN,
    Trigger,
    changed_modules,
    code_digest,
    code_now,
    new_trigger,
    open_trigger,
    read_triggers,
    record_idle,
    save,
)
from pipelines.explain import causes
from pipelines.listener import Listener
from pipelines.load import load_recipe
from stillhouse.data.read import load_labels
from stillhouse.dataset.data_set import DataSet
from stillhouse.dataset.landing import is_local, local_path
from stillhouse.dataset.take_in import TakenIn, take_in
from stillhouse.errors import StillhouseError, UserError, WorkerError
from stillhouse.events import reached
from stillhouse.home import make_home
from stillhouse.store import Store
from tasks.alerts import tell
from tasks.champion_data import champion_of, data_artifact, schema_for, seen, stored_recipe
from tasks.mlflow_home import lock
from tasks.versions import DIGEST

Run = Callable[[Request], Result]
HOUR = 3600.0
OPTIONS = ("from_scratch", "new_labels", "unlabelled", "promote", "approval", "approval_timeout_hours")
"""What of a request is frozen with its trigger."""
TOLD = ("released", "refused")
"""States that are events; a challenger changes nothing for those who listen."""


@dataclass(frozen=True)
class Ask:
    """One request for a retraining, as the command line, a form, a schedule or an event makes it."""

    name: str
    reason: str = "by hand"
    landing: str = ""
    min_rows: int = 1
    cooldown_hours: float = 0.0
    from_scratch: bool = False
    new_labels: Literal["set-aside", "grow"] = "set-aside"
    unlabelled: Literal["ignore", "extra"] = "ignore"
    promote: bool = True
    recipe: str = ""
    local: bool = False
    approval: bool = False
    approval_timeout_hours: float = 24.0
    abandon: bool = False
    """Close what was begun and is not over, and decide anew."""
    flow_run: str = ""
    """Id of the Prefect flow run that asks; one that waited for approval goes on under the same."""


def retrain_model(ask: Ask, home: Path, listener: Listener, run: Run) -> Trigger:
    """Do what `ask` says and return the trigger with its outcome. `run` runs a request in whatever way fits the caller.

    States: released, challenger, refused, nothing-new, too-few, cooling-down, covered. Raises `StillhouseError` for a
    run that failed; a lost worker or a kill leaves the trigger open, and the next call goes on with it. Waits for a
    retraining that runs in another process only if there are rows that it does not have.
    """
    make_home(home)
    champion_of(home, ask.name)
    taken = take_in_landing(ask, home)
    guard = lock(home, f"retrain-{ask.name}")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        running = open_trigger(home, ask.name)
        if running and not DataSet(home, ask.name).epochs(after=running["data"]["until"]):
            return _covered(ask, home, running, "one retraining of a model at a time")
        listener.note("another retraining runs, without the newest rows: waiting for it")
        guard.acquire()
    try:
        _tell_leftovers(home, ask.name)
        trigger = open_trigger(home, ask.name)
        if trigger and ask.abandon:
            save(home, {**trigger, "state": "abandoned", "why": "given up on request", "ended": time.time()})
            trigger = None
        if trigger and _asks_elsewhere(trigger, ask):
            return _covered(ask, home, trigger, "it waits for approval")
        if trigger is None:
            trigger = decide(ask, home)
            if trigger["state"] != "open":
                return {**record_idle(home, trigger), **taken.told()}
            save(home, trigger)
            reached(home, "retrain.trigger", name=ask.name)
        else:
            listener.note(f"going on with {trigger['id']} ({trigger['reason']}) as it was begun; --abandon gives it up")
        return {**_carry_out(trigger, home, ask.local, listener, run), **taken.told()}
    finally:
        guard.release()


def take_in_landing(ask: Ask, home: Path) -> TakenIn:
    """What arrived in the landing place, taken into the data set; told as `new-data`."""
    grow = ask.new_labels == "grow"
    if ask.landing and is_local(ask.landing) and not local_path(ask.landing).exists():
        raise UserError(f"the landing place {ask.landing} is not there", "Make the folder, or name another one")
    landing = ask.landing or str(home / "landing" / ask.name)
    data_set = DataSet(home, ask.name)
    taken = take_in(data_set, landing, schema_for(home, ask.name, grow=grow))
    if taken.rows:
        tell(home, "new-data", ask.name, version=data_set.version(), rows=taken.rows)
    return taken


def _covered(ask: Ask, home: Path, running: Trigger, why: str) -> Trigger:
    trigger = new_trigger(ask.name, ask.reason, covered_by=running["id"])
    trigger.update(state="covered", why=f"covered by {running['id']}: {why}")
    save(home, trigger)
    return trigger


def wait_for_approval(home: Path, ask: Ask) -> None:
    """Note that the retraining which `ask` has going waits for a person, so that nobody else asks for the same."""
    trigger = open_trigger(home, ask.name)
    if trigger:
        until = time.time() + trigger["options"]["approval_timeout_hours"] * HOUR
        save(home, {**trigger, "waits": {"flow_run": ask.flow_run, "until": until}})


def _asks_elsewhere(trigger: Trigger, ask: Ask) -> bool:
    waits = trigger.get("waits")
    return bool(waits) and waits["flow_run"] != ask.flow_run and time.time() < waits["until"]


def decide(ask: Ask, home: Path) -> Trigger:
    """A new trigger: open and with everything frozen, or with the reason why nothing is to be done."""
    champion = champion_of(home, ask.name)
    if ask.recipe:
        _whole_recipe(ask, home)  # a misspelt one is told also when there is nothing to do
    data_set, before = DataSet(home, ask.name), seen(champion)
    epochs = data_set.epochs(after=before)
    until = max((entry["number"] for entry in epochs), default=before)
    data = {
        "seen": before, "until": until, "rows": sum(entry["rows"] for entry in epochs),
        "epochs": [{key: entry[key] for key in ("number", "sha256", "rows", "file")} for entry in epochs],
    }  # fmt: skip
    trigger = new_trigger(
        ask.name, ask.reason, champion={"version": champion.version, "digest": champion.tags.get(DIGEST)}, data=data
    )
    if not epochs:
        why = f"version {champion.version} has learned from the newest data (version {before} of its data set)"
        return {**trigger, "state": "nothing-new", "why": why}
    if data["rows"] < ask.min_rows:
        why = f"{data['rows']:,} new rows, {ask.min_rows:,} are wanted"
        return {**trigger, "state": "too-few", "why": why}
    ended = max((one.get("ended", 0.0) for one in read_triggers(home, ask.name) if one["state"] in RAN), default=0.0)
    left = ended + ask.cooldown_hours * HOUR - time.time()
    if left > 0:
        return {**trigger, "state": "cooling-down", "why": f"the last one was {_hours(left, ask.cooldown_hours)}"}
    return _same_as_before(_frozen(trigger, ask, home), home)


def _hours(left: float, cooldown: float) -> str:
    return f"{max(0.0, cooldown - left / HOUR):.1f} h ago, the cool-down is {cooldown:g} h"


def _frozen(trigger: Trigger, ask: Ask, home: Path) -> Trigger:
    champion = champion_of(home, ask.name)
    modules = code_now()
    options = {key: asdict(ask)[key] for key in OPTIONS}
    return {
        **trigger, "options": options, "recipe": _whole_recipe(ask, home),
        "code": {"digest": code_digest(modules), "modules": modules},
        "labels": load_labels(Store(home).path(data_artifact(home, champion).key)),
    }  # fmt: skip


def _whole_recipe(ask: Ask, home: Path) -> dict[str, Any]:
    """The recipe that made the champion, or the one that was named; what it is called stays the model's name."""
    if ask.recipe:
        recipe, _ = load_recipe(ask.recipe, home=home)
        if recipe.registered_name != ask.name:
            fix = f"Name a recipe of {ask.name}, or add `model: {ask.name}` to it"
            raise UserError(f'{ask.recipe} makes the model "{recipe.registered_name}"', fix)
        return recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    champion = champion_of(home, ask.name)
    whole = stored_recipe(champion)
    if whole is None:
        raise UserError(
            f'"{ask.name}" version {champion.version} does not say which recipe made it',
            f"Name it: stillhouse retrain {ask.name} --recipe RECIPE",
        )
    return whole


def _same_as_before(trigger: Trigger, home: Path) -> Trigger:
    """An open trigger, unless one that is over froze the same: its outcome would be the same."""
    same = ("champion", "data", "options", "recipe")
    for one in reversed(read_triggers(home, trigger["name"])):
        if (
            one["state"] not in ("released", "challenger", "refused")
            or one["code"]["digest"] != trigger["code"]["digest"]
        ):
            continue
        if all(one[key] == trigger[key] for key in same):
            found = f"{one['state']}, version {one['version']}" if one.get("version") else one["state"]
            why = f"{one['id']} has tried exactly this: {found}"
            kept = {key: trigger[key] for key in trigger if key not in ("recipe", "code")}
            return {**kept, "state": "nothing-new", "why": why}
    return trigger


def _carry_out(trigger: Trigger, home: Path, local: bool, listener: Listener, run: Run) -> Trigger:
    """Run an open trigger to its outcome."""
    name = trigger["name"]
    now = code_now()
    if code_digest(now) != trigger["code"]["digest"]:
        changed = changed_modules(trigger["code"]["modules"], now)
        trigger.update(code_changed=changed)
        listener.note(f"the code changed since {trigger['id']} was frozen: {', '.join(changed[:5])}")
    asked = {key: trigger["options"][key] for key in ("promote", "approval", "approval_timeout_hours")}
    try:
        request = Request(str(write_recipe(trigger, home)), local=local, **asked)
        reached(home, "retrain.recipe", name=name)
        again = [line for line in causes(plan_request(request, home), Store(home)) if line.startswith("code ")]
        trigger.update(again=again)
        save(home, trigger)
        result = run(request)
    except WorkerError:
        raise
    except StillhouseError as error:
        save(home, {**trigger, "state": "failed", "why": str(error), "ended": time.time()})
        raise
    reached(home, "retrain.ran", name=name)
    trigger = {**trigger, **_outcome(trigger, result, home), "ended": time.time()}
    if trigger["state"] in TOLD:
        trigger["untold"] = str(uuid.uuid4())
    save(home, trigger)
    reached(home, "retrain.ended", name=name)
    return _tell(trigger, home)


def _tell(trigger: Trigger, home: Path) -> Trigger:
    """Tell what became of a trigger, under the id in `untold`; what is saved without it has been told."""
    identity = trigger.get("untold")
    if identity is None:
        return trigger
    told = {key: trigger.get(key) for key in ("version", "why", "quality")}
    reason = {"reason": trigger["why"]} if trigger.get("why") else {}
    tell(home, trigger["state"], trigger["name"], trigger=trigger["id"], alert_id=identity, **told, **reason)
    told_of = {key: value for key, value in trigger.items() if key != "untold"}
    save(home, told_of)
    return told_of


def _tell_leftovers(home: Path, name: str) -> None:
    """What a kill left untold between an outcome and its telling."""
    for trigger in read_triggers(home, name):
        _tell(trigger, home)


def _outcome(trigger: Trigger, result: Result, home: Path) -> dict[str, Any]:
    model = result.model or {}
    steps = {step["name"]: step["state"] for step in result.steps}
    found = {
        "flow_run": result.flow_run,
        "seconds": result.seconds,
        "steps": steps,
        "quality": quality_of(result, home),
    }
    if result.refusal:
        return {**found, "state": "refused", "why": result.refusal, "version": model.get("version")}
    if not model.get("version"):
        return {**found, "state": "refused", "why": "the recipe has no release step: nothing was registered"}
    state = "released" if model.get("alias") == "champion" else "challenger"
    return {**found, "state": state, "version": model["version"], "why": model.get("note", "")}
