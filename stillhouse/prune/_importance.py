"""How much each head and each feed-forward unit matters: diagonal Fisher information (Kwon et al., arXiv:2204.09656).

A gate of value 1 is put before the map that takes what heads or units say. The square of the loss's derivative by a
gate, a mean over texts, estimates what the loss would change if the gate went to 0.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from stillhouse.blocks import Blocks, layer_blocks
from stillhouse.train._batches import Batch
from stillhouse.train._tokens import IGNORED

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

Importance = list[tuple[torch.Tensor, torch.Tensor]]
"""For each layer: of its heads [heads], and of its units [units]."""


def fisher_importance(
    model: "PreTrainedModel", batches: Sequence[Batch], tell: Callable[[int, int], None]
) -> Importance:
    """The mean over the texts of the squared derivative of each text's loss by each gate."""
    layers = layer_blocks(model)
    found = [(torch.zeros(blocks.heads), torch.zeros(blocks.units)) for blocks in layers]
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    texts = 0
    for number, batch in enumerate(batches, start=1):
        gates, hooks = _attach(layers, len(batch.targets))
        try:
            logits = model(**batch.inputs).logits.float()
        finally:
            for hook in hooks:
                hook.remove()
        loss = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), batch.targets.reshape(-1), ignore_index=IGNORED, reduction="sum"
        )
        gradients = torch.autograd.grad(loss, gates)
        for layer, (heads, units) in enumerate(found):
            heads += gradients[2 * layer].square().sum(0).cpu()
            units += gradients[2 * layer + 1].square().sum(0).cpu()
        texts += len(batch.targets)
        tell(number, len(batches))
    return [(heads / texts, units / texts) for heads, units in found]


def _attach(layers: list[Blocks], texts: int) -> tuple[list[torch.Tensor], list[Any]]:
    """A gate for each text and head or unit: one backward pass gives the derivatives of each text's own loss."""
    gates: list[torch.Tensor] = []
    hooks: list[Any] = []
    for blocks in layers:
        device = blocks.joined.weight.device
        heads = torch.ones(texts, blocks.heads, device=device, requires_grad=True)
        units = torch.ones(texts, blocks.units, device=device, requires_grad=True)
        gates += [heads, units]
        hooks.append(blocks.joined.register_forward_pre_hook(_gate(heads, blocks.head_size)))
        hooks.append(blocks.down.register_forward_pre_hook(_gate(units, 1)))
    return gates, hooks


def _gate(gate: torch.Tensor, width: int) -> Callable[..., Any]:
    def hook(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0] * gate.repeat_interleave(width, dim=1)[:, None, :], *given[1:])

    return hook
