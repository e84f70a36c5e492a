"""Which rows stay, and in which split: decided by content alone, so that order and appended data move nothing."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from stillhouse.data._near import Texts, near_duplicates

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, -1
SPLIT_NAMES = ("train", "validation", "test")
BEYOND = "beyond_max_train_rows"
"""The reason of a sound row that is only not in the training sample."""
_HELD_OUT = {VALIDATION: (0.8, 0.9), TEST: (0.9, 1.0)}
_SCALE = float(1 << 64)


class Role(IntEnum):
    """Where a row comes from; of two rows that cannot both stay, the one with the lower role does."""

    TEST_GIVEN = 0
    TEST_PREVIOUS = 1
    VALIDATION_GIVEN = 2
    VALIDATION_PREVIOUS = 3
    TRAIN_PREVIOUS = 4
    NEW = 5


_FIXED = {
    Role.TEST_GIVEN: TEST,
    Role.TEST_PREVIOUS: TEST,
    Role.VALIDATION_GIVEN: VALIDATION,
    Role.VALIDATION_PREVIOUS: VALIDATION,
    Role.TRAIN_PREVIOUS: TRAIN,
}


@dataclass(frozen=True)
class Index:
    """What is known of every row, as arrays of one length."""

    ids: np.ndarray
    """sha256 of the normalised text, `S32`."""
    ranks: np.ndarray
    """First 8 bytes of sha256(normalised text + seed), uint64: decides the split and who wins."""
    labels: np.ndarray
    """One int64 per distinct label (for tokens: per distinct sequence of tags)."""
    details: np.ndarray
    """Hash of the other columns, uint64: which of two equal rows is kept does not depend on their order."""
    roles: np.ndarray
    """`Role`, int8."""


@dataclass(frozen=True)
class Rules:
    near_duplicate_threshold: float | None = 0.9
    """None: only equal texts count as duplicates."""
    max_train_rows: int = 0
    stratified: bool = True
    given: frozenset[int] = frozenset()
    """Splits that come as files of their own: no new row is put into them."""


def rank_of(text: str, seed: int) -> int:
    """The row's place in [0, 2^64): below 0.8 is training, then validation, from 0.9 test."""
    return int.from_bytes(hashlib.sha256(f"{text}\n{seed}".encode()).digest()[:8])


def decide(
    index: Index, rules: Rules, text_of: Texts, progress: Callable[..., None]
) -> tuple[np.ndarray, Counter[str]]:
    """(split of every row or LEFT_OUT, number of rows left out by reason)."""
    split = _intended(index, rules.given)
    dropped: Counter[str] = Counter()
    _drop_equal(index, split, dropped)
    if rules.near_duplicate_threshold is not None:
        order = _order(index, split)
        near = near_duplicates(
            _watched(order, progress), text_of, rules.near_duplicate_threshold, _tolerated(index, split)
        )
        _drop_near(near, split, dropped)
    if rules.max_train_rows:
        _sample(index, split, dropped, rules)
    return split, +dropped


def _intended(index: Index, given: frozenset[int]) -> np.ndarray:
    share = index.ranks / _SCALE
    split = np.full(len(share), TRAIN, dtype=np.int8)
    for held_out, (low, high) in _HELD_OUT.items():
        # Up to 1.0 and with it: the largest ranks round up to it as floats.
        inside = (share >= low) & ((share < high) | (high == 1.0))
        if held_out not in given:
            split[inside] = held_out
    for role, fixed in _FIXED.items():
        split[index.roles == role] = fixed
    return split


def _drop_equal(index: Index, split: np.ndarray, dropped: Counter[str]) -> None:
    """One row for each text: of new rows the majority label's (none on a tie), never one that an earlier role has."""
    _, text = np.unique(index.ids, return_inverse=True)
    best = np.full(text.max(initial=-1) + 1, max(Role), dtype=np.int8)
    np.minimum.at(best, text, index.roles)
    later = index.roles > best[text]
    known = np.zeros(len(best), dtype=np.int64)
    first = np.flatnonzero(~later)
    known[text[first]] = index.labels[first]
    contradicts = later & (index.labels != known[text])
    split[later] = LEFT_OUT
    dropped["contradictory"] += int(contradicts.sum())
    dropped["duplicate"] += int((later & ~contradicts).sum())

    new = np.flatnonzero((index.roles == Role.NEW) & ~later)
    order = new[np.lexsort((index.details[new], index.labels[new], text[new]))]
    winners = _majority(text[order], index.labels[order])
    stays = np.zeros(len(split), dtype=bool)
    stays[order[winners[winners >= 0]]] = True
    label = np.zeros(len(best), dtype=np.int64)
    decided = np.zeros(len(best), dtype=bool)
    label[text[stays]], decided[text[stays]] = index.labels[stays], True
    leaves = new[~stays[new]]
    same = decided[text[leaves]] & (label[text[leaves]] == index.labels[leaves])
    dropped["duplicate"] += int(same.sum())
    dropped["contradictory"] += int((~same).sum())
    split[leaves] = LEFT_OUT


