"""Skip what only `pooled` needs when nobody asks for it.

ONNX Runtime computes every output of a graph, asked for or not. So the operations that lead to `pooled` alone stand in
the branch of an `If` on an extra input, `with_pooled`: true by default, so that a run that does not know it gets both.
"""

import onnx
from onnx import helper

SWITCH = "with_pooled"
BRANCH = "pooled_branch"


def make_optional(model: onnx.ModelProto) -> None:
    """Move the operations that only `pooled` needs behind the switch, in place."""
    graph = model.graph
    # By output: protobuf may hand out a new object for the same node each time.
    kept = {tuple(node.output) for node in ancestors(graph, "logits")}
    inner = [node for node in ancestors(graph, "pooled") if tuple(node.output) not in kept]
    outer = [node for node in graph.node if tuple(node.output) in kept]
    hidden = next(value for value in graph.output if value.name == "pooled").type.tensor_type.shape.dim[-1].dim_value
    _rename_output(inner, "pooled", "pooled_full")
    full = helper.make_graph(inner, "full", [], [_value("pooled_full", ["batch", hidden])])
    empty = helper.make_tensor("empty", onnx.TensorProto.FLOAT, [0, hidden], [])
    constant = helper.make_node("Constant", [], ["pooled_none"], name="no_pooled", value=empty)
    none = helper.make_graph([constant], "none", [], [_value("pooled_none", [0, hidden])])
    choice = helper.make_node("If", [SWITCH], ["pooled"], name=BRANCH, then_branch=full, else_branch=none)
    del graph.node[:]
    graph.node.extend([*outer, choice])
    graph.input.append(helper.make_tensor_value_info(SWITCH, onnx.TensorProto.BOOL, []))
    graph.initializer.append(helper.make_tensor(SWITCH, onnx.TensorProto.BOOL, [], [True]))


def make_flat(model: onnx.ModelProto) -> bool:
    """Undo `make_optional` in place, for tools that look at one flat graph; False if there was nothing to undo."""
    graph = model.graph
    choice = next((node for node in graph.node if node.name == BRANCH), None)
    if choice is None:
        return False
    inner = list(next(value.g for value in choice.attribute if value.name == "then_branch").node)
    _rename_output(inner, "pooled_full", "pooled")
    graph.node.extend(inner)
    for field in (graph.node, graph.input, graph.initializer):
        place = next(index for index, value in enumerate(field) if value.name in (BRANCH, SWITCH))
        del field[place]
    return True


def ancestors(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """Nodes that `output` depends on, in the order of the graph."""
    wanted, found = {output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]


def _rename_output(nodes: list[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for place, name in enumerate(node.output):
            if name == old:
                node.output[place] = new


def _value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
