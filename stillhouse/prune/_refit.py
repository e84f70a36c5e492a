"""After pruning, each block's last map is fitted anew so that the block says what it said before: least squares.

Blocks are refitted from below, each on what the already pruned layers under it now give (Kwon et al., arXiv:2204.09656,
refit scales; here the whole map, by the normal equations).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from stillhouse.blocks import layer_blocks
from stillhouse.train._batches import Batch

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

RIDGE = 1e-4
"""Of the mean of the diagonal: keeps the equations solvable where units say the same."""


def refit(
    model: "PreTrainedModel", whole: "PreTrainedModel", batches: Sequence[Batch], tell: Callable[[int, int], None]
) -> None:
    """Fit the last maps of all blocks of the pruned `model`, in place, to what those of `whole` say on `batches`."""
    pairs = [
        pair
        for ours, theirs in zip(layer_blocks(model), layer_blocks(whole), strict=True)
        for pair in ((ours.joined, theirs.joined), (ours.down, theirs.down))
        if pair[0].in_features < pair[1].in_features
    ]
    for number, (ours, theirs) in enumerate(pairs, start=1):
        _fit(ours, *_moments(model, whole, ours, theirs, batches))
        tell(number, len(pairs))


def _moments(
    model: nn.Module, whole: nn.Module, ours: nn.Linear, theirs: nn.Linear, batches: Sequence[Batch]
) -> tuple[torch.Tensor, torch.Tensor]:
    """X^T X and X^T Y: X what enters `ours` (with a 1 for the bias), Y what leaves `theirs`, over all real tokens."""
    size = ours.in_features + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, ours.out_features, dtype=torch.float64)
    with torch.inference_mode():
        for batch in batches:
            entering = _catch(model, ours, batch, before=True)
            leaving = _catch(whole, theirs, batch, before=False)
            real = batch.inputs["attention_mask"].bool()
            x = entering[real]
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
            gram += (x.T @ x).double().cpu()
            cross += (x.T @ leaving[real]).double().cpu()
    return gram, cross


class _Enough(Exception):
    """What was wanted is there; the layers above need not run."""


def _catch(model: nn.Module, module: nn.Module, batch: Batch, *, before: bool) -> torch.Tensor:
    caught: list[torch.Tensor] = []

    def hook(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        caught.append((given[0] if before else output).float())
        raise _Enough

    handle = module.register_forward_hook(hook)
    try:
        model(**batch.inputs)
    except _Enough:
        pass
    finally:
        handle.remove()
    return caught[0]


def _fit(linear: nn.Linear, gram: torch.Tensor, cross: torch.Tensor) -> None:
    """Ridge regression of what is missing: where the texts say nothing, the map stays as it is."""
    with torch.no_grad():
        before = torch.cat([linear.weight.T, linear.bias[None]]).double().cpu()
        ridge = RIDGE * gram.diagonal().mean()
        missing = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=torch.float64), cross - gram @ before)
        fitted = (before + missing).float()
        linear.weight.copy_(fitted[:-1].T)
        linear.bias.copy_(fitted[-1])
