"""Which heads and units stay, under a budget of multiplications."""

from dataclasses import dataclass

import torch

from stillhouse.prune._importance import Importance

Kept = list[tuple[torch.Tensor, torch.Tensor]]
"""For each layer: indices of the heads and of the units that stay."""


@dataclass(frozen=True)
class Costs:
    """Multiplications for one token."""

    head: float
    unit: float


def costs(width: int, head_size: int, length: float) -> Costs:
    """Of a head (its four maps; scores and their use over `length` tokens) and of a feed-forward unit."""
    return Costs(head=4 * width * head_size + 2 * length * head_size, unit=2 * width)


def choose(
    importance: Importance, each: Costs, keep: float, multiple: int, prune_heads: bool = True, prune_units: bool = True
) -> Kept:
    """The heads and units that stay when the share `keep` of all multiplications may stay.

    Units go in groups of `multiple`, the least important of a layer first; a layer keeps at least one head and one
    group. What goes first is what matters least for the multiplications it costs.
    """
    groups = [_groups(units, multiple) for _, units in importance]
    total = sum(each.head * len(heads) + each.unit * len(units) for heads, units in importance)
    items: list[tuple[float, float, int, str, int]] = []
    for layer, (heads, units) in enumerate(importance):
        order = heads.argsort()[:-1].tolist()
        if prune_heads:
            items += [(float(heads[head]) / each.head, each.head, layer, "head", head) for head in order]
        for number, group in enumerate(groups[layer][:-1] if prune_units else []):
            cost = each.unit * len(group)
            items.append((float(units[group].sum()) / cost, cost, layer, "group", number))
    gone: set[tuple[int, str, int]] = set()
    left = total
    for _, cost, layer, kind, number in sorted(items):
        if left <= keep * total:
            break
        gone.add((layer, kind, number))
        left -= cost
    kept: Kept = []
    for layer, (heads, _) in enumerate(importance):
        staying = [head for head in range(len(heads)) if (layer, "head", head) not in gone]
        units = [group for number, group in enumerate(groups[layer]) if (layer, "group", number) not in gone]
        kept.append((torch.tensor(staying), torch.cat(units).sort().values))
    return kept


def _groups(units: torch.Tensor, multiple: int) -> list[torch.Tensor]:
    """Indices in groups of `multiple`, the least important first; a smaller rest goes with the most important."""
    order = units.argsort()
    count = max(1, len(order) // multiple)
    cut = [multiple * number for number in range(1, count)]
    return list(torch.tensor_split(order, cut))
