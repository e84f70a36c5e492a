"""Do the labels of a model and of the data agree, and a head that grows where the data has more."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stillhouse.errors import UserError

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def check_same_task(info: dict[str, Any], name: str, problem: str, labels: list[str], grow: bool) -> None:
    """A model can be trained on, or teach, only the task it was made for; `grow`: it may lack labels of the data."""
    if info["problem"] != problem:
        raise UserError(f"{name} does {info['problem']} but the data is {problem}", "use data and model of one task")
    if info["labels"] == labels:
        return
    gone = sorted(set(info["labels"]) - set(labels))
    new = sorted(set(labels) - set(info["labels"]))
    if new and not gone and not grow:
        raise UserError(
            f"{name} does not know the label{'s' if len(new) > 1 else ''} {', '.join(new[:5])} of the data",
            "set grow_head: true, or use data with the model's labels",
        )
    if gone or not grow:
        odd = sorted([*gone, *new]) or labels
        raise UserError(
            f"{name} has other labels than the data ({', '.join(odd[:5])})",
            "use data with its labels (prepare.* with the older data as `previous` keeps them), or a new base",
        )


def places(names: list[str], among: list[str]) -> list[int]:
    """The position in `among` of each of `names`."""
    position = {name: at for at, name in enumerate(among)}
    return [position[name] for name in names]


def fit_head(model: "PreTrainedModel", info: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """`info` with the data's labels, and the model's head with a row for each of them, in their order.

    The rows of known labels stay as they are, and so do their logits. A new label begins with the mean of the known
    rows: its logit is the mean of the others, so that no decision changes before it is trained.
    """
    known = info["labels"]
    if known == labels:
        return info
    name, old = _classifier(model, len(known))
    new = nn.Linear(old.in_features, len(labels), bias=old.bias is not None)
    with torch.no_grad():
        for ours, theirs in zip(new.parameters(), old.parameters(), strict=True):
            ours.copy_(theirs.mean(dim=0, keepdim=True).expand_as(ours))
            ours[places(known, labels)] = theirs
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: at for at, label in enumerate(labels)}
    setattr(model, "num_labels", len(labels))  # noqa: B010  a plain number, whatever modules may hold
    return {**info, "labels": labels}


def _classifier(model: "PreTrainedModel", labels: int) -> tuple[str, nn.Linear]:
    """Name and module of the map that makes the logits: the last one outside of the encoder."""
    outside = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(f"{model.base_model_prefix}.")
    ]
    if not outside or outside[-1][1].out_features != labels:
        kind = model.config.model_type
        raise UserError(f'grow_head: the classifier of a "{kind}" model was not found', "begin from a new base")
    return outside[-1]
