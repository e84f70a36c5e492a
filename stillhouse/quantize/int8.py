"""`quantize.int8`: 8-bit weights and activations with ONNX Runtime, kept only if it pays."""

from typing import ClassVar, Literal

from pydantic import Field

from stillhouse.evaluate.figures import check_names
from stillhouse.method import Job, Method, Metrics


class Int8(Method):
    """Make a model about four times smaller and faster on CPU: int8 weights and activations.

    Weights, embeddings included, are signed 8-bit; activations unsigned 8-bit; the last matrix, which makes the logits,
    stays in 32 bits. The result is measured on validation rows. If it loses more than `accept_loss`, the few
    layers that int8 hurts most stay in 32 bits too; if that does not help, or it is not faster, the step publishes its
    input model unchanged and `rung.json` says why.
    """

    slots: ClassVar[dict[str, str]] = {"model": "model.onnx", "data": "data", "baseline": "model?"}
    output: ClassVar[str] = "model.onnx"
    libraries: ClassVar[tuple[str, ...]] = (
        "onnx", "onnxruntime", "tokenizers", "torch", "transformers", "numpy", "seqeval",
    )  # fmt: skip

    accept_loss: float = Field(0.01, ge=0)
    """Largest loss of `metric` on validation, absolute (0.01 is one point), against `baseline`, or the input model."""
    metric: str | None = None
    """Metric that judges the loss; by default `f1_macro` for classification, `entity_f1` for tokens."""
    min_speedup: float = Field(1.0, ge=0)
    """Reject when the speed over the input model's is certainly below this (its whole interval); 0: size is enough. The
    verdict is that of the machine which ran the step, and goes along with the store."""
    activations: Literal["static", "dynamic"] = "static"
    """Scales of the activations: `static`, fixed from 512 training rows, so that a row's score does not depend on its
    neighbours; or `dynamic`, taken over each batch anew."""
    per_channel: bool = True
    """One scale for each column of a weight matrix instead of one for the whole: smaller errors at the same speed."""
    reduce_range: bool = True
    """Use 7 of the 8 bits of a weight. Without it, CPUs that lack VNNI instructions overflow and predict wrongly."""
    exclude: tuple[str, ...] = ()
    """Names of graph nodes to leave in 32 bits, as patterns: `/encoder/layer.0/*`."""
    fallback_layers: int = Field(2, ge=0)
    """Where the loss is above `accept_loss`: the most matrices that may stay in 32 bits to bring it below it."""
    max_rows: int = Field(4000, ge=1)
    """Largest number of validation rows to measure on, evenly spread over the split."""
    speed_seconds: float = Field(1.0, gt=0, le=600)
    """Seconds of speed measurement for each model; the comparison of both takes about seven times as long."""

    def check(self, filled: set[str]) -> None:
        check_names([self.metric] if self.metric else [], "metric")

    def run(self, job: Job) -> Metrics:
        """Fill `job.out` with the accepted model and `rung.json`."""
        from stillhouse.quantize._int8 import quantize_model

        return quantize_model(self, job)
