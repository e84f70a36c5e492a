"""The two blocks of an encoder layer, attention and feed-forward, found by name; made narrower, and built narrow again.

A pruned model's layers differ in their numbers of heads and units. Its config says so in `pruned_layers`, one
`{"heads": h, "units": u}` for each layer, and `models.load_model` builds such a model before it reads the weights.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse.errors import UserError
from stillhouse.models import encoder_layers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers.modeling_utils import PreTrainedModel

_NAMES = (
    # BERT, RoBERTa, ELECTRA and their kin
    ("attention.self", "query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    # DistilBERT
    ("attention", "q_lin", "k_lin", "v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
)
_HEAD_COUNTS = ("num_attention_heads", "n_heads")
_WIDTHS = ("all_head_size", "dim")


@dataclass(frozen=True)
class Blocks:
    """The linear maps of one encoder layer."""

    attention: "nn.Module"
    """Owner of queries, keys and values."""
    inputs: "list[nn.Linear]"
    """Queries, keys, values: rows are heads times head size."""
    joined: "nn.Linear"
    """Takes what the heads say: columns are heads times head size."""
    up: "nn.Linear"
    """Rows are feed-forward units."""
    down: "nn.Linear"
    """Columns are feed-forward units."""
    head_size: int

    @property
    def heads(self) -> int:
        return self.joined.in_features // self.head_size

    @property
    def units(self) -> int:
        return self.down.in_features


def layer_blocks(model: "PreTrainedModel") -> list[Blocks]:
    """The blocks of every encoder layer, the lowest first."""
    head_size = int(model.config.hidden_size) // int(model.config.num_attention_heads)
    return [_find(layer, head_size) for layer in encoder_layers(model)[1]]


def _find(layer: Any, head_size: int) -> Blocks:
    modules = dict(layer.named_modules())
    for owner, *projections, joined, up, down in _NAMES:
        names = [*(f"{owner}.{name}" for name in projections), joined, up, down]
        if owner in modules and all(name in modules for name in names):
            found: list[Any] = [modules[name] for name in names]
            return Blocks(modules[owner], found[:3], found[3], found[4], found[5], head_size)
    raise UserError(
        f"the layers of {type(layer).__name__} are not of a known form",
        "pruning knows BERT, RoBERTa, ELECTRA, DistilBERT",
    )


def narrow(blocks: Blocks, heads: "torch.Tensor", units: "torch.Tensor") -> None:
    """Keep only these `heads` and `units` (increasing indices) in one layer, in place."""
    import torch

    width = torch.arange(blocks.head_size, device=heads.device)
    columns = (heads[:, None] * blocks.head_size + width).reshape(-1)
    for linear in blocks.inputs:
        _keep_rows(linear, columns)
    _keep_columns(blocks.joined, columns)
    _keep_rows(blocks.up, units)
    _keep_columns(blocks.down, units)
    _set_heads(blocks, len(heads))


def build_narrow(model: "PreTrainedModel", layers: list[dict[str, int]]) -> None:
    """Give the layers of a freshly built `model` these numbers of heads and units; their weights mean nothing yet."""
    import torch

    for blocks, shape in zip(layer_blocks(model), layers, strict=True):
        narrow(blocks, torch.arange(shape["heads"]), torch.arange(shape["units"]))


def describe_layers(model: "PreTrainedModel") -> list[dict[str, int]]:
    """What `build_narrow` needs to build a model of the same form."""
    return [{"heads": blocks.heads, "units": blocks.units} for blocks in layer_blocks(model)]


def _set_heads(blocks: Blocks, heads: int) -> None:
    for name in _HEAD_COUNTS:
        if hasattr(blocks.attention, name):
            setattr(blocks.attention, name, heads)
    for name in _WIDTHS:
        if hasattr(blocks.attention, name):
            setattr(blocks.attention, name, heads * blocks.head_size)


def _keep_rows(linear: "nn.Linear", rows: "torch.Tensor") -> None:
    from torch import nn

    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features = len(rows)


def _keep_columns(linear: "nn.Linear", columns: "torch.Tensor") -> None:
    from torch import nn

    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone())
    linear.in_features = len(columns)
