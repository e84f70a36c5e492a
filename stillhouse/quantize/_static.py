"""Fixed activation scales for a dynamically quantized graph: a row's score no longer depends on its neighbours.

ONNX Runtime's dynamic quantization takes each activation's scale over the whole batch, padding included, anew. Here
the scales are read from the graph itself while it scores calibration rows, and become constants. Batches of many
rows see nearly the same extremes each time, so little is lost; the pass that looks for them is saved.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

DYNAMIC = "DynamicQuantizeLinear"
LEVELS = 255.0

Feed = dict[str, np.ndarray]


def fix_scales(model: onnx.ModelProto, feeds: Iterable[Feed]) -> int:
    """Replace every dynamic scale of `model` (in place) by the range seen over `feeds`; returns how many."""
    nodes = [node for node in model.graph.node if node.op_type == DYNAMIC]
    ranges = _observe(model, nodes, feeds)
    for node in nodes:
        low, high = ranges[node.output[1]]
        scale = max((high - low) / LEVELS, 1e-12)
        zero = int(np.clip(round(-low / scale), 0, LEVELS))
        quantized, scale_name, zero_name = node.output
        model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), scale_name))
        model.graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), zero_name))
        fixed = helper.make_node(
            "QuantizeLinear", [node.input[0], scale_name, zero_name], [quantized], name=node.name
        )  # fmt: skip
        node.CopyFrom(fixed)
    return len(nodes)


def _observe(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], feeds: Iterable[Feed]
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Smallest and largest value that each dynamic quantization saw, by the name of its scale."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names: list[tuple[str, str]] = [(node.output[1], node.output[2]) for node in nodes]
    known = {value.name for value in watched.graph.output}
    for scale, zero in names:
        for name, kind in ((scale, onnx.TensorProto.FLOAT), (zero, onnx.TensorProto.UINT8)):
            if name not in known:
                watched.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Not fused: a fused node would no longer have the outputs that are watched.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {value.name for value in session.get_inputs()}
    wanted = [name for pair in names for name in pair]
    ranges: dict[str, tuple[float, float]] = {scale: (0.0, 0.0) for scale, _ in names}
    for feed in feeds:
        values: Any = session.run(wanted, {name: value for name, value in feed.items() if name in inputs})
        for index, (scale_name, _) in enumerate(names):
            scale, zero = float(values[2 * index]), float(values[2 * index + 1])
            low, high = ranges[scale_name]
            ranges[scale_name] = (min(low, -zero * scale), max(high, (LEVELS - zero) * scale))
    return ranges
