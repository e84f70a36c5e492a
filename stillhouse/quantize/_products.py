"""Integer products with their scales and bias in one operation, as ONNX Runtime fuses them when the scales are dynamic.

With fixed scales it folds the two scales into one constant, no longer knows the pattern, and writes the products out
three times: as integers, as floats, scaled. `MatMulIntegerToFloat` scales and adds the bias while a tile is in cache.
"""

import onnx
from onnx import helper

DOMAIN = "com.microsoft"


def fuse_products(model: onnx.ModelProto) -> int:
    """Fuse every MatMulInteger with fixed scales, in place; returns how many."""
    graph = model.graph
    constants = {value.name: list(value.dims) for value in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {value.name for value in graph.output}
    gone: set[str] = set()
    fused: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        chain = _chain(node, readers, makers, kept)
        if chain is None:
            continue
        cast, scales, scaled = chain
        if not set(scales.input) <= set(constants):
            continue
        bias, after = _bias(scaled, readers, constants, kept)
        product = _product(node, scales, scaled.output[0], bias)
        gone |= {node.name, cast.name, scales.name, scaled.name}
        if after is not None and after.op_type == "Add":
            gone.add(after.name)
            product.output[0] = after.output[0]
        elif after is not None:  # BiasGelu: its bias is in the product now
            gone.add(after.name)
            gelu = helper.make_node("Gelu", [product.output[0]], list(after.output), name=after.name, domain=DOMAIN)
            fused[after.name] = gelu
        fused[scaled.name] = product
    nodes = [fused.get(node.name, node) for node in graph.node if node.name not in gone or node.name in fused]
    del graph.node[:]
    graph.node.extend(nodes)
    return sum(node.op_type == "MatMulIntegerToFloat" for node in fused.values())


def _chain(
    node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], makers: dict[str, onnx.NodeProto], kept: set[str]
) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto] | None:
    """What follows an integer product: the cast to float, the product of the scales, their multiplication."""
    cast = _only(readers.get(node.output[0], []), "Cast")
    scaled = _only(readers.get(cast.output[0], []), "Mul") if cast else None
    if cast is None or scaled is None or kept & {node.output[0], cast.output[0]}:
        return None
    other = next(name for name in scaled.input if name != cast.output[0])
    scales = makers.get(other)
    return (cast, scales, scaled) if scales is not None and scales.op_type == "Mul" else None


def _bias(
    scaled: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]], constants: dict[str, list[int]], kept: set[str]
) -> tuple[str, onnx.NodeProto | None]:
    """The constant that is added to the product, and the operation that adds it."""
    found = readers.get(scaled.output[0], [])
    if len(found) != 1 or found[0].op_type not in ("Add", "BiasGelu") or scaled.output[0] in kept:
        return "", None
    other = next((name for name in found[0].input if name != scaled.output[0]), "")
    return (other, found[0]) if len(constants.get(other, [])) == 1 else ("", None)


def _product(node: onnx.NodeProto, scales: onnx.NodeProto, output: str, bias: str) -> onnx.NodeProto:
    values, weights, *zeros = node.input
    zero_of_values, zero_of_weights = [*zeros, "", ""][:2]
    return helper.make_node(
        "MatMulIntegerToFloat", [values, weights, *scales.input, zero_of_values, zero_of_weights, bias], [output],
        name=f"{node.name}_to_float", domain=DOMAIN,
    )  # fmt: skip


def _only(nodes: list[onnx.NodeProto], kind: str) -> onnx.NodeProto | None:
    return nodes[0] if len(nodes) == 1 and nodes[0].op_type == kind else None
