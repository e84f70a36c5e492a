"""`calibrate.confidence`: probabilities that mean what they say, and an "unsure" for what is too close to call."""

from typing import Annotated, ClassVar

from pydantic import Field

from stillhouse.errors import UserError
from stillhouse.method import Job, Method, Metrics

Share = Annotated[float, Field(gt=0, le=1)]


class Confidence(Method):
    """Calibrate a model on validation rows; its labels stay as they are, its probabilities and outcomes change.

    One temperature divides all logits (Guo et al. 2017, arXiv:1706.04599). With `target_accuracy` a text whose label is
    less probable than a cut gets the outcome "unsure"; figures of quality still count its label.
    """

    slots: ClassVar[dict[str, str]] = {"data": "data", "model": "model.onnx"}
    output: ClassVar[str] = "model.onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "tokenizers")

    target_accuracy: Share | None = None
    """Accuracy that the sure rows are to have on validation; the cut is the smallest that reaches it."""
    per_label: bool = False
    """A cut of its own for each predicted label, so that each of them reaches `target_accuracy`."""
    min_coverage: Share = 0.2
    """Share of rows that stay sure even where `target_accuracy` is not reached."""
    max_rows: int = Field(5000, ge=50)
    """Validation rows used at most, evenly spread."""
    smooth_half_life: float | None = Field(None, gt=0)
    """For streams: batch prediction adds the mean of the probabilities over the rows so far, where a row counts half
    after so many others."""
    smooth_by: str | None = None
    """Column whose values are streams of their own, for example a topic; without it a file is one stream."""

    def check(self, filled: set[str]) -> None:
        if self.smooth_by and self.smooth_half_life is None:
            raise UserError("smooth_by says nothing without smooth_half_life", "Set both, or neither")
        if self.per_label and self.target_accuracy is None:
            raise UserError("per_label says nothing without target_accuracy", "Set both, or neither")

    def run(self, job: Job) -> Metrics:
        from stillhouse.calibrate._confidence import calibrate

        return calibrate(self, job)
