"""The one way to score and embed with any model: the directory says which runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stillhouse.errors import UserError
from stillhouse.files import read_json

if TYPE_CHECKING:
    import numpy as np


class Scorer(Protocol):
    """What every runtime offers; `rows` are texts, or lists of words for token-classification."""

    problem: str
    labels: list[str]
    max_length: int
    about: dict[str, Any]
    """`stillhouse.json`."""

    def score(self, rows: Sequence[Any]) -> Any:
        """Logits in the order of `rows`: float32 [n, classes], or a list of float32 [words, tags]."""
        ...

    def embed(self, rows: Sequence[Any]) -> "np.ndarray":
        """Mean of the last hidden states over real tokens, float32 [n, hidden]."""
        ...

    def predict(self, texts: Sequence[Any]) -> list[dict[str, Any]]:
        """Labels and outcomes with probabilities, or entities with character offsets."""
        ...


def load_scorer(directory: Path, threads: int | None = None) -> Scorer:
    """The model in `directory` on `threads` CPU threads (None: all that this process may use).

    `model.onnx` runs on ONNX Runtime, anything else on torch; tokenization, batches and decoding are the same code.
    """
    for name in ("stillhouse.json", "tokenizer.json"):
        if not (directory / name).is_file():
            raise UserError(f"{directory} has no {name}", "give the directory of a model, or of a bundle")
    try:
        read_json(directory / "stillhouse.json")
    except ValueError as error:
        raise UserError(f"{directory}/stillhouse.json is not JSON: {error}", "export the model again") from None
    if (directory / "model.onnx").is_file():
        from stillhouse.scoring import OnnxScorer

        try:
            return OnnxScorer(directory, threads)
        except Exception as error:  # tokenizers and onnxruntime raise types of their own
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{directory} does not load as a model: {first[:200]}", "export it again") from error
    from stillhouse.source import check_model_directory

    check_model_directory(directory)
    try:
        from stillhouse._torch_scorer import TorchScorer
    except ModuleNotFoundError as error:
        fix = 'install the extra: pip install "stillhouse[train]"'
        raise UserError(f"{directory} is a torch model and {error.name} is not installed", fix) from error
    return TorchScorer(directory, threads)
