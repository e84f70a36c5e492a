"""One tree of a recipe over another: `extends`, and the `retrain:` section over `steps`."""

from typing import Any

REGISTRY = "registry:"


def merge(base: Any, over: Any) -> Any:
    """Deep merge: dicts merge, `null` removes, everything else replaces."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def merge_patches(base: Any, over: Any) -> Any:
    """The same of two patches: a `null` stays, since it says what is to be removed later."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: merge_patches(base.get(key), value) for key, value in over.items()}}


def patched(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with its `retrain` section merged over its steps, and without that section."""
    rest = {key: value for key, value in tree.items() if key != "retrain"}
    return {**rest, "steps": merge(tree["steps"], tree.get("retrain") or {})}


def map_inputs(steps: dict[str, Any], change: Any) -> dict[str, Any]:
    """`steps` (or a patch) with every input reference replaced by `change(slot, reference)`."""
    changed = {}
    for name, step in steps.items():
        inputs = step.get("inputs") if isinstance(step, dict) else None
        if not isinstance(inputs, dict):
            changed[name] = step
            continue
        mapped = {
            slot: [change(slot, ref) for ref in refs] if isinstance(refs, list) else refs and change(slot, refs)
            for slot, refs in inputs.items()
        }
        changed[name] = {**step, "inputs": mapped}
    return changed


def own_name(name: str) -> Any:
    """For `map_inputs`: `registry:@champion/STEP` becomes `registry:NAME@champion/STEP`."""
    own = f"{REGISTRY}@"
    return lambda slot, ref: f"{REGISTRY}{name}@{ref[len(own) :]}" if ref.startswith(own) else ref
