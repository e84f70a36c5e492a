"""The loss on probabilities: the pure formulas."""

import torch
import torch.nn.functional as F


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
