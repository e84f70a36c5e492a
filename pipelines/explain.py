"""Why a step is a miss: what changed since the last artifact that the same step made."""

from typing import Any

from pipelines.plan import Plan, PlannedStep
from stillhouse.store import Manifest, Store


def explain(plan: Plan, store: Store) -> dict[str, str]:
    """`{step: one line}` for every step of the plan."""
    misses = {step.key: step.name for step in plan.steps if not step.hit}
    previous = _previous(plan, store) if misses else {}
    reasons = {}
    for step in plan.steps:
        if step.hit:
            reasons[step.name] = "in the store"
        elif step.wrong:
            reasons[step.name] = step.wrong
        elif step.name not in previous:
            reasons[step.name] = "never run before"
        else:
            lines = _differences(step, previous[step.name], misses, plan)
            reasons[step.name] = "; ".join(lines) or "not in the store"
            other = previous[step.name].get("recipe")
            if lines and other != plan.recipe.name:
                reasons[step.name] = f"new here; against {other}: {reasons[step.name]}"
    return reasons


def causes(plan: Plan, store: Store) -> list[str]:
    """What made finished steps stale, a line for each reason: `code stillhouse.models changed: head, top`."""
    misses = {step.key: step.name for step in plan.steps if not step.hit}
    previous = _previous(plan, store) if misses else {}
    steps: dict[str, list[str]] = {}
    for step in plan.steps:
        if step.hit:
            continue
        reasons = [step.wrong] if step.wrong else []
        if not reasons and previous.get(step.name, {}).get("recipe") == plan.recipe.name:
            reasons = [line for line in _differences(step, previous[step.name], misses, plan) if line[:6] != "input "]
        for reason in reasons:
            steps.setdefault(reason, []).append(step.name)
    return [f"{reason}: {', '.join(names)}" for reason, names in steps.items()]


def _previous(plan: Plan, store: Store) -> dict[str, Manifest]:
    """The newest artifact of each step, one of the same recipe before any other."""
    found: dict[str, Manifest] = {}
    other: dict[str, Manifest] = {}
    for key in store.list_keys():
        manifest = store.manifest(key)
        if manifest:
            same = manifest.get("recipe") == plan.recipe.name
            (found if same else other).setdefault(manifest.get("step", ""), manifest)
    methods = {step.name: step.uses for step in plan.steps}
    return {name: m for name, m in {**other, **found}.items() if m["method"] == methods.get(name)}


def _differences(step: PlannedStep, manifest: Manifest, misses: dict[str, str], plan: Plan) -> list[str]:
    old, new = manifest["parts"], step.parts
    names = {s.key: s.name for s in plan.steps}
    lines = [
        *_changed("setting", old.get("settings", {}), new["settings"], values=True),
        *_changed("content of", old.get("external", {}), new["external"]),
        *_changed("code", old.get("code", {}), new["code"]),
        *_changed("library", old.get("libraries", {}), new["libraries"], values=True),
    ]
    if old.get("seed") != new["seed"]:
        lines.append(f"seed {old.get('seed')} → {new['seed']}")
    for slot in sorted({*old.get("inputs", {}), *new["inputs"]}):
        if old.get("inputs", {}).get(slot) != new["inputs"].get(slot):
            current = [names.get(key, "registry") for key in new["inputs"].get(slot, [])]
            again = [name for name in current if name in misses.values()]
            lines.append(f"input {slot} ({', '.join(again or current) or 'now empty'}) changes")
    if old.get("recipe") != new.get("recipe"):
        lines.append(f"the recipe's name {old.get('recipe')} → {new.get('recipe')}")
    if old.get("machine") != new.get("machine"):
        lines.append("another machine")
    if old.get("against") != new.get("against"):
        lines.append(f"champion {_version(old.get('against'))} → {_version(new.get('against'))}")
    return lines


def _changed(what: str, old: dict[str, Any], new: dict[str, Any], *, values: bool = False) -> list[str]:
    lines = []
    for key in sorted({*old, *new}):
        if key not in new:
            lines.append(f"{what} {key} is gone")
        elif key not in old:
            lines.append(f"{what} {key} is new")
        elif old[key] != new[key]:
            lines.append(f"{what} {key} {old[key]} → {new[key]}" if values else f"{what} {key} changed")
    return lines


def _version(against: dict[str, Any] | None) -> str:
    return f"version {against['version']}" if against else "none"
