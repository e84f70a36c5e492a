"""The outputs of an encoder's frozen bottom layers: computed once for each text, kept as derived data, trained upon.

While the embeddings and the lowest layers are frozen, what they say about a text never changes. It is computed once
(as AutoFreeze does within one run, arXiv:2102.01386), kept unpadded on the disk, read through a memory map, and
shared by all epochs, evaluations, later stages, seeds and search trials whose frozen weights and texts are the same.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.method import Job
from stillhouse.models import encoder_layers, in_head
from stillhouse.train._batches import by_length, collate
from stillhouse.train._predict import SCORING_TOKENS
from stillhouse.train._tokens import TokenizedData, Tokens, load_array, map_new
from stillhouse.train.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

CLOSE = 1e-3
"""Largest difference between logits with and without the kept states, relative to the largest logit (fp32: 1e-6)."""
CHECKED_PIECES = 8
_NOT_BELOW = frozenset(
    {"num_labels", "id2label", "label2id", "problem_type", "_name_or_path", "architectures", "transformers_version"}
)
"""Entries of a config that do not concern the encoder; dropout is off in what is frozen."""


class _Passed(nn.Module):
    """In the place of the embeddings: hands on the states that came as `inputs_embeds`."""

    def forward(self, *given: Any, **named: Any) -> Any:
        values = [*given, *named.values()]
        return next(value for value in values if torch.is_tensor(value) and value.is_floating_point())


def layers_to_keep(
    settings: TrainingSettings, model: "PreTrainedModel", depths: dict[str, int], data: TokenizedData
) -> int:
    """How many layers' states are worth keeping; 0 for none. Decided by settings and data alone: a run repeats."""
    layers = frozen_layers(depths)
    if not layers and settings.frozen_states == "always":
        raise UserError("frozen_states: always, but no layer is frozen", "set train: last-2, or frozen_states: auto")
    if not layers or settings.frozen_states == "never":
        return 0
    # Once through the texts costs as much with states as without.
    if settings.frozen_states == "auto" and settings.num_train_epochs <= 1:
        return 0
    needed = bytes_of_states(data, int(model.config.hidden_size), settings.frozen_states_dtype)
    if needed <= settings.frozen_states_gb * 1e9:
        return layers
    if settings.frozen_states == "always":
        raise UserError(
            f"frozen_states: the states of {layers} frozen layers take {needed / 1e9:.1f} GB",
            f"set frozen_states_gb to {needed / 1e9 + 0.1:.1f}, frozen_states_dtype: float16 or frozen_states: auto",
        )
    return 0


def frozen_layers(depths: dict[str, int]) -> int:
    """How many encoder layers, from the lowest, are frozen together with everything below them."""
    lowest = min(depths.values())
    return 0 if lowest == 0 else lowest - 1


def frozen_digest(model: "PreTrainedModel", layers: int) -> str:
    """Digest of everything that the states depend on, but for the texts: the frozen weights and the config."""
    name = encoder_layers(model)[0]
    above = tuple(f"{name}.{index}." for index in range(layers, model.config.num_hidden_layers))
    found = hashlib.sha256()
    settings = model.config.to_dict()
    kept = {key: value for key, value in settings.items() if key not in _NOT_BELOW and "dropout" not in key}
    found.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for key, value in model.state_dict().items():
        if not in_head(model, key) and not key.startswith(above):
            found.update(key.encode())
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def upper_part(model: "PreTrainedModel", layers: int) -> nn.Module:
    """The model without its embeddings and its lowest `layers`: takes `inputs_embeds`, shares all its modules."""
    name, found = encoder_layers(model)
    embeddings = _embeddings_name(model)
    upper = _with_module(model, name, nn.ModuleList(list(found)[layers:]))
    return _with_module(upper, embeddings, _Passed())


