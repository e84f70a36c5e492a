"""Compute the end of the last layer for the first token alone, where the logits read nothing else.

A classifier on the first token needs the last layer's feed-forward block, three quarters of its arithmetic, for one
token of each text. The graph keeps the full block for `pooled`, and runs it only when asked to.
"""

import onnx

from stillhouse.export._optional import ancestors, make_optional

BY_TOKEN = {"SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu", "FastGelu", "Add", "MatMul"}
"""Operations that make a token's output from the same token's inputs (MatMul: with a weight)."""
FIRST = "_first"
"""Ends the name of a copy that runs on the first token alone."""


def narrow(model: onnx.ModelProto) -> int:
    """Rewrite `model` in place; return how many operations now run on the first token alone (0: nothing to gain)."""
    graph = model.graph
    weights = {value.name for value in graph.initializer}
    first = _first_token(graph)
    if first is None:
        return 0
    narrowed = _narrowable(graph, first, weights)
    if not narrowed:
        return 0
    index = onnx.helper.make_tensor("first_token", onnx.TensorProto.INT64, [1], [0])
    graph.initializer.append(index)
    made: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output == first.output:
            first.input[0] = made[first.input[0]]
        nodes.append(node)
        if node.name in narrowed:
            nodes += _clone(node, weights, made)
    del graph.node[:]
    graph.node.extend(nodes)
    make_optional(model)
    return len(narrowed)


def _clone(node: onnx.NodeProto, weights: set[str], made: dict[str, str]) -> list[onnx.NodeProto]:
    """`node` on first tokens, [batch, 1, width], behind the Gather of each input that is still whole."""
    before: list[onnx.NodeProto] = []
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = f"{node.name}{FIRST}"
    for place, name in enumerate(node.input):
        if not name or name in weights:
            continue
        if name not in made:
            made[name] = f"{name}_first"
            gather = ("Gather", [name, "first_token"], [made[name]])
            before.append(onnx.helper.make_node(*gather, name=f"{made[name]}_gather", axis=1))
        copy.input[place] = made[name]
    for place, name in enumerate(node.output):
        if name:
            made[name] = f"{name}_first"
            copy.output[place] = made[name]
    return [*before, copy]


def _first_token(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The Gather of token 0 that `logits` reads, if there is one."""
    constants = {value.name: value for value in graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant" and node.attribute
    }
    for node in ancestors(graph, "logits"):
        if node.op_type != "Gather" or node.input[1] not in constants:
            continue
        axis = next((value.i for value in node.attribute if value.name == "axis"), 0)
        index = onnx.numpy_helper.to_array(constants[node.input[1]])
        if axis == 1 and index.size == 1 and int(index.reshape(-1)[0]) == 0:
            return node
    return None


def _narrowable(graph: onnx.GraphProto, first: onnx.NodeProto, weights: set[str]) -> set[str]:
    """Names of the by-token operations whose outputs reach the logits through `first` only."""
    needed = ancestors(graph, "logits")
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in needed:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    narrowed: set[str] = set()
    for node in reversed(needed):
        found = [reader for name in node.output for reader in readers.get(name, [])]
        inside = all(reader.output == first.output or reader.name in narrowed for reader in found)
        if node.name and found and inside and _is_by_token(node, weights):
            narrowed.add(node.name)
    return narrowed if any(name in narrowed for name in _makers(graph, first.input[0])) else set()


def _is_by_token(node: onnx.NodeProto, weights: set[str]) -> bool:
    if node.op_type not in BY_TOKEN:
        return False
    return node.op_type != "MatMul" or (node.input[1] in weights and node.input[0] not in weights)


def _makers(graph: onnx.GraphProto, name: str) -> list[str]:
    return [node.name for node in graph.node if name in node.output]
