"""What is trained, at which rate and in which mode: derived from the settings each time, never stored."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import encoder_layers, in_head
from stillhouse.train.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def parameter_depths(model: "PreTrainedModel") -> dict[str, int]:
    """Depth of every parameter: 0 embeddings, 1 to L the encoder layers from below, L + 1 the head and the pooler."""
    layers_name, layers = encoder_layers(model)
    top = len(layers) + 1
    depths: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if name.startswith(f"{layers_name}."):
            depths[name] = int(name[len(layers_name) + 1 :].split(".")[0]) + 1
        else:
            depths[name] = top if in_head(model, name) else 0
    return depths


def set_trainable(model: "PreTrainedModel", train: str, embeddings: bool) -> dict[str, int]:
    """Freeze all but what `train` (head, last-K, all) names; return the depths of the trained parameters."""
    depths = parameter_depths(model)
    top = max(depths.values())
    if train == "head":
        lowest = top
    elif train == "all":
        lowest = 1
    else:
        count = int(train.removeprefix("last-"))
        if count >= top:
            raise UserError(f"train: {train} but the encoder has {top - 1} layers", "choose a smaller K, or all")
        lowest = top - count
    trained = {name: depth for name, depth in depths.items() if depth >= lowest or (embeddings and depth == 0)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return trained


def training_mode(module: nn.Module) -> None:
    """Train mode, except modules all of whose weights are frozen: their dropout would be noise without learning."""
    weights = list(module.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        module.eval()
        return
    module.training = True
    for child in module.children():
        training_mode(child)


def optimizer_groups(model: nn.Module, depths: dict[str, int], settings: TrainingSettings) -> list[dict[str, Any]]:
    """Parameter groups; the rate falls by `layer_decay` per layer below the head (arXiv:1801.06146)."""
    trained = {name: parameter for name, parameter in model.named_parameters() if name in depths}
    top = max(depths.values())
    groups: dict[tuple[int, bool], list[str]] = {}
    for name, parameter in trained.items():
        groups.setdefault((depths[name], _decays(name, parameter)), []).append(name)
    return [
        {
            "params": [(name, trained[name]) for name in names],
            "lr": settings.learning_rate * settings.layer_decay ** (top - depth),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (depth, decays), names in sorted(groups.items(), reverse=True)
    ]


def make_optimizer(model: nn.Module, depths: dict[str, int], settings: TrainingSettings) -> torch.optim.Optimizer:
    """Fused AdamW: the unfused one takes about a fifth of a small encoder's training step on a CPU."""
    return torch.optim.AdamW(optimizer_groups(model, depths, settings), lr=settings.learning_rate, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int) -> Any:
    """The learning rate over `steps` optimizer steps."""
    from math import ceil

    from transformers.optimization import get_scheduler

    name = "constant_with_warmup" if settings.lr_scheduler_type == "constant" else settings.lr_scheduler_type
    # The first step of a warm-up has rate 0: a training of one step has none.
    warmup = min(ceil(steps * settings.warmup_ratio), steps - 1)
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Biases and the weights of layer norms are vectors that decay would only distort."""
    module = name.rpartition(".")[0].rpartition(".")[2]
    return parameter.dim() > 1 and not name.endswith("bias") and "norm" not in module.lower()
