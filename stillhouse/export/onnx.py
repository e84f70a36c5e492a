"""`export.onnx`: a torch model as one ONNX file, its graph optimized for ONNX Runtime."""

from typing import ClassVar

from pydantic import Field

from stillhouse.method import Job, Method, Metrics


class Onnx(Method):
    """Write the model as one `model.onnx` for any batch and length, check it against torch, fuse its graph.

    The outputs are `logits` and `pooled` (mean of the last hidden states over real tokens). With `data`, the check
    includes validation rows.
    """

    slots: ClassVar[dict[str, str]] = {"model": "model.torch", "data": "data?"}
    output: ClassVar[str] = "model.onnx"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "onnx", "onnxruntime")

    optimize: bool = True
    """Fuse attention, layer norms and GELU into single operations of ONNX Runtime."""
    opset: int = Field(17, ge=14, le=20)
    """Version of the ONNX operator set."""

    def run(self, job: Job) -> Metrics:
        """Fill `job.out` with `model.onnx`, `tokenizer.json`, `stillhouse.json`."""
        from stillhouse.export._onnx import export_model

        return export_model(self, job)
