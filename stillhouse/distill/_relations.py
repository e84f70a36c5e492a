"""The loss on relations between tokens."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from stillhouse.distill._features import Feature, attention_width
from stillhouse.distill._matching import Matching, Recorded, masked_mean
from stillhouse.distill.relations import Relations
from stillhouse.errors import UserError
from stillhouse.models import encoder_layers

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

_PARTS = {"queries": 0, "keys": 1, "values": 2}


def relation_matching(settings: Relations, student: "PreTrainedModel", teacher: "PreTrainedModel") -> Matching:
    """What to record in both, and the loss over it."""
    counts = [len(encoder_layers(model)[1]) for model in (student, teacher)]
    layer = settings.teacher_layer + counts[1] if settings.teacher_layer < 0 else settings.teacher_layer
    if not 0 <= layer < counts[1]:
        raise UserError(
            f"teacher_layer: {settings.teacher_layer} is not possible", f"the teacher has {counts[1]} layers"
        )
    for name, model, matched in (("student", student, counts[0] - 1), ("teacher", teacher, layer)):
        width = attention_width(model, matched)
        if width % settings.relation_heads:
            raise UserError(
                f"relation_heads: {settings.relation_heads} does not divide the {name}'s width {width}",
                "choose a divisor of the widths of both attentions (a pruned layer's is less)",
            )
    last, above = Feature("attention", counts[0] - 1), Feature("attention", layer)

    def loss(ours: Recorded, theirs: Recorded, mask: torch.Tensor) -> torch.Tensor:
        found, wanted = ours[last].float().chunk(3, dim=-1), theirs[above].chunk(3, dim=-1)
        losses = [
            relation_loss(found[part], wanted[part], mask, settings.relation_heads)
            for part in (_PARTS[name] for name in settings.relations)
        ]
        return settings.relation_weight * torch.stack(losses).mean()

    return Matching([last], [above], loss)


def relation_loss(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """KL divergence of the student's relations from the teacher's, a mean over heads and real tokens.

    Both are vectors [batch, length, width of its own]; a relation is softmax(V V^T / sqrt(d)) over the real tokens.
    """
    wanted = _log_relations(theirs, mask, heads)
    divergence = F.kl_div(_log_relations(ours, mask, heads), wanted, reduction="none", log_target=True)
    real = mask[:, None, None, :].to(divergence.dtype)
    return masked_mean((divergence * real).sum(-1).mean(1), mask)


def _log_relations(vectors: torch.Tensor, mask: torch.Tensor, heads: int) -> torch.Tensor:
    """[batch, heads, length, length]; a large negative score instead of -inf keeps padded rows finite."""
    parts = vectors.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
    return F.log_softmax(scores.masked_fill(mask[:, None, None, :] == 0, -1e4), dim=-1)
