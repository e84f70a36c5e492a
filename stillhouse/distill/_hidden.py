"""The loss on hidden states and attention scores of mapped layers."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from stillhouse.distill._features import Feature, Kind, attention_heads
from stillhouse.distill._matching import Matching, Recorded, masked_mean
from stillhouse.distill.hidden import Hidden
from stillhouse.errors import UserError
from stillhouse.models import encoder_layers

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def even_map(student: int, teacher: int) -> dict[int, int]:
    """Layer m of M follows the teacher's layer at the end of the m-th of M equal parts: 3 against 6 is 1, 3, 5."""
    return {layer: max(1, round((layer + 1) * teacher / student)) - 1 for layer in range(student)}


def hidden_matching(settings: Hidden, student: "PreTrainedModel", teacher: "PreTrainedModel") -> Matching:
    """What to record in both, and the loss over it."""
    counts = [len(encoder_layers(model)[1]) for model in (student, teacher)]
    layers = settings.layer_map or even_map(*counts)
    for ours, theirs in layers.items():
        if not (0 <= ours < counts[0] and 0 <= theirs < counts[1]):
            raise UserError(
                f"layer_map: {ours}: {theirs} is not possible",
                f"the student has layers 0 to {counts[0] - 1}, the teacher 0 to {counts[1] - 1}",
            )
    heads = _heads(student, teacher, layers) if settings.attention_weight else {}
    kinds: list[Kind] = []
    if settings.hidden_weight:
        kinds.append("hidden")
    if settings.attention_weight:
        kinds.append("attention")
    widths = [int(model.config.hidden_size) for model in (student, teacher)]
    projection = None
    if settings.hidden_weight and widths[0] != widths[1]:
        projection = nn.Linear(widths[0], widths[1], bias=False)
        nn.init.orthogonal_(projection.weight, generator=torch.Generator().manual_seed(0))

    def loss(ours: Recorded, theirs: Recorded, mask: torch.Tensor) -> torch.Tensor:
        total = mask.new_zeros((), dtype=torch.float32)
        for below, above in layers.items():
            if settings.hidden_weight:
                found, wanted = ours[Feature("hidden", below)], theirs[Feature("hidden", above)]
                total = total + settings.hidden_weight * hidden_loss(
                    projection(found) if projection else found, wanted, mask
                )
            if settings.attention_weight:
                found, wanted = ours[Feature("attention", below)], theirs[Feature("attention", above)]
                total = total + settings.attention_weight * attention_loss(found, wanted, mask, heads[below])
        return total

    return Matching(
        ours=[Feature(kind, layer) for layer in layers for kind in kinds],
        theirs=sorted({Feature(kind, layer) for layer in layers.values() for kind in kinds}),
        loss=loss,
        extra=projection,
    )


def _heads(student: "PreTrainedModel", teacher: "PreTrainedModel", layers: dict[int, int]) -> dict[int, int]:
    """Attention heads of each mapped layer of the student: as many as its teacher's."""
    found: dict[int, int] = {}
    for ours, theirs in layers.items():
        heads, wanted = attention_heads(student, ours), attention_heads(teacher, theirs)
        if heads != wanted:
            raise UserError(
                f"layer {ours} of the student has {heads} attention heads, layer {theirs} of the teacher {wanted}",
                "set attention_weight to 0, or use distill.relations",
            )
        found[ours] = heads
    return found


def hidden_loss(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over real tokens; both [batch, length, width], mask [batch, length]."""
    return masked_mean((ours.float() - theirs).square().mean(-1), mask)


def attention_loss(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """Mean squared difference of the attention scores over heads and pairs of real tokens; both are queries, keys and
    values [batch, length, 3 * width]."""
    pairs = mask[:, :, None] * mask[:, None, :]
    difference = (_scores(ours.float(), heads) - _scores(theirs, heads)).square().mean(1)
    return masked_mean(difference, pairs)


def _scores(attention: torch.Tensor, heads: int) -> torch.Tensor:
    """Scaled products of queries and keys, [batch, heads, length, length]."""
    queries, keys, _ = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in attention.chunk(3, dim=-1))
    return queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
