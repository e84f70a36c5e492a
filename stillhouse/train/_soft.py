"""The loss against teachers' probabilities: the pure formulas, and the loss function of a training with teachers."""

from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stillhouse.train._batches import Batch, pad_pieces
from stillhouse.train._loss import LossFunction, cross_entropy_share
from stillhouse.train._teachers import Taught
from stillhouse.train._tokens import IGNORED, UNLABELLED, TokenizedData


class SoftSettings(Protocol):
    """What a method with teachers sets."""

    @property
    def alpha(self) -> float: ...

    @property
    def temperature(self) -> float: ...

    @property
    def label_smoothing_factor(self) -> float: ...


def soft_targets(teachers: list[torch.Tensor], temperature: float, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the teachers of their probabilities at `temperature`; each tensor is [rows, labels].

    `weights`: of the teachers [teachers] or of each row [teachers, rows]; only their proportions matter.
    """
    each = torch.stack([torch.softmax(logits.float() / temperature, dim=-1) for logits in teachers])
    if weights is None:
        return each.mean(dim=0)
    shares = weights.to(each.device, each.dtype)
    shares = (shares / shares.sum(dim=0)).reshape(len(teachers), -1, 1)
    return (each * shares).sum(dim=0)


def confidences(teachers: list[torch.Tensor]) -> torch.Tensor:
    """Probability of each teacher's own answer for each row, [teachers, rows]."""
    return torch.stack([torch.softmax(logits.float(), dim=-1).amax(dim=-1) for logits in teachers])


def soft_loss(student: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Sum over the rows of KL(targets || student at `temperature`) * temperature^2; both are [rows, labels].

    The factor keeps the gradient's size independent of the temperature (arXiv:1503.02531, section 2.1).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(log_student, targets, reduction="sum") * temperature**2


def soft_and_hard_loss(
    settings: SoftSettings,
    data: TokenizedData,
    taught: Taught,
    weights: torch.Tensor | None,
    shares: torch.Tensor | Literal["confidence"] | None = None,
) -> LossFunction:
    """alpha * soft loss + (1 - alpha) * cross-entropy, each a mean over what the optimizer step decides.

    What is `UNLABELLED` counts in the first alone. A label that the teachers do not know counts in the second alone:
    the soft loss compares the probabilities among those that they know (Li and Hoiem, arXiv:1606.09282).
    """
    known = torch.tensor(taught.columns)

    def loss(model: nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
        logits = model(**batch.inputs).logits
        decided = batch.targets != IGNORED
        each = [_of_batch(rows, data, batch)[decided] for rows in taught.logits]
        wanted = confidences(each) if isinstance(shares, str) else shares
        soft = soft_targets(each, settings.temperature, wanted)
        count = (targets != IGNORED).sum().clamp_min(1)
        ours = logits[decided][:, known.to(logits.device)]
        against_teachers = soft_loss(ours, soft, settings.temperature) / count
        own = None if weights is None else weights.to(logits.device)
        against_labels = cross_entropy_share(
            logits, _labelled(batch.targets), _labelled(targets), own, settings.label_smoothing_factor
        )
        return settings.alpha * against_teachers + (1 - settings.alpha) * against_labels

    return loss


def _labelled(targets: torch.Tensor) -> torch.Tensor:
    return torch.where(targets == UNLABELLED, IGNORED, targets)


def _of_batch(logits: np.ndarray, data: TokenizedData, batch: Batch) -> torch.Tensor:
    """The rows of a batch out of a teacher's logits."""
    if data.train.words is None:
        return torch.from_numpy(np.array(logits[batch.pieces], np.float32)).to(batch.targets.device)
    return of_tokens(logits, data, batch)


def of_tokens(values: np.ndarray, data: TokenizedData, batch: Batch) -> torch.Tensor:
    """float32 [pieces, width, ...] out of values of all tokens."""
    rows = pad_pieces(values, data.train.offsets, batch.pieces, 0.0)
    return torch.from_numpy(rows).float().to(batch.targets.device)
