"""The state of a training run as tensors and JSON, taken and put back so that the next step is the same to the bit."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from stillhouse.method import Metrics
from stillhouse.train._checkpoint import Tensors


@dataclass
class Progress:
    """How far a run is, and the best it has seen."""

    best_weights: Tensors
    """Before the first evaluation: the weights it began with."""
    step: int = 0
    best: float = float("-inf")
    best_step: int = 0
    worse_in_a_row: int = 0
    stopped: bool = False
    loss_sum: float = 0.0
    """Over the steps since the last evaluation."""
    loss_count: int = 0
    rate: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def add_step(self, loss: float, rate: float) -> None:
        self.step += 1
        self.loss_sum += loss
        self.loss_count += 1
        self.rate = rate

    def add_evaluation(self, metrics: Metrics, metric: str, epoch: float, patience: int | None) -> bool:
        """Record an evaluation; True if it is the best so far. Out of patience: `stopped`."""
        train_loss = self.loss_sum / max(1, self.loss_count)
        entry = {"step": self.step, "epoch": round(epoch, 4), "train_loss": train_loss, "learning_rate": self.rate}
        self.history.append({**entry, **metrics})
        self.loss_sum, self.loss_count = 0.0, 0
        if metrics[metric] > self.best:
            self.best, self.best_step, self.worse_in_a_row = metrics[metric], self.step, 0
            return True
        self.worse_in_a_row += 1
        self.stopped = patience is not None and self.worse_in_a_row >= patience
        return False

    def as_json(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "best_weights"}
        return {**state, "best": self.best if self.history else None}

    @classmethod
    def of(cls, state: dict[str, Any], best_weights: Tensors) -> "Progress":
        best = float("-inf") if state["best"] is None else state["best"]
        return cls(best_weights, **{**state, "best": best})


def take_weights(model: nn.Module, trained: dict[str, int]) -> Tensors:
    """A copy of the trained parameters on the CPU."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().to("cpu", copy=True).contiguous() for name in trained}


def put_weights(model: nn.Module, weights: Tensors) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)


def take_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's tensors as `parameter|entry`, on the CPU."""
    return {
        f"{name}|{entry}": value.detach().to("cpu", copy=True).contiguous()
        for name, parameter in model.named_parameters()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def put_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.partition("|")
        parameter = parameters[name]
        optimizer.state.setdefault(parameter, {})[entry] = value.to(parameter.device, copy=True)


def take_schedule(schedule: Any) -> dict[str, Any]:
    """The schedule's numbers; its functions follow from the settings."""
    state = schedule.state_dict()
    rates = [float(rate) for rate in state["_last_lr"]]
    return {"last_epoch": state["last_epoch"], "_step_count": state["_step_count"], "_last_lr": rates}


def put_schedule(optimizer: torch.optim.Optimizer, schedule: Any, state: dict[str, Any]) -> None:
    # LambdaLR wants its functions' own state back: there is none.
    schedule.load_state_dict({**state, "lr_lambdas": [None] * len(optimizer.param_groups)})
    for group, rate in zip(optimizer.param_groups, state["_last_lr"], strict=True):
        group["lr"] = rate


def take_random() -> tuple[Tensors, dict[str, Any]]:
    """The states of the random generators of torch (tensors), numpy and python (JSON)."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda-{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state = [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)]
    return tensors, {"numpy": state, "python": random.getstate()}


def put_random(tensors: Tensors, state: dict[str, Any]) -> None:
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"cuda-{index}" in tensors:  # begun where there were fewer devices, or none
                torch.cuda.set_rng_state(tensors[f"cuda-{index}"], index)
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), position, has_gauss, gauss))
    version, internal, following = state["python"]
    random.setstate((version, tuple(internal), following))
