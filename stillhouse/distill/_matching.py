"""What a loss on the inside of two models needs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from stillhouse.distill._features import Feature

Recorded = dict[Feature, torch.Tensor]


@dataclass(frozen=True)
class Matching:
    """A loss on recorded features of student and teacher."""

    ours: list[Feature]
    """Recorded in the student."""
    theirs: list[Feature]
    """Recorded in the teacher, once for each text."""
    loss: Callable[[Recorded, Recorded, torch.Tensor], torch.Tensor]
    """`loss(ours, theirs, mask)`: a mean over the real tokens of a batch; `mask` is [batch, length]."""
    extra: nn.Module | None = None
    """Trained with the student and not published."""


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` where `mask` (of the same shape) is not 0."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)
