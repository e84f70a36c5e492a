"""The other ways to score texts with a fine-tuned model: the Hugging Face pipeline and sentence-transformers."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import base_model
from benchmarks.tasks_of_training import LENGTH

BATCH_SIZES = (8, 32, 64)


class HubPipeline:
    """`pipeline("text-classification")` on a `model.torch` directory, all logits returned."""

    def __init__(self, directory: Path, max_length: int = LENGTH) -> None:
        import torch
        from transformers import AutoTokenizer, TextClassificationPipeline

        from stillhouse.models import load_model
        from stillhouse.scoring import default_threads

        torch.set_num_threads(default_threads())
        tokenizer = AutoTokenizer.from_pretrained(base_model())
        self.model = load_model(directory).eval()
        self.names = [self.model.config.id2label[index] for index in range(self.model.config.num_labels)]
        self.max_length = max_length
        self.pipeline = TextClassificationPipeline(model=self.model, tokenizer=tokenizer, framework="pt", device="cpu")

    def score(self, texts: Sequence[str], batch_size: int = 1) -> np.ndarray:
        """Logits float32 [n, classes], texts in their own order as its users pass them."""
        found = self.pipeline(
            list(texts), batch_size=batch_size, top_k=None, function_to_apply="none", truncation=True,
            max_length=self.max_length,
        )  # fmt: skip
        by_name = [{one["label"]: one["score"] for one in row} for row in found]
        return np.array([[row[name] for name in self.names] for row in by_name], np.float32)

    def best_batch_size(self, texts: Sequence[str]) -> tuple[int, dict[int, float]]:
        """The fastest of BATCH_SIZES on `texts`, and the seconds of each."""
        seconds = {size: _seconds(lambda size=size: self.score(texts, size)) for size in BATCH_SIZES}
        return min(seconds, key=lambda size: seconds[size]), seconds


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


class SentenceEncoder:
    """Texts sorted by length, batches of 32, the mean of the last hidden states.

    That is sentence-transformers' `encode`, which is used itself where it is installed.
    """

    def __init__(self, max_length: int = LENGTH) -> None:
        self.name = "sentence-transformers encode"
        if importlib.util.find_spec("sentence_transformers"):
            self._encode = _installed(max_length)
        else:
            self.name += " (not installed: its way of working, with torch)"
            self._encode = _imitated(max_length)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return self._encode(list(texts))


def _installed(max_length: int) -> Callable[[list[str]], np.ndarray]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(base_model()), device="cpu")
    model.max_seq_length = max_length
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


def _imitated(max_length: int) -> Callable[[list[str]], np.ndarray]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model())
    model = AutoModel.from_pretrained(base_model()).eval()

    def encode(texts: list[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts])
        found = np.zeros((len(texts), model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), 32):
                rows = order[start : start + 32]
                feed = tokenizer(
                    [texts[row] for row in rows], padding=True, truncation=True, max_length=max_length,
                    return_tensors="pt",
                )  # fmt: skip
                hidden = model(**feed).last_hidden_state
                mask = feed["attention_mask"].unsqueeze(-1).float()
                found[rows] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return found

    return encode
