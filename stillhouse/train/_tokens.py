"""Rows as token ids: made once per tokenizer and length, kept as derived data, read through memory maps."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tokenizers import Encoding, Tokenizer

from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.method import Job
from stillhouse.problems import Problem, find_problem

IGNORED = -100
"""Target of a token that decides nothing: special tokens, and all but the first sub-token of a word."""
UNLABELLED = -101
"""Target of what a teacher alone decides: like a label, but one that nobody gave."""
CHUNK = 2048


@dataclass(frozen=True)
class Tokens:
    """A split as concatenated token ids; piece i is `ids[offsets[i]:offsets[i + 1]]`.

    A text is one piece. A sentence of words is one piece or, if it is longer than `max_length`, several.
    """

    ids: np.ndarray
    """int32 [tokens]"""
    offsets: np.ndarray
    """int64 [pieces + 1]"""
    targets: np.ndarray
    """int64 [pieces] for texts; [tokens] for words, with `IGNORED` where no word begins."""
    words: np.ndarray | None
    """int32 [tokens], for words only: where the token begins a word, the word's place in the split, else -1."""
    states: np.ndarray | None = None
    """float [tokens, hidden]: what the frozen layers make of each token; then these are the model's input."""

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def first(self, pieces: int) -> "Tokens":
        """The first so many pieces."""
        end = int(self.offsets[pieces])
        targets = self.targets[:pieces] if self.words is None else self.targets[:end]
        words, states = (None if array is None else array[:end] for array in (self.words, self.states))
        return Tokens(self.ids[:end], self.offsets[: pieces + 1], targets, words, states)

    def only(self, pieces: np.ndarray) -> "Tokens":
        """These pieces, in memory; `words` still holds places in the whole split."""
        lengths = self.lengths[pieces]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        taken = np.repeat(self.offsets[pieces] - offsets[:-1], lengths) + np.arange(offsets[-1])
        targets = self.targets[pieces if self.words is None else taken]
        words, states = (None if array is None else array[taken] for array in (self.words, self.states))
        return Tokens(self.ids[taken], offsets, targets, words, states)


@dataclass(frozen=True)
class TokenizedData:
    """Both splits; equal `identity` and data content mean equal training tokens."""

    directory: Path
    identity: dict[str, Any]
    train: Tokens
    validation: Tokens
    truth: Any
    """Of the validation rows: int array [rows], or for words a list of int arrays."""
    cut: int
    """Training texts longer than `max_length`."""


def tokenize_data(
    job: Job, problem: str, tokenizer: str, max_length: int, max_eval_samples: int | None = None
) -> TokenizedData:
    """The tokens of the artifact in slot `data` for the canonical `tokenizer` JSON, from the store or made now."""
    kind = find_problem(problem)
    data = job.inputs["data"][0]
    identity = {"problem": problem, "max_length": max_length, "tokenizer": sha256(tokenizer.encode()).hexdigest()}

    validation_rows = _load(data.path, "validation", kind, max_eval_samples)

    def build(directory: Path) -> None:
        encoder = _encoder(tokenizer, max_length, kind)
        frames = {"train": _load(data.path, "train", kind), "validation": validation_rows}
        counts = {split: _write_split(frame, split, directory, encoder) for split, frame in frames.items()}
        write_json(directory / "tokens.json", {**identity, "cut": counts})

    directory = job.derived("tokens", {**identity, "max_eval_samples": max_eval_samples}, [data.content], build)
    train, validation = (read_tokens(directory, split, kind) for split in ("train", "validation"))
    truth = _truth(validation_rows, kind)
    if not len(train) or not len(validation):
        empty = "train" if not len(train) else "validation"
        raise UserError(f"{data.path / (empty + '.parquet')} has no rows", "give more data, or another seed")
    cut = read_json(directory / "tokens.json")["cut"]["train"]
    return TokenizedData(directory, identity, train, validation, truth, cut)


@dataclass(frozen=True)
class _Encoder:
    tokenizer: Tokenizer
    max_length: int
    kind: Problem
    before: list[int]
    """Special tokens that open a piece."""
    after: list[int]


def _encoder(tokenizer_json: str, max_length: int, kind: Problem) -> _Encoder:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    example = tokenizer.encode("a")
    content = [i for i, special in enumerate(example.special_tokens_mask) if not special]
    first, last = (content[0], content[-1] + 1) if content else (len(example.ids), len(example.ids))
    return _Encoder(tokenizer, max_length, kind, example.ids[:first], example.ids[last:])


def write_tokens(
    frame: pd.DataFrame, split: str, out: Path, tokenizer_json: str, max_length: int, kind: Problem
) -> int:
    """Write the arrays that `read_tokens` reads; return how many texts were cut."""
    return _write_split(frame, split, out, _encoder(tokenizer_json, max_length, kind))