def _majority(text: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For rows sorted by (text, label): for each text the position of the first row of its majority, -1 on a tie."""
    if not len(text):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, (text[1:] != text[:-1]) | (labels[1:] != labels[:-1])])
    counts = np.diff(np.r_[starts, len(text)])
    groups = np.flatnonzero(np.r_[True, text[starts][1:] != text[starts][:-1]])
    most = np.maximum.reduceat(counts, groups)
    size = np.diff(np.r_[groups, len(starts)])
    is_most = counts == np.repeat(most, size)
    ties = np.add.reduceat(is_most.astype(np.int64), groups) > 1
    first = np.minimum.reduceat(np.where(is_most, starts, len(text)), groups)
    return np.where(ties, -1, first)


def _order(index: Index, split: np.ndarray) -> list[int]:
    """Rows of earlier roles first, then held-out rows before training rows, then the smallest hash."""
    rows = np.flatnonzero(split != LEFT_OUT)
    training = (split[rows] == TRAIN) & (index.roles[rows] == Role.NEW)
    keys = (index.details[rows], index.ids[rows], index.ranks[rows], training, index.roles[rows])
    return rows[np.lexsort(keys)].tolist()


def _tolerated(index: Index, split: np.ndarray) -> Callable[[int, int], bool]:
    """Files are used as given: a given row may be near others of its own split, only never across splits."""
    intended = split.copy()
    as_given = np.isin(index.roles, (Role.TEST_GIVEN, Role.VALIDATION_GIVEN))

    def tolerated(row: int, kept: int) -> bool:
        return bool(as_given[row]) and intended[row] == intended[kept]

    return tolerated


def _drop_near(near: dict[int, int], split: np.ndarray, dropped: Counter[str]) -> None:
    intended = split.copy()
    for row, kept in near.items():
        leaks = intended[row] == TRAIN and intended[kept] != TRAIN
        dropped["near_held_out" if leaks else "near_duplicate"] += 1
        split[row] = LEFT_OUT


def _sample(index: Index, split: np.ndarray, dropped: Counter[str], rules: Rules) -> None:
    """The training rows with the smallest hashes of each class, classes in proportion, none left without a row."""
    rows = np.flatnonzero(split == TRAIN)
    if len(rows) <= rules.max_train_rows:
        return
    classes = index.labels[rows] if rules.stratified else np.zeros(len(rows), dtype=np.int64)
    _, code, size = np.unique(classes, return_inverse=True, return_counts=True)
    quota = _quotas(size, rules.max_train_rows)
    order = np.lexsort((index.ids[rows], index.ranks[rows], code))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    leaves = rows[order[place >= quota[code[order]]]]
    split[leaves] = LEFT_OUT
    dropped[BEYOND] += len(leaves)


def _quotas(size: np.ndarray, total: int) -> np.ndarray:
    """`total` shared out in proportion to `size` by largest remainders, at least one each as far as that goes."""
    exact = size * (total / size.sum())
    quota = np.floor(exact).astype(np.int64)
    by_remainder = np.lexsort((np.arange(len(size)), quota - exact))
    quota[by_remainder[: total - quota.sum()]] += 1
    for empty in np.flatnonzero(quota == 0):
        largest = int(quota.argmax())
        if quota[largest] <= 1:
            break
        quota[largest] -= 1
        quota[empty] += 1
    return quota


def _watched(order: list[int], progress: Callable[..., None]) -> Iterator[int]:
    for done, row in enumerate(order):
        if done % 500 == 0:
            progress(done, len(order), "looking for near-duplicates")
        yield row
