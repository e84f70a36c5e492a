"""The outputs of an encoder's frozen bottom layers: computed once for each text, kept as derived data, trained upon.

While the embeddings and the lowest layers are frozen, what they say about a text never changes. It is computed once
(as AutoFreeze does within one run, arXiv:2102.01386), kept unpadded on the disk, read through a memory map, and
shared by all epochs, evaluations, later stages, seeds and search trials whose frozen weights and texts are the same,
and by the passes of a teacher with these layers.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
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
    # Once through the texts costs as much with states as without, and what comes later reads them again.
    if settings.frozen_states == "auto" and settings.num_train_epochs < 1:
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


def frozen_digests(model: "PreTrainedModel") -> list[str]:
    """Digests of all that the outputs of the embeddings, and of each number of lowest layers, depend on but texts."""
    name = f"{encoder_layers(model)[0]}."
    settings = model.config.to_dict()
    kept = {key: value for key, value in settings.items() if key not in _NOT_BELOW and "dropout" not in key}
    found = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    parts: dict[int, dict[str, torch.Tensor]] = {index: {} for index in range(-1, model.config.num_hidden_layers)}
    for key, value in model.state_dict().items():
        if not in_head(model, key):
            index = int(key.removeprefix(name).split(".")[0]) if key.startswith(name) else -1
            parts[index][key] = value
    digests = []
    for _, weights in sorted(parts.items()):
        for key, value in weights.items():
            found.update(key.encode())
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digests.append(found.copy().hexdigest())
    return digests


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
    if not _fits(model, upper, layers, data.train):
        if settings.frozen_states == "always":
            raise UserError("frozen_states: always is not possible with this encoder", "set frozen_states: auto")
        return None
    digest = frozen_digests(model)[layers]
    with_states = {}
    for split in SPLITS:
        tokens: Tokens = getattr(data, split)

        def build(directory: Path, tokens: Tokens = tokens) -> None:
            size = (len(tokens.ids), int(model.config.hidden_size))
            states = map_new(directory / "states.npy", np.dtype(dtype), size)
            what = f"once: the {layers} frozen layers"
            _write_states(model, layers, tokens, states, lambda done, total: job.progress(done, total, what))
            states.flush()

        directory = job.derived("frozen-states", *_key(job, data, split, (layers, dtype, digest)), build)
        with_states[split] = replace(tokens, states=load_array(directory / "states.npy"))
    return replace(data, **with_states), upper


def above_kept_states(
    job: Job, model: "PreTrainedModel", data: TokenizedData, split: Split
) -> tuple[nn.Module, Tokens]:
    """The part of `model` above the highest layer whose exact states of these rows are kept, and the rows with them.

    The whole model and the rows as they are, where none are kept: once through them costs as much with states.
    """
    tokens: Tokens = replace(getattr(data, split), states=None)
    for layers, digest in reversed(list(enumerate(frozen_digests(model)))[1:]):
        try:
            directory = job.derived("frozen-states", *_key(job, data, split, (layers, "float32", digest)), _only_look)
        except _NotKept:
            continue
        return upper_part(model, layers), replace(tokens, states=load_array(directory / "states.npy"))
    return model, tokens


class _NotKept(Exception):
    """There are no such states."""


def _only_look(directory: Path) -> None:
    raise _NotKept


def _key(job: Job, data: TokenizedData, split: Split, states: tuple[int, str, str]) -> tuple[dict[str, Any], list[str]]:
    """Settings and contents that the kept states of a split are known by."""
    layers, dtype, digest = states
    texts = [item.content for slot in ("data", "extra") for item in job.inputs.get(slot, [])]
    rows = len(getattr(data, split))
    return {**data.identity, "split": split, "rows": rows, "layers": layers, "dtype": dtype}, [digest, *texts]


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
