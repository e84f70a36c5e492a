"""Loss functions of plain training, and the pure formulas behind them."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stillhouse.errors import UserError, nearest
from stillhouse.train._batches import Batch
from stillhouse.train._tokens import IGNORED
from stillhouse.train.settings import TrainingSettings

LossFunction = Callable[[nn.Module, Batch, torch.Tensor], torch.Tensor]
"""`loss(model, micro_batch, targets)`: what the micro-batch adds to the loss of an optimizer step over `targets`.

The parts of a step add up to its loss, so that splitting a batch changes nothing but rounding.
"""


def cross_entropy_share(
    logits: torch.Tensor,
    targets: torch.Tensor,
    step_targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of `logits` [..., labels] against `targets` [...], divided by the weight of `step_targets`.

    With `step_targets` = `targets` this is `torch.nn.functional.cross_entropy`.
    """
    flat = logits.reshape(-1, logits.shape[-1]).float()
    total = F.cross_entropy(
        flat, targets.reshape(-1), weight=weights, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
    )
    return total / total_weight(step_targets, weights)


def total_weight(targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Sum of the label weights of `targets`; at least a trifle, so that a batch without targets has loss 0."""
    valid = targets[targets != IGNORED]
    total = torch.tensor(float(len(valid)), device=targets.device) if weights is None else weights[valid].sum()
    return total.clamp_min(1e-9)


def label_weights(settings: TrainingSettings, labels: list[str], targets: np.ndarray) -> torch.Tensor | None:
    """The weight of each label, [labels], or None when all weigh 1. `balanced` is scikit-learn's n / (k * count)."""
    chosen = settings.class_weights
    if chosen is None:
        return None
    if chosen == "balanced":
        counts = np.bincount(targets[targets != IGNORED], minlength=len(labels))
        balanced = counts.sum() / (len(labels) * np.maximum(counts, 1))
        return torch.tensor(np.where(counts > 0, balanced, 1.0), dtype=torch.float32)
    for name in chosen:
        if name not in labels:
            raise UserError(f'class_weights: "{name}" is not a label of the data', nearest(name, set(labels)))
    return torch.tensor([chosen.get(name, 1.0) for name in labels], dtype=torch.float32)


def hard_loss(weights: torch.Tensor | None, smoothing: float) -> LossFunction:
    """The loss against the data's own labels."""

    def loss(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        logits = model(**batch.inputs).logits
        own = None if weights is None else weights.to(logits.device)
        return cross_entropy_share(logits, batch.targets, targets, own, smoothing)

    return loss
