"""`select.cheapest`: out of several rungs the cheapest that is good enough."""

from typing import ClassVar

from pydantic import Field

from stillhouse.evaluate.figures import check_names
from stillhouse.method import Job, Method, Metrics


class Cheapest(Method):
    """Measure several models on the same validation rows and publish the fastest one within a budget.

    `ladder.json` has every rung's quality, size and speed, and which of them no other beats in all three; `ladder.svg`
    shows them. If no rung is within the budget, the one that loses least goes on, so that it can be compared; the gate
    refuses it.
    """

    slots: ClassVar[dict[str, str]] = {"rungs": "model.onnx+", "data": "data", "baseline": "model?"}
    output: ClassVar[str] = "model.onnx"
    libraries: ClassVar[tuple[str, ...]] = (
        "onnxruntime", "tokenizers", "torch", "transformers", "numpy", "seqeval", "matplotlib",
    )  # fmt: skip
    measures: ClassVar[bool] = True

    max_loss: float = Field(default=0.01, ge=0)
    """Largest loss of `metric` on validation, absolute (0.01 is one point), against `baseline`, else the best rung."""
    max_size_mb: float | None = Field(default=None, gt=0)
    """Largest size of model and tokenizer on the disk, in MB (10^6 bytes)."""
    max_p95_ms: float | None = Field(default=None, gt=0)
    """Longest time in which 95 % of single texts must be scored, in milliseconds."""
    metric: str | None = None
    """Metric that judges the loss; by default `f1_macro` for classification, `entity_f1` for tokens."""
    max_rows: int = Field(default=4000, ge=1)
    """Largest number of validation rows to measure on, evenly spread over the split."""
    speed_seconds: float = Field(default=3.0, gt=0, le=600)
    """Seconds of speed measurement for each model, in turns."""

    def check(self, filled: set[str]) -> None:
        check_names([self.metric] if self.metric else [], "metric")

    def run(self, job: Job) -> Metrics:
        """Fill `job.out` with the chosen model, `rung.json`, `ladder.json` and `ladder.svg`."""
        from stillhouse.select._cheapest import select_cheapest

        return select_cheapest(self, job)
