"""Score and embed texts with a model directory: numpy, tokenizers and onnxruntime, nothing else.

This file travels in every bundle and works there alone: `python scoring.py "a text"` prints JSON, and
`OnnxScorer(directory).predict([...])` is the same from Python.
"""

import json
import math
import os
import re
import sys
import threading
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

Feed = dict[str, np.ndarray]
Form = Literal["NFC", "NFKC"] | None
Forward = Callable[[Feed, str], np.ndarray]
"""`forward({"input_ids", "attention_mask", "token_type_ids"} [batch, length], "logits" | "pooled") -> float32`."""
Chunk = tuple[Any, list[list[int]]]
"""Token ids of some rows, and what is needed to find those rows again."""

ROWS_AT_ONCE = 1024
"""Rows that are tokenized and sorted together; bounds the memory for inputs of any size."""
UNSURE = "unsure"
BATCHES_AHEAD = 8
"""Batches for each instance that may wait or be done: enough work while the next rows are tokenized."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_WHOLE = re.compile(r"(?:https?://|www\.|[@#]\w)\S*")
_CLITIC = re.compile(r"(?<=\w)(?:n['’]t|['’](?:s|m|d|re|ve|ll))$", re.IGNORECASE)


def default_threads() -> int:
    """`OMP_NUM_THREADS`, else the cores this process may use: its affinity, or its container's quota where less."""
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def as_text(value: Any) -> str:
    """A cell as a text; a missing value is empty."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def clean(value: Any) -> str:
    """A cell as a text that any tokenizer takes and whose offsets stay: half a surrogate pair is U+FFFD."""
    text = as_text(value)
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def normal(value: Any, form: Form) -> str:
    """A cell as a text in the form of the training texts: the rules of data preparation, stated again here.

    Again, because this file must work without any other; a test compares the two.
    """
    text = as_text(value)
    if not text.isascii():
        if _SURROGATES.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if form:
            text = unicodedata.normalize(form, text)
    return " ".join(_INVISIBLE.sub("", text).split())


def as_list(rows: Any) -> Sequence[Any]:
    """What may be iterated once only as a list; one text alone is a mistake that would score its letters."""
    if isinstance(rows, str | bytes):
        raise TypeError("give a list of texts, not one text")
    return rows if hasattr(rows, "__len__") else list(rows)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def decide(logits: np.ndarray, labels: list[str], about: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [n, classes], the index of each row's label, and whether it is sure: by the model's `about`.

    `temperature` divides the logits (Guo et al. 2017, arXiv:1706.04599). With `thresholds` the label wins whose
    probability is largest relative to its threshold, so that two labels with t and 1 - t give the usual cut at t; a
    label not named has 1 / classes. A row is unsure whose label has less than that label's `unsure_below`.
    """
    probabilities = softmax(logits / (about.get("temperature") or 1.0))
    relative, cuts = about.get("thresholds") or {}, about.get("unsure_below") or {}
    shares = [max(relative.get(label, 1 / len(labels)), 1e-9) for label in labels] if relative else 1.0
    chosen = (probabilities / shares).argmax(axis=-1)
    least = np.array([cuts.get(label, 0.0) for label in labels])
    return probabilities, chosen, probabilities[np.arange(len(chosen)), chosen] >= least[chosen]


def plan_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indexes of `lengths` in batches, longest first, at most `budget` padded tokens each; the same every time."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


