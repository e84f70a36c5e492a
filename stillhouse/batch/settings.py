"""What a batch prediction is asked to do, and with which model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.keys import file_digest, library_versions

MODEL_FILES = ("model.onnx", "model.safetensors", "tokenizer.json", "stillhouse.json")
LIBRARIES = ("onnxruntime", "tokenizers", "numpy", "stillhouse")


@dataclass(frozen=True)
class Settings:
    """All but the model, the input and the output."""

    text: str = "text"
    """Column with the text."""
    id: str | None = None
    """Column that tells rows apart, for labels that come later; without it rows get a `prediction_id`."""
    topic: str | None = None
    """Column with the topic, for the log; smoothing by a topic uses it too."""
    time: str | None = None
    """Column with the time of a row (ISO 8601, UTC unless it names a zone, or epoch seconds); else its prediction."""
    chunk_rows: int = 10_000
    """Rows that are predicted, written and logged at a time: what a kill may cost, and what memory holds."""
    log: bool = True
    """Add the rows to the prediction log of a registered model."""
    keep_texts: bool = True
    """Whether the log holds the texts; otherwise their embeddings, so that drift can still be measured."""


@dataclass(frozen=True)
class Model:
    """One version of a model; `name` and `version` only where it is registered."""

    directory: Path
    spec: str
    name: str | None = None
    version: int | None = None

    @property
    def title(self) -> str:
        return f"{self.name}/{self.version}" if self.name else str(self.directory)

    def digest(self) -> dict[str, str]:
        """sha256 of its files."""
        found = (self.directory / name for name in MODEL_FILES)
        return {path.name: file_digest(path) for path in found if path.is_file()}


def identity(model: Model, input_digest: str, suffix: str, settings: Settings) -> dict[str, Any]:
    """Everything that the output depends on: equal identities, equal files."""
    return {
        "input": input_digest, "model": {"title": model.title, "files": model.digest()},
        "settings": {**asdict(settings), "format": suffix}, "libraries": library_versions(LIBRARIES),
    }  # fmt: skip
