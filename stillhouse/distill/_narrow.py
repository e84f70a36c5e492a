"""A student of the teacher's kind with other sizes: weights at random, or cut out of the teacher's."""

from typing import TYPE_CHECKING

import torch

from stillhouse.blocks import layer_blocks
from stillhouse.errors import UserError
from stillhouse.models import encoder_layers

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def cut_weights(student: "PreTrainedModel", teacher: "PreTrainedModel", layers: list[int]) -> None:
    """Fill `student` with the beginnings of the teacher's weights: first dimensions, first heads, first units.

    Layer m of the student begins as the teacher's layer `layers[m]`. Heads stay whole, or keep their first dimensions.
    """
    name = encoder_layers(student)[0]
    given, cut = teacher.state_dict(), dict[str, torch.Tensor]()
    for key, value in student.state_dict().items():
        source = key
        if key.startswith(f"{name}."):
            place, _, rest = key.removeprefix(f"{name}.").partition(".")
            source = f"{name}.{layers[int(place)]}.{rest}"
        cut[key] = _beginning(given[source], value.shape, key)
    student.load_state_dict(cut)
    above = layer_blocks(teacher)
    for small, large in zip(layer_blocks(student), (above[layer] for layer in layers), strict=True):
        if small.head_size > large.head_size or small.heads > large.heads:
            raise UserError(
                f"student_config: {small.heads} heads of {small.head_size} cannot be cut out of {large.heads} of "
                f"{large.head_size}",
                "choose fewer or narrower heads, or student_weights: random",
            )
        rows = _rows(small.heads, small.head_size, large.head_size)
        with torch.no_grad():
            for ours, theirs in zip(small.inputs, large.inputs, strict=True):
                ours.weight.copy_(theirs.weight[rows, : ours.in_features])
                ours.bias.copy_(theirs.bias[rows])
            small.joined.weight.copy_(large.joined.weight[: small.joined.out_features, rows])


def _rows(heads: int, size: int, of: int) -> torch.Tensor:
    """Places of the first `size` dimensions of the first `heads` heads, among heads of `of` dimensions."""
    return (torch.arange(heads)[:, None] * of + torch.arange(size)).reshape(-1)


def _beginning(weight: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    if any(wanted > there for wanted, there in zip(shape, weight.shape, strict=True)):
        raise UserError(
            f"student_config: {name} would be {list(shape)}, the teacher has {list(weight.shape)}",
            "choose sizes no larger than the teacher's, or student_weights: random",
        )
    return weight[tuple(slice(wanted) for wanted in shape)].clone()
