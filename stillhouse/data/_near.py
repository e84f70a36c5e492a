"""Near-duplicates: MinHash signatures find candidates (Broder 1997), exact Jaccard similarity decides."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

PIECE = 5
"""Characters of one piece (shingle)."""
_PERMUTATIONS = 64
_MISSED = 1e-6
"""Largest chance that a pair exactly at the threshold is never compared (at 0.9 it is 4e-8)."""
_MARGIN = 0.25
"""An estimate this far below the threshold (over 5 standard deviations at 0.9) rules a pair out."""
_MANY = 100_000

Texts = Callable[[int], str]


def pieces(text: str) -> np.ndarray:
    """The distinct hashes (uint32, sorted) of all runs of five characters; case does not count, everything else does.

    Punctuation counts because it can carry the label (`:)` and `:(`).
    """
    return np.unique(_hashed(text))


def _hashed(text: str) -> np.ndarray:
    codes = np.frombuffer(text.casefold().encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    width = min(PIECE, len(codes))
    count = len(codes) - width + 1
    mixed = np.full(count, width, dtype=np.uint64)
    for offset in range(width):
        mixed ^= codes[offset : offset + count]
        mixed *= np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def similarity(left: np.ndarray, right: np.ndarray) -> float:
    """Jaccard similarity of two sorted sets."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(1, len(left) + len(right) - shared)


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, rows per band): the most selective banding that still finds pairs at `threshold`."""
    fitting = [
        (_PERMUTATIONS // rows, rows)
        for rows in range(1, _PERMUTATIONS // 2 + 1)
        if (1 - threshold**rows) ** (_PERMUTATIONS // rows) <= _MISSED
    ]
    return fitting[-1] if fitting else (_PERMUTATIONS, 1)


def near_duplicates(
    order: Iterable[int],
    text_of: Texts,
    threshold: float,
    tolerated: Callable[[int, int], bool] = lambda row, kept: False,
) -> dict[int, int]:
    """`{row: the kept row it is near}` for the rows to leave out, given rows in the order in which they win.

    A row stays if no row that stayed before it has a similarity of at least `threshold`, or only ones for which
    `tolerated(row, kept)` holds. So no two rows that stay are near each other, tolerated pairs apart.
    """
    from datasketch import MinHash, MinHashLSH

    # The pieces are hashed already. One object serves all rows: the index copies what it needs.
    sketch = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
    rows, signatures = _signatures(order, text_of, sketch)
    bands = bands_for(threshold)
    index = MinHashLSH(num_perm=_PERMUTATIONS, params=bands)
    dropped: dict[int, int] = {}
    # Most rows share no band with any other: only the rest have to be compared one after the other.
    for position in np.flatnonzero(_contested(signatures, *bands)).tolist():
        sketch.hashvalues = signatures[position]
        candidates = sorted(key for key in index.query(sketch) if isinstance(key, int))
        own = pieces(text_of(rows[position])) if candidates else None
        for earlier in _likely(candidates, signatures, signatures[position], threshold):
            near = own is not None and similarity(own, pieces(text_of(rows[earlier]))) >= threshold
            if near and not tolerated(rows[position], rows[earlier]):
                dropped[rows[position]] = rows[earlier]
                break
        else:
            index.insert(position, sketch, check_duplication=False)
    return dropped


def _signatures(order: Iterable[int], text_of: Texts, sketch: Any) -> tuple[list[int], np.ndarray]:
    """(the rows in order, their signatures [rows, permutations])."""
    rows = list(order)
    signatures = np.empty((len(rows), _PERMUTATIONS), dtype=np.uint32)
    for position, row in enumerate(rows):
        sketch.clear()
        hashed = _hashed(text_of(row))
        for start in range(0, len(hashed), _MANY):
            sketch.update_batch(hashed[start : start + _MANY].tolist())
        signatures[position] = sketch.hashvalues
    return rows, signatures


def _contested(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Whether a row has a whole band in common with another."""
    contested = np.zeros(len(signatures), dtype=bool)
    for band in range(bands):
        mixed = np.zeros(len(signatures), dtype=np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            mixed = (mixed ^ signatures[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        _, inverse, counts = np.unique(mixed, return_inverse=True, return_counts=True)
        contested |= counts[inverse] > 1
    return contested


def _likely(candidates: list[int], signatures: np.ndarray, own: np.ndarray, threshold: float) -> list[int]:
    """Candidates whose estimated similarity is not far below the threshold, the most similar first."""
    if not candidates:
        return []
    estimates = (signatures[candidates] == own).mean(axis=1)
    best = np.argsort(-estimates, kind="stable")
    return [candidates[position] for position in best if estimates[position] >= threshold - _MARGIN]
