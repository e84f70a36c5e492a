"""The int8 graph: ONNX Runtime's dynamic quantization with the traps that it has for fused transformers avoided."""

import tempfile
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from stillhouse.errors import UserError
from stillhouse.export._narrow import FIRST
from stillhouse.export._optional import make_flat, make_optional
from stillhouse.quantize._products import fuse_products
from stillhouse.quantize._static import Feed, fix_scales

if TYPE_CHECKING:
    from stillhouse.quantize.int8 import Int8

KINDS = ["MatMul", "Gemm", "Attention", "Gather", "EmbedLayerNormalization"]


def quantize_graph(
    model: Path, out: Path, settings: "Int8", feeds: Sequence[Feed] = (), kept: Collection[str] = ()
) -> list[str]:
    """Write the int8 form of file `model` to `out`; return the names of the nodes that were quantized.

    With `feeds` (inputs of the graph, from calibration rows) the scales of the activations are fixed. The nodes `kept`
    stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    loaded = onnx.load(model)
    # The quantizer does not see weights from inside a branch.
    branched = make_flat(loaded)
    graph = loaded.graph
    _check_patterns(graph, settings.exclude)
    nodes = [name for name in quantizable(graph, settings.exclude) if name not in kept]
    if not nodes:
        raise UserError("exclude leaves nothing to quantize", "shorten the list, or skip the step")
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        part = Path(scratch) / "int8.onnx"
        quantize_dynamic(
            # Not its path: shape inference would write beside the file, into the input artifact.
            loaded,
            str(part),
            op_types_to_quantize=KINDS,
            # The quantizer turns each Gemm into a MatMul of this name before it looks at the list.
            nodes_to_quantize=[*nodes, *(f"{name}_MatMul" for name in nodes)],
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            weight_type=QuantType.QInt8,
            # Shape inference stops at the fused operations; what it cannot tell is fp32.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        quantized = onnx.load(part)
        if feeds:
            fix_scales(quantized, feeds)
            fuse_products(quantized)
        if branched:
            make_optional(quantized)
        out.write_bytes(quantized.SerializeToString(deterministic=True))
    return nodes


def _check_patterns(graph: onnx.GraphProto, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(node.name, pattern) for node in graph.node):
            names = ", ".join(node.name for node in graph.node if node.op_type in KINDS)
            raise UserError(f'exclude: no node of the graph matches "{pattern}"', f"the nodes are {names}")


def layer_of(node: str) -> str:
    """A node and its twin for the first token share their weights: they are one layer, named after the first."""
    return node.removesuffix(FIRST)


def quantizable(graph: onnx.GraphProto, exclude: Sequence[str]) -> list[str]:
    """Names of the nodes with weights to quantize: neither excluded nor the classifier."""
    weights = {value.name for value in graph.initializer}
    head = _head(graph, weights)
    return [
        node.name
        for node in graph.node
        if node.op_type in KINDS
        and any(name in weights for name in node.input)
        and (node.op_type != "Gather" or node.input[0] in weights)
        and node.name != head
        and not any(fnmatchcase(node.name, pattern) for pattern in exclude)
    ]


def _head(graph: onnx.GraphProto, weights: set[str]) -> str:
    """Name of the last node with a weight matrix before `logits`: a token classifier is a MatMul like any other."""
    made_by = {output: node for node in graph.node for output in node.output}
    name = "logits"
    while name in made_by:
        node = made_by[name]
        if node.op_type in ("MatMul", "Gemm", "FusedMatMul"):
            return node.name
        name = next((value for value in node.input if value not in weights), "")
    return ""
