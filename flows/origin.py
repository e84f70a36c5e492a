"""What a registered version says of where it comes from: the whole recipe, and how much of the data set it has seen."""

import json
from pathlib import Path
from typing import Any

from flows.triggers import directory, trigger_of
from pipelines.plan import Plan
from stillhouse.methods import load_method
from tasks.versions import DATA_VERSION, WHOLE_RECIPE

LONGEST = 90_000
"""Characters; MLflow refuses tags over 100,000."""


def version_tags(plan: Plan, home: Path) -> dict[str, str]:
    """Tags for the version that `plan` makes. After a retraining it is the recipe it began with that counts."""
    trigger = trigger_of(plan.path) if directory(home, "").resolve() in plan.path.resolve().parents else None
    whole = trigger["recipe"] if trigger else whole_recipe(plan)
    text = json.dumps(whole, ensure_ascii=False, sort_keys=False)
    tags = {WHOLE_RECIPE: text} if len(text) <= LONGEST else {}
    return {**tags, **({DATA_VERSION: str(trigger["data"]["until"])} if trigger else {})}


def whole_recipe(plan: Plan) -> dict[str, Any]:
    """The recipe after `extends` and `--set`, names on the Hub with the commit that was used."""
    tree = plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for step in tree["steps"].values():
        for key in load_method(step["uses"]).external:
            name = step.get("with", {}).get(key)
            if name in plan.pinned:
                step["with"][key] = f"{name.partition('@')[0]}@{plan.pinned[name]}"
    return tree
