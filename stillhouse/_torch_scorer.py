"""Scoring with torch: the tokenization, batches and decoding of `stillhouse.scoring` around another forward."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stillhouse.models import load_model
from stillhouse.scoring import Feed, TextScorer, default_threads

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class WithPooled(nn.Module):
    """A model whose forward gives `(logits, pooled)`; pooled is the mean of the last hidden states over real tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        known = inspect.signature(model.forward).parameters
        self.inputs = [name for name in INPUTS if name in known]
        """Those of INPUTS that the model takes, in that order: the mask is always the second."""
        self._last: list[torch.Tensor] = []
        # Whatever the encoder is called and returns, its first output is the last layer after the final norm.
        model.base_model.register_forward_hook(lambda module, given, output: self._last.append(output[0]))

    def forward(self, *feed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`feed`: int64 [batch, length], one for each of `inputs`."""
        logits = self.model(**dict(zip(self.inputs, feed, strict=True))).logits
        hidden = self._last.pop()
        self._last.clear()
        real = feed[1].unsqueeze(-1).to(hidden.dtype)
        return logits, (hidden * real).sum(1) / real.sum(1)


class TorchScorer(TextScorer):
    """A `model.torch` directory. The number of torch's threads belongs to the process: the last scorer made sets it."""

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        torch.set_num_threads(threads or default_threads())
        self.model = load_model(directory).eval()
        self._module = WithPooled(self.model).eval()
        super().__init__(directory, self._torch_run, int(self.model.config.hidden_size))

    def _torch_run(self, feed: Feed, output: str) -> np.ndarray:
        with torch.inference_mode():
            logits, pooled = self._module(*(torch.from_numpy(feed[name]) for name in self._module.inputs))
        return (logits if output == "logits" else pooled).float().numpy()
