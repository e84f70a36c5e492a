"""The recipe that a trigger's run runs: the frozen one, on the frozen rows, from the frozen champion."""

import json
from pathlib import Path

from flows.triggers import Trigger, recipe_file
from pipelines.retraining import Fresh, retrain_tree
from stillhouse.dataset.data_set import DataSet
from stillhouse.dataset.unlabelled import write_unlabelled
from stillhouse.errors import UserError
from stillhouse.files import write_text


def write_recipe(trigger: Trigger, home: Path) -> Path:
    """`recipes/ID.yaml` of a trigger: its frozen recipe on its frozen rows. JSON is YAML."""
    name, data_set = trigger["name"], DataSet(home, trigger["name"])
    data, options = trigger["data"], trigger["options"]
    entries = data_set.epochs(after=data["seen"], until=data["until"])
    there = [{key: entry[key] for key in ("number", "sha256", "rows", "file")} for entry in entries]
    if there != data["epochs"]:
        raise UserError(f"the data set of {name} is not what {trigger['id']} froze", f"Look at {data_set.root}")
    labels = {label for entry in entries for label in entry["labels"]}
    fresh = Fresh(
        name, trigger["champion"]["version"], data_set.joined(entries), options["from_scratch"],
        bool(labels - set(trigger["labels"])),
        write_unlabelled(data_set, data["until"], trigger["labels"]) if options["unlabelled"] == "extra" else None,
    )  # fmt: skip
    path = recipe_file(home, name, trigger["id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(retrain_tree(trigger["recipe"], fresh), indent=2, ensure_ascii=False) + "\n")
    return path