def _write_split(frame: pd.DataFrame, split: str, out: Path, encoder: _Encoder) -> int:
    """Write one split's arrays; return how many texts were cut."""
    kind = encoder.kind
    pieces = _text_pieces if kind.unit == "text" else _word_pieces
    ids: list[np.ndarray] = []
    targets: list[Any] = []
    words: list[np.ndarray] = []
    cut = 0
    for piece in pieces(frame, encoder):
        ids.append(np.asarray(piece.ids, np.int32))
        targets.append(piece.targets)
        words.append(np.asarray(piece.words, np.int32))
        cut += piece.cut
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in ids], dtype=np.int64)]).astype(np.int64)
    _save(out / f"{split}-ids.npy", _joined(ids, np.int32))
    _save(out / f"{split}-offsets.npy", offsets)
    flat = np.asarray(targets, np.int64) if kind.unit == "text" else _joined(targets, np.int64)
    _save(out / f"{split}-targets.npy", flat)
    if kind.unit == "word":
        _save(out / f"{split}-words.npy", _joined(words, np.int32))
    return cut


@dataclass(frozen=True)
class _Piece:
    ids: list[int]
    targets: Any
    words: list[int]
    cut: bool = False


def _text_pieces(frame: pd.DataFrame, encoder: _Encoder) -> Iterator[_Piece]:
    room = encoder.max_length - len(encoder.before) - len(encoder.after)
    for texts, labels in _chunks(frame, encoder.kind):
        for encoding, label in zip(
            encoder.tokenizer.encode_batch(texts, add_special_tokens=False), labels, strict=True
        ):
            ids = [*encoder.before, *encoding.ids[:room], *encoder.after]
            yield _Piece(ids, int(label), [], len(encoding.ids) > room)


def _word_pieces(frame: pd.DataFrame, encoder: _Encoder) -> Iterator[_Piece]:
    room = encoder.max_length - len(encoder.before) - len(encoder.after)
    start = 0
    for rows, tags in _chunks(frame, encoder.kind):
        sentences = [[str(word) for word in row] for row in rows]
        encodings = encoder.tokenizer.encode_batch(sentences, is_pretokenized=True, add_special_tokens=False)
        for encoding, row in zip(encodings, tags, strict=True):
            for ids, words in _windows(encoding, room):
                yield _framed(ids, words, np.asarray(row, np.int64), start, encoder)
            start += len(row)


def _windows(encoding: Encoding, room: int) -> Iterator[tuple[list[int], list[int]]]:
    """Pieces of at most `room` tokens that begin with a word; per token the word that begins there, else -1."""
    spans: list[tuple[int, list[int]]] = []
    for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
        if spans and spans[-1][0] == word:
            spans[-1][1].append(token)
        elif word is not None:
            spans.append((word, [token]))
    ids: list[int] = []
    words: list[int] = []
    for word, tokens in spans:
        tokens = tokens[:room]
        if ids and len(ids) + len(tokens) > room:
            yield ids, words
            ids, words = [], []
        ids = ids + tokens
        words = [*words, word, *[-1] * (len(tokens) - 1)]
    if ids:
        yield ids, words


def _framed(ids: list[int], words: list[int], tags: np.ndarray, start: int, encoder: _Encoder) -> _Piece:
    before, after = [-1] * len(encoder.before), [-1] * len(encoder.after)
    places = np.asarray([*before, *words, *after], np.int64)
    targets = np.where(places >= 0, tags[places], IGNORED)
    return _Piece([*encoder.before, *ids, *encoder.after], targets, np.where(places >= 0, places + start, -1).tolist())


def _chunks(frame: pd.DataFrame, kind: Problem) -> Iterator[tuple[list[Any], list[Any]]]:
    for first in range(0, len(frame), CHUNK):
        part = frame.iloc[first : first + CHUNK]
        yield part[kind.inputs].tolist(), part[kind.targets].tolist()


def _load(data: Path, split: str, kind: Problem, most: int | None = None) -> pd.DataFrame:
    """A split's inputs and targets; `most`: the rows whose ids come first, so that added rows change few of them."""
    from stillhouse.data.read import load_split

    if most is None:
        return load_split(data, split, columns=[kind.inputs, kind.targets])
    frame = load_split(data, split, columns=["id", kind.inputs, kind.targets])
    # All of them stand in their own order: what is computed from them is kept by their number.
    return frame if len(frame) <= most else frame.sort_values("id", kind="stable").head(most)


def _truth(frame: pd.DataFrame, kind: Problem) -> Any:
    values = frame[kind.targets].tolist()
    if kind.unit == "text":
        return np.asarray(values, np.int64)
    return [np.asarray(row, np.int64) for row in values]


def read_tokens(directory: Path, split: str, kind: Problem) -> Tokens:
    """One split, mapped into memory."""
    names = ["ids", "offsets", "targets", *(["words"] if kind.unit == "word" else [])]
    arrays = {name: load_array(directory / f"{split}-{name}.npy") for name in names}
    return Tokens(arrays["ids"], arrays["offsets"], arrays["targets"], arrays.get("words"))


def map_new(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap:
    """A new `.npy` file to be filled through a memory map, its space taken at once.

    Where the disk is full later, writing to a map ends the process instead of raising an error.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate") and array.nbytes:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
    return array


def load_array(path: Path) -> np.ndarray:
    """A memory map of a `.npy` file; an empty array cannot be mapped and is read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)


def _save(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=False)


def _joined(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype)