class TextScorer:
    """Tokenization, batching and decoding around one `forward`; the runtime behind it is the only difference.

    Where there is work for several, `instances` threads call `alone` (as `forward`, on one core) with a batch each,
    while the next rows are tokenized: cores that work on batches of their own need not wait for each other.
    """

    tokens_per_batch = 1024
    """Padded tokens in one forward pass: large enough to fill the cores, small enough to stay in their caches."""

    def __init__(
        self, directory: str | Path, forward: Forward, hidden: int, instances: int = 1, alone: Forward | None = None
    ) -> None:
        from tokenizers import Tokenizer

        directory = Path(directory)
        about = self.about = json.loads((directory / "stillhouse.json").read_text(encoding="utf-8"))
        self.problem: str = about["problem"]
        self.labels: list[str] = about["labels"]
        self.max_length: int = about["max_length"]
        self.normalize: Form = about.get("normalize")
        self.hidden = hidden
        self.forward = forward
        self.instances = instances if alone else 1
        self.alone = alone or forward
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)
        found = (self._tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>", "<PAD>"))
        self._pad = next((token for token in found if token is not None), 0)

    def score(self, rows: Sequence[Any]) -> Any:
        """Logits in the order of `rows`: texts -> float32 [n, classes]; lists of words -> a list of [words, tags]."""
        rows = as_list(rows)
        if self.problem == "token-classification":
            return self._score_words(rows)
        logits = np.zeros((len(rows), len(self.labels)), np.float32)
        for start, batch, values in self._run(self._texts(rows), "logits"):
            logits[[start + index for index in batch]] = values
        return logits

    def embed(self, rows: Sequence[Any]) -> np.ndarray:
        """Mean of the last hidden states over real tokens, float32 [n, hidden]."""
        rows = as_list(rows)
        pooled = np.zeros((len(rows), self.hidden), np.float32)
        if self.problem == "token-classification":
            weight = np.zeros((len(rows), 1), np.float32)
            for windows, batch, values in self._run(self._windows(rows), "pooled"):
                for index, value in zip(batch, values, strict=True):
                    row, _, tokens, _ = windows[index]
                    pooled[row] += value * tokens
                    weight[row] += tokens
            return pooled / np.maximum(weight, 1)
        for start, batch, values in self._run(self._texts(rows), "pooled"):
            pooled[[start + index for index in batch]] = values
        return pooled

    def predict(self, texts: Sequence[Any]) -> list[dict[str, Any]]:
        """Each text's label, outcome ("unsure", or the label) and probabilities; or entities with character offsets."""
        texts = as_list(texts)
        if self.problem == "token-classification":
            cleaned = [clean(text) for text in texts]
            found = [split_words(text) for text in cleaned]
            scores = self.score([[text[s:e] for s, e in words] for text, words in zip(cleaned, found, strict=True)])
            return [
                {"entities": self._entities(text, words, logits)}
                for text, words, logits in zip(cleaned, found, scores, strict=True)
            ]
        rows = zip(*decide(self.score(texts), self.labels, self.about), strict=True)
        named = ((self.labels[i], sure, zip(self.labels, map(float, row), strict=True)) for row, i, sure in rows)
        return [
            {"label": label, "outcome": label if sure else UNSURE, "probabilities": dict(pairs)}
            for label, sure, pairs in named
        ]

    def _run(self, chunks: Iterator[Chunk], output: str) -> Iterator[tuple[Any, list[int], np.ndarray]]:
        """(the chunk's own, indexes in the chunk, scores) of every batch."""
        batches = (
            (own, batch, self._feed(pieces, batch))
            for own, pieces in chunks
            for batch in plan_batches([*map(len, pieces)], self.tokens_per_batch)
        )
        first = list(islice(batches, 2 * self.instances))
        if self.instances == 1 or len(first) < 2 * self.instances:
            for own, batch, feed in chain(first, batches):
                yield own, batch, self.forward(feed, output)
            return
        running: deque[tuple[Any, list[int], Future[np.ndarray]]] = deque()
        pool = ThreadPoolExecutor(self.instances)
        try:
            for own, batch, feed in chain(first, batches):
                running.append((own, batch, pool.submit(self.alone, feed, output)))
                if len(running) > BATCHES_AHEAD * self.instances:
                    own, batch, scores = running.popleft()
                    yield own, batch, scores.result()
            for own, batch, scores in running:
                yield own, batch, scores.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _feed(self, pieces: list[list[int]], batch: list[int]) -> Feed:
        ids = np.full((len(batch), len(pieces[batch[0]])), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for row, index in enumerate(batch):
            ids[row, : len(pieces[index])] = pieces[index]
            mask[row, : len(pieces[index])] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}

    def _texts(self, rows: Sequence[Any]) -> Iterator[Chunk]:
        """The own of a chunk: its first row."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            texts = [normal(text, self.normalize) for text in rows[start : start + ROWS_AT_ONCE]]
            yield start, [piece.ids or [self._pad] for piece in self._tokenizer.encode_batch_fast(texts)]

    def _score_words(self, rows: Sequence[Any]) -> list[np.ndarray]:
        # A word that leaves no token (a control character) is outside every entity.
        outside = np.zeros(len(self.labels), np.float32)
        outside[self.labels.index("O") if "O" in self.labels else 0] = 10
        logits = [np.tile(outside, (len(words), 1)) for words in rows]
        for windows, batch, values in self._run(self._windows(rows), "logits"):
            for index, value in zip(batch, values, strict=True):
                row, first_word, _, firsts = windows[index]
                for word, position in firsts.items():
                    logits[row][first_word + word] = value[position]
        return logits

    def _windows(self, rows: Sequence[Any]) -> Iterator[Chunk]:
        """The own of a chunk: of each window (row, its first word, tokens, {word: position of its first token});
        no window overlaps.
        """
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = [[normal(word, self.normalize) for word in words] for words in rows[start : start + ROWS_AT_ONCE]]
            whole = self._tokenizer.encode_batch(chunk, is_pretokenized=True)
            spans: list[tuple[int, int, Any]] = []
            for row, encoding in enumerate(whole):
                if not encoding.overflowing:
                    spans.append((row, 0, encoding))
                    continue
                cuts = self._cuts(chunk[row])
                parts = [chunk[row][first:last] for first, last in cuts]
                windows = self._tokenizer.encode_batch(parts, is_pretokenized=True)
                spans += [(row, first, window) for (first, _), window in zip(cuts, windows, strict=True)]
            pieces = [window.ids or [self._pad] for _, _, window in spans]
            yield (
                [
                    (start + row, first, len(ids), _firsts(window))
                    for (row, first, window), ids in zip(spans, pieces, strict=True)
                ],
                pieces,
            )

    def _cuts(self, words: list[str]) -> list[tuple[int, int]]:
        """Word ranges that each fit into `max_length` tokens; a word that alone does not is cut by the tokenizer."""
        special = len(self._tokenizer.encode([], is_pretokenized=True).ids)
        sizes = [
            len(word.ids) - special for word in self._tokenizer.encode_batch([[w] for w in words], is_pretokenized=True)
        ]
        cuts, first, used = [], 0, special
        for index, size in enumerate(sizes):
            if used + size > self.max_length and index > first:
                cuts.append((first, index))
                first, used = index, special
            used += size
        return [*cuts, (first, len(words))]

    def _entities(self, text: str, words: list[tuple[int, int]], logits: np.ndarray) -> list[dict[str, Any]]:
        if not words:
            return []
        probabilities = softmax(logits / (self.about.get("temperature") or 1.0))
        tags = [self.labels[tag] for tag in probabilities.argmax(axis=-1)]
        entities = []
        for label, first, last in entity_spans(tags):
            start, end = words[first][0], words[last][1]
            score = float(probabilities[first : last + 1].max(axis=-1).mean())
            entities.append({"text": text[start:end], "label": label, "start": start, "end": end, "score": score})
        return entities


def _firsts(encoding: Any) -> dict[int, int]:
    places = [(word, position) for position, word in enumerate(encoding.word_ids) if word is not None]
    return dict(reversed(places))


def split_words(text: str) -> list[tuple[int, int]]:
    """(start, end) of the words of a raw text, cut as annotated corpora are: signs around a word apart, `n't` and `'s`
    too; addresses, @names and #tags whole, and whatever stands inside a word.
    """
    words: list[tuple[int, int]] = []
    for found in re.finditer(r"\S+", text):
        start, end = found.span()
        while start < end and _is_sign(text[start]) and not _WHOLE.match(text, start, end):
            words.append((start, start + 1))
            start += 1
        signs = []
        while start < end and _is_sign(text[end - 1]):
            end -= 1
            signs.append((end, end + 1))
        clitic = _CLITIC.search(text, start, end)
        if clitic and clitic.start() > start:
            words.append((start, clitic.start()))
            start = clitic.start()
        if start < end:
            words.append((start, end))
        words += signs[::-1]
    return words


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def entity_spans(tags: list[str]) -> list[tuple[str, int, int]]:
    """(label, first word, last word) of each entity in BIO `tags`; an I- that continues nothing begins one."""
    spans: list[tuple[str, int, int]] = []
    before = ""
    for index, tag in enumerate(tags):
        kind, _, label = tag.partition("-") if tag[:2] in ("B-", "I-") else ("I", "", "" if tag == "O" else tag)
        if label and kind == "I" and label == before:
            spans[-1] = (label, spans[-1][1], index)
        elif label:
            spans.append((label, index, index))
        before = label
    return spans


class OnnxScorer(TextScorer):
    """A `model.onnx` directory or bundle on ONNX Runtime, on `threads` CPU threads (None: all this process may use).

    Few rows share all threads, many are scored by an instance on each: a second session, made when first needed.
    """

    tokens_per_batch = 512
    slower = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion")
    """Optimizations of ONNX Runtime that cost time on a CPU: a layer norm in one with the sum before it."""

    def __init__(self, directory: str | Path, threads: int | None = None) -> None:
        self._model = str(Path(directory) / "model.onnx")
        threads = threads or default_threads()
        self._session = self._load(threads)
        self._session_alone: Any = None
        self._loading = threading.Lock()
        self._inputs = [value.name for value in self._session.get_inputs()]
        # A graph may offer to leave out what only `pooled` needs; its default is to compute both outputs.
        self._optional = any(value.name == "with_pooled" for value in self._session.get_overridable_initializers())
        shapes = {value.name: value.shape for value in self._session.get_outputs()}
        hidden, together = int(shapes["pooled"][-1]), partial(self._run_session, self._session)
        super().__init__(directory, together, hidden, threads, self._run_alone)

    def _load(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            self._model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(self.slower)
        )

    def _run_alone(self, feed: Feed, output: str) -> np.ndarray:
        with self._loading:
            self._session_alone = self._session_alone or self._load(1)
        return self._run_session(self._session_alone, feed, output)

    def _run_session(self, session: Any, feed: Feed, output: str) -> np.ndarray:
        given = {name: feed[name] for name in self._inputs}
        if self._optional:
            given["with_pooled"] = np.array(output == "pooled")
        return np.asarray(session.run([output], given)[0])


def main(texts: list[str]) -> None:
    """Print one JSON line for each text, or for each line of the standard input when there is none."""
    scorer = OnnxScorer(Path(__file__).resolve().parent)
    for result in scorer.predict(texts or [line.rstrip("\n") for line in sys.stdin]):
        print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
