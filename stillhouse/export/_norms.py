"""Layer norms as ONNX Runtime computes them fastest: a sum and a norm, not both in one operation.

Its fused `SkipLayerNormalization` takes about four times as long on a CPU as the sum and the norm apart, which are
vectorized (measured with ONNX Runtime 1.31; docs/lab-log.md).
"""

import onnx
from onnx import helper

FUSED = "SkipLayerNormalization"


def split_norms(model: onnx.ModelProto) -> int:
    """Replace each fused norm by its parts, in place; returns how many."""
    products = {name for node in model.graph.node if node.op_type == "MatMul" for name in node.output}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        if node.op_type != FUSED or any(node.output[1:]):  # somebody reads the sum: left as it is
            nodes.append(node)
            continue
        nodes += _parts(node, products)
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return count


def _parts(node: onnx.NodeProto, products: set[str]) -> list[onnx.NodeProto]:
    """Inputs of the fused norm: two that are added, scale, shift or "", bias or ""."""
    values, skip, scale, *rest = node.input
    if skip in products:  # the bias belongs to the product, where a quantizer finds it
        values, skip = skip, values
    shift, bias = [*rest, "", ""][:2]
    made: list[onnx.NodeProto] = []
    if bias:
        made.append(helper.make_node("Add", [values, bias], [f"{node.name}_biased"], name=f"{node.name}_bias"))
        values = f"{node.name}_biased"
    made.append(helper.make_node("Add", [values, skip], [f"{node.name}_sum"], name=f"{node.name}_skip"))
    norm = helper.make_node(
        "LayerNormalization", [f"{node.name}_sum", scale, *([shift] if shift else [])], [node.output[0]],
        name=node.name, axis=-1,
    )  # fmt: skip
    norm.attribute.extend(value for value in node.attribute if value.name == "epsilon")
    return [*made, norm]
