"""What goes on inside an encoder's layers, recorded while it runs: hidden states, and queries, keys and values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import encoder_layers

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

_PROJECTIONS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"), ("q_proj", "k_proj", "v_proj"))
"""Names of the three projections in one attention: BERT and its kin, DistilBERT, MPNet, others."""
Kind = Literal["hidden", "attention"]


@dataclass(frozen=True, order=True)
class Feature:
    """One thing to record, for every token."""

    kind: Kind
    """`hidden`: the layer's output [width]; `attention`: its queries, keys and values, one after the other."""
    layer: int
    """From 0, the lowest."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.layer}"


def projections(layer: nn.Module) -> list[nn.Module]:
    """The modules that make queries, keys and values in an encoder layer."""
    modules = dict(layer.named_modules())
    for names in _PROJECTIONS:
        found = [[module for path, module in modules.items() if path.split(".")[-1] == name] for name in names]
        if all(len(modules_of_name) == 1 for modules_of_name in found):
            return [modules_of_name[0] for modules_of_name in found]
    raise UserError(
        f"the attention of {type(layer).__name__} has no separate queries, keys and values",
        "match hidden states only (attention_weight: 0), or use distill.logits",
    )


def attention_heads(model: "PreTrainedModel", layer: int) -> int:
    """Of one layer: a pruned model's layers have their own numbers, whatever its config says."""
    head_size = int(model.config.hidden_size) // int(model.config.num_attention_heads)
    return attention_width(model, layer) // head_size


def attention_width(model: "PreTrainedModel", layer: int) -> int:
    """Of the queries of one layer."""
    queries: Any = projections(encoder_layers(model)[1][layer])[0]
    return int(queries.out_features)


class Recorder:
    """Records `features` in each pass of `model`; `take()` gives them, [batch, length, ...], and forgets them."""

    def __init__(self, model: "PreTrainedModel", features: list[Feature], training_only: bool = False) -> None:
        self._found: dict[str, torch.Tensor] = {}
        self._features = features
        self._training_only = training_only
        self._hooks: list[Any] = []
        layers = encoder_layers(model)[1]
        for feature in features:
            if feature.kind == "hidden":
                self._watch(layers[feature.layer], feature.name)
            else:
                for part, module in zip("qkv", projections(layers[feature.layer]), strict=True):
                    self._watch(module, f"{feature.name}-{part}")

    def _watch(self, module: nn.Module, name: str) -> None:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            # Not `module.training`: what is frozen is in eval mode, and evaluations run without gradients.
            if torch.is_grad_enabled() or not self._training_only:
                self._found[name] = output if torch.is_tensor(output) else output[0]

        self._hooks.append(module.register_forward_hook(keep))

    def take(self) -> dict[Feature, torch.Tensor]:
        found, self._found = self._found, {}
        return {
            feature: found[feature.name]
            if feature.kind == "hidden"
            else torch.cat([found[f"{feature.name}-{part}"] for part in "qkv"], dim=-1)
            for feature in self._features
        }

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


@contextmanager
def recording(model: "PreTrainedModel", features: list[Feature]) -> Iterator[Recorder]:
    """A recorder that is gone after the block."""
    recorder = Recorder(model, features)
    try:
        yield recorder
    finally:
        recorder.close()
