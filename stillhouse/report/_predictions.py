"""What the predictions of the test rows tell: calibration, the most confident errors, wrong entities."""

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.report._text import clip

if TYPE_CHECKING:
    from pandas import DataFrame

BINS = 10
PAIRS = 12
"""Pairs of classes of which errors are shown, the commonest first."""
EACH = 3
SENTENCES = 10
NOTHING = "(none)"
"""In the matrix of entities: no entity there."""
Z = 1.959964
"""95 % of a normal distribution."""


def look_at(frame: "DataFrame") -> dict[str, Any]:
    """`{"rows", "labels", "calibration"?, "pairs"}` of texts, `{"rows", "entities"}` of words; else empty."""
    if not len(frame) or not {"label", "predicted"} <= set(frame.columns):
        return {}
    if "words" in frame.columns:
        return {"rows": len(frame), "entities": entity_errors(frame)}
    if "text" not in frame.columns:
        return {}
    probabilities = [name for name in frame.columns if name.startswith("p_")]
    right = (frame["label"] == frame["predicted"]).to_numpy()
    found: dict[str, Any] = {"rows": len(frame), "labels": [name.removeprefix("p_") for name in probabilities]}
    confidence = frame[probabilities].to_numpy(np.float64).max(axis=1) if probabilities else None
    if confidence is not None and np.isfinite(confidence).all():
        found["calibration"] = calibrate(confidence, right)
    found["pairs"] = confident_errors(frame, right, confidence)
    return found


def calibrate(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Expected calibration error over ten equal bins (Guo et al. 2017, arXiv:1706.04599), and what is in each bin.

    `least`, `most`: Wilson's 95 % interval of the share that was right.
    """
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error, largest = [], 0.0, 0.0
    for place in range(BINS):
        mask = places == place
        rows = int(mask.sum())
        entry: dict[str, Any] = {"low": place / BINS, "high": (place + 1) / BINS, "rows": rows}
        if rows:
            sure, share = float(confidence[mask].mean()), float(right[mask].mean())
            least, most = wilson(share, rows)
            entry.update(confidence=sure, accuracy=share, least=least, most=most)
            error += rows / len(right) * abs(share - sure)
            largest = max(largest, abs(share - sure))
        bins.append(entry)
    return {
        "bins": bins, "ece": error, "largest": largest, "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
    }  # fmt: skip


def wilson(share: float, rows: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    middle = share + Z * Z / (2 * rows)
    half = Z * math.sqrt(share * (1 - share) / rows + Z * Z / (4 * rows * rows))
    scale = 1 + Z * Z / rows
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def confident_errors(frame: "DataFrame", right: np.ndarray, confidence: np.ndarray | None) -> list[dict[str, Any]]:
    """For the commonest pairs of (true, predicted) class the errors that the model was surest of."""
    wrong = np.flatnonzero(~right)
    truth, guess, texts = (frame[name].to_numpy() for name in ("label", "predicted", "text"))
    of_class = Counter(str(label) for label in truth)
    found: dict[tuple[str, str], list[int]] = {}
    for row in wrong:
        found.setdefault((str(truth[row]), str(guess[row])), []).append(int(row))
    pairs = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:PAIRS]
    listed = []
    for (label, predicted), rows in pairs:
        if confidence is not None:
            rows = sorted(rows, key=lambda row: (-confidence[row], row))
        examples = [
            {"text": clip(texts[row]), "confidence": None if confidence is None else float(confidence[row])}
            for row in rows[:EACH]
        ]
        share = len(rows) / of_class[label]
        listed.append({"label": label, "predicted": predicted, "rows": len(rows), "share": share, "examples": examples})
    return listed


def entity_errors(frame: "DataFrame") -> dict[str, Any]:
    """Counts of each kind of error, the matrix of types, and sentences with most wrong entities.

    An entity is right when its words and its type are. A predicted one that overlaps a true one of its type is a wrong
    boundary, of another type a wrong type; else it is spurious, and the true one that nothing overlaps is missed.
    """
    kinds: Counter[str] = Counter()
    matrix: Counter[tuple[str, str]] = Counter()
    sentences = []
    for words, tags, guesses in zip(frame["words"], frame["label"], frame["predicted"], strict=True):
        true, found = spans(list(tags)), spans(list(guesses))
        wrong = _compare(true, found, kinds, matrix)
        if wrong:
            sentences.append((len(wrong), {"pieces": _pieces(list(words), wrong), "errors": _say(list(words), wrong)}))
    sentences.sort(key=lambda item: -item[0])
    names = [*sorted({name for pair in matrix for name in pair} - {NOTHING}), NOTHING]
    counts = [[matrix[(true, guess)] for guess in names] for true in names]
    return {
        "kinds": dict(kinds), "names": names, "counts": counts, "wrong_sentences": len(sentences),
        "examples": [example for _, example in sentences[:SENTENCES]],
    }  # fmt: skip


Span = tuple[str, int, int]
Error = tuple[str, Span | None, Span | None]


def spans(tags: list[str]) -> list[Span]:
    """`(type, first word, one past the last)` of BIO tags, an `I-` without its `B-` read as a beginning."""
    found: list[Span] = []
    kind, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind and (mark != "I" or name != kind):
            found.append((kind, start, place))
            kind = ""
        if mark in ("B", "I") and not kind:
            kind, start = name, place
    return found


def _compare(true: list[Span], found: list[Span], kinds: Counter[str], matrix: Counter[tuple[str, str]]) -> list[Error]:
    wrong: list[Error] = []
    exact = set(true) & set(found)
    for span in exact:
        kinds["right"] += 1
        matrix[(span[0], span[0])] += 1
    left = [span for span in true if span not in exact]
    for guess in found:
        if guess in exact:
            continue
        over = [span for span in left if span[1] < guess[2] and guess[1] < span[2]]
        match = next((span for span in over if span[0] == guess[0]), over[0] if over else None)
        if match is None:
            kind = "spurious"
        else:
            left.remove(match)
            kind = "wrong boundary" if match[0] == guess[0] else "wrong type"
        kinds[kind] += 1
        matrix[(match[0] if match else NOTHING, guess[0])] += 1
        wrong.append((kind, match, guess))
    for span in left:
        kinds["missed"] += 1
        matrix[(span[0], NOTHING)] += 1
        wrong.append(("missed", span, None))
    return wrong


def _pieces(words: list[str], wrong: list[Error]) -> list[dict[str, Any]]:
    """The sentence in pieces: which words should have been marked, which were."""
    should, was = set(), set()
    for _, true, guess in wrong:
        should |= set(range(true[1], true[2])) if true else set()
        was |= set(range(guess[1], guess[2])) if guess else set()
    pieces: list[dict[str, Any]] = []
    for place, word in enumerate(words[:120]):
        kind = "both" if place in should & was else "missed" if place in should else "found" if place in was else ""
        if pieces and pieces[-1]["kind"] == kind:
            pieces[-1]["text"] += f" {clip(word, 60)}"
        else:
            pieces.append({"kind": kind, "text": clip(word, 60)})
    return pieces + ([{"kind": "", "text": f"… ({len(words) - 120} more words)"}] if len(words) > 120 else [])


def _say(words: list[str], wrong: list[Error]) -> list[dict[str, str]]:
    def name(span: Span | None) -> str:
        return f"{clip(' '.join(words[span[1] : span[2]]), 120)} ({span[0]})" if span else ""

    return [{"kind": kind, "true": name(true), "found": name(guess)} for kind, true, guess in wrong]
