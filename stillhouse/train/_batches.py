"""Which rows go into which optimizer step, and rows as padded tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from stillhouse.train._tokens import IGNORED, Tokens

BUCKET_BATCHES = 50
"""Rows are sorted by length within a random pool of this many batches: little padding, still much chance."""


@dataclass(frozen=True)
class Batch:
    """Some pieces of a split as padded tensors."""

    inputs: dict[str, torch.Tensor]
    """`attention_mask` and `input_ids`, int64 [pieces, width], or instead of the ids `inputs_embeds`, float32 [pieces,
    width, hidden]: the states that the frozen layers would give"""
    targets: torch.Tensor
    """int64 [pieces] for texts, [pieces, width] for words"""
    pieces: np.ndarray
    """Their places in the split."""


def epoch_order(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: every row once, similar lengths together, a function of the arguments alone."""
    chance = np.random.default_rng([seed, epoch])
    shuffled = chance.permutation(len(lengths))
    pool = batch_size * BUCKET_BATCHES
    batches: list[np.ndarray] = []
    for first in range(0, len(shuffled), pool):
        rows = shuffled[first : first + pool]
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        batches += [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    return [batches[at] for at in chance.permutation(len(batches))]


def micro_batches(rows: np.ndarray, lengths: np.ndarray, max_tokens: int | None) -> list[np.ndarray]:
    """`rows` cut into parts whose padded size is at most `max_tokens`; a longer row is alone in its part."""
    if max_tokens is None:
        return [rows]
    parts: list[list[int]] = []
    width = 0
    for row in rows:
        width = max(width, int(lengths[row]))
        if not parts or width * (len(parts[-1]) + 1) > max_tokens:
            parts.append([])
            width = int(lengths[row])
        parts[-1].append(row)
    return [np.asarray(part) for part in parts]


def by_length(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """All rows for scoring, longest first (so that too little memory shows at once), in parts of `max_tokens`."""
    yield from micro_batches(np.argsort(-lengths, kind="stable"), lengths, max_tokens)


def collate(tokens: Tokens, pieces: np.ndarray, pad_id: int, device: torch.device) -> Batch:
    """Pad `pieces` to the longest of them."""
    lengths = tokens.offsets[pieces + 1] - tokens.offsets[pieces]
    mask = (np.arange(int(lengths.max()))[None, :] < lengths[:, None]).astype(np.int64)
    per_token = tokens.words is not None
    targets = pad_pieces(tokens.targets, tokens.offsets, pieces, IGNORED) if per_token else tokens.targets[pieces]
    inputs = {"attention_mask": _tensor(mask, device)}
    if tokens.states is None:
        inputs["input_ids"] = _tensor(pad_pieces(tokens.ids, tokens.offsets, pieces, pad_id), device)
    else:
        states = pad_pieces(tokens.states, tokens.offsets, pieces, 0.0)
        inputs["inputs_embeds"] = torch.from_numpy(states).float().to(device)
    return Batch(inputs, _tensor(targets, device), pieces)


def pad_pieces(values: np.ndarray, offsets: np.ndarray, pieces: np.ndarray, fill: float) -> np.ndarray:
    """`values` [tokens, ...] of `pieces`, padded with `fill`: [pieces, width, ...]."""
    width = int((offsets[pieces + 1] - offsets[pieces]).max())
    padded = np.full((len(pieces), width, *values.shape[1:]), fill, values.dtype)
    for row, piece in enumerate(pieces):
        part = values[offsets[piece] : offsets[piece + 1]]
        padded[row, : len(part)] = part
    return padded


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.int64)).to(device)
