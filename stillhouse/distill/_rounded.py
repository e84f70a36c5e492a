"""Weights rounded as `quantize.int8` will round them, while they are trained (quantization-aware training)."""

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

LARGEST = {7: 64, 8: 127}
"""The largest integer of a signed weight, by bits, as ONNX Runtime's quantizer has it."""


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """`weight` [outputs, inputs] on a grid of its own for each output, symmetric around 0; the gradient passes through
    as if nothing had been rounded (straight-through estimator, Bengio et al., arXiv:1308.3432)."""
    step = weight.detach().abs().amax(dim=1, keepdim=True) / LARGEST[bits]
    step = torch.where(step > 0, step, torch.ones_like(step))
    return weight + (torch.round(weight / step) * step - weight).detach()


def round_weights(model: "PreTrainedModel", bits: int) -> None:
    """From now on the linear maps of the model compute with rounded weights; what is trained and saved is not rounded.

    The last one, which makes the logits, stays as it is: `quantize.int8` leaves it in 32 bits.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in linear[:-1]:
        module.forward = partial(_forward, module, bits)


def _forward(linear: nn.Linear, bits: int, input: torch.Tensor) -> torch.Tensor:
    return F.linear(input, rounded(linear.weight, bits), linear.bias)