def keep_states(
    job: Job, model: "PreTrainedModel", data: TokenizedData, layers: int, settings: TrainingSettings
) -> tuple[TokenizedData, nn.Module] | None:
    """The data with the states of the frozen part, and the model above it; None where the two do not fit together."""
    dtype = settings.frozen_states_dtype
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nn.Module.to(model, device)
    upper = upper_part(model, layers)
    texts = [item.content for slot in ("data", "extra") for item in job.inputs.get(slot, [])]
    contents = [frozen_digest(model, layers), *texts]

    def build(directory: Path) -> None:
        splits = {"train": data.train, "validation": data.validation}
        total = sum(len(tokens) for tokens in splits.values())
        done = 0
        for split, tokens in splits.items():
            size = (len(tokens.ids), int(model.config.hidden_size))
            states = map_new(directory / f"{split}.npy", np.dtype(dtype), size)
            first = done

            def tell(count: int, of: int, first: int = first) -> None:
                job.progress(first + count, total, f"once: the {layers} frozen layers")

            _write_states(model, layers, tokens, states, tell)
            states.flush()
            done += len(tokens)

    if not _fits(model, upper, layers, data.train):
        if settings.frozen_states == "always":
            raise UserError("frozen_states: always is not possible with this encoder", "set frozen_states: auto")
        return None
    parts = {**data.identity, "layers": layers, "dtype": dtype, "validation": len(data.validation)}
    directory = job.derived("frozen-states", parts, contents, build)
    with_states = {
        split: replace(getattr(data, split), states=load_array(directory / f"{split}.npy"))
        for split in ("train", "validation")
    }
    return replace(data, **with_states), upper


def bytes_of_states(data: TokenizedData, hidden: int, dtype: str) -> int:
    """What the states of both splits take on the disk."""
    return (len(data.train.ids) + len(data.validation.ids)) * hidden * np.dtype(dtype).itemsize


def _fits(model: "PreTrainedModel", upper: nn.Module, layers: int, tokens: Tokens) -> bool:
    """Whether the upper part, given the states, says what the whole model says: families of encoders differ."""
    pieces = np.arange(min(CHECKED_PIECES, len(tokens)))
    few = tokens.first(len(pieces))
    model.eval()
    states = np.zeros((len(few.ids), int(model.config.hidden_size)), np.float32)
    try:
        _write_states(model, layers, few, states, lambda done, total: None)
        device = next(model.parameters()).device
        pad = model.config.pad_token_id or 0
        with torch.inference_mode():
            whole = model(**collate(few, pieces, pad, device).inputs).logits.float()
            given = collate(replace(few, states=states), pieces, pad, device)
            found = upper(**given.inputs).logits.float()
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False
    real = given.inputs["attention_mask"].bool() if tokens.words is not None else slice(None)
    difference = (whole[real] - found[real]).abs().max()
    return bool(difference <= CLOSE * whole[real].abs().max().clamp_min(1.0))


class _Enough(Exception):
    """The states are there; the layers above need not run."""


def _write_states(
    model: "PreTrainedModel", layers: int, tokens: Tokens, states: np.ndarray, tell: Callable[[int, int], None]
) -> None:
    """Fill `states` [tokens, hidden] with what leaves the frozen part."""
    model.eval()
    device = next(model.parameters()).device
    pad = model.config.pad_token_id or 0
    last = encoder_layers(model)[1][layers - 1]
    caught: list[torch.Tensor] = []

    def catch(module: nn.Module, given: Any, output: Any) -> None:
        caught.append(output if torch.is_tensor(output) else output[0])
        raise _Enough

    hook = last.register_forward_hook(catch)
    done = 0
    try:
        with torch.inference_mode():
            for pieces in by_length(tokens.lengths, SCORING_TOKENS):
                batch = collate(tokens, pieces, pad, device)
                try:
                    model(**batch.inputs)
                except _Enough:
                    pass
                found = caught.pop().float().cpu().numpy()
                if not np.abs(found).max(initial=0) <= np.finfo(states.dtype).max:
                    raise UserError(
                        f"the states of {layers} frozen layers do not fit into {states.dtype}",
                        "set frozen_states_dtype: float32, or frozen_states: never",
                    )
                for row, piece in enumerate(pieces):
                    first, end = tokens.offsets[piece], tokens.offsets[piece + 1]
                    states[first:end] = found[row, : end - first]
                done += len(pieces)
                tell(done, len(tokens))
    finally:
        hook.remove()


def _embeddings_name(model: "PreTrainedModel") -> str:
    """The module that turns token ids into the first layer's input."""
    return f"{model.base_model_prefix}.embeddings"


def _with_module(module: Any, name: str, new: nn.Module) -> Any:
    """A copy of `module` with `new` in the place of submodule `name`; everything beside the path to it is shared."""
    first, _, rest = name.partition(".")
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    copied._modules[first] = _with_module(module._modules[first], rest, new) if rest else new
    return copied
