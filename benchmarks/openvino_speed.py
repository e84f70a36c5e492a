"""Our graphs on OpenVINO against ONNX Runtime: would an extra pay? (It is to be 1.25 times as fast.)

    pip install openvino && python -m benchmarks.openvino_speed

Result: `benchmarks/results/openvino_speed.json`. Same tokens, same batches, two threads each; only the runtime differs.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distillation import teacher
from benchmarks.harness import RESULTS, interleave, mixed_texts, ratio
from benchmarks.scoring_fp32 import onnx_model
from benchmarks.scoring_int8 import int8_model
from benchmarks.tasks_of_training import fresh_home, prepared
from stillhouse.scoring import Feed, OnnxScorer, TextScorer, default_threads

ROWS, TEXTS = 200, 1000


class OpenVinoScorer(TextScorer):
    """One stream for each core where there are many batches is OpenVINO's own `THROUGHPUT` hint; here its `LATENCY`
    one for a single request, as `forward` is called by one thread, and by several with `instances`."""

    tokens_per_batch = OnnxScorer.tokens_per_batch

    def __init__(self, directory: Path) -> None:
        import openvino

        core: Any = openvino.Core()
        threads = default_threads()
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
        self._compiled = core.compile_model(str(directory / "model.onnx"), "CPU", options)
        self._inputs = [value.get_any_name() for value in self._compiled.inputs]
        super().__init__(directory, self._run_request, 384, threads, self._run_request)

    def _run_request(self, feed: Feed, output: str) -> np.ndarray:
        given = {name: feed[name] for name in self._inputs if name in feed}
        if "with_pooled" in self._inputs:
            given["with_pooled"] = np.array(output == "pooled")
        return np.array(self._compiled.create_infer_request().infer(given)[output])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    from stillhouse.keys import library_versions
    from stillhouse.machine import fingerprint

    texts, data, found = mixed_texts(TEXTS), prepared(ROWS), {}
    with fresh_home() as home:
        # OpenVINO knows none of ONNX Runtime's fused operations: it gets the plain graph.
        plain = onnx_model(home, teacher(ROWS), data, "plain", optimize=False)
        whole = onnx_model(home, teacher(ROWS), data)
        directories = {"fp32": plain, "int8": int8_model(home, plain, data, "int8-plain")}
        ours = {"fp32": whole, "int8": int8_model(home, whole, data)}
        for name, directory in directories.items():
            theirs, mine = OpenVinoScorer(directory), OnnxScorer(ours[name])
            difference = float(np.abs(theirs.score(texts[:100]) - mine.score(texts[:100])).max())
            seconds = interleave({"onnxruntime": partial(mine.score, texts), "openvino": partial(theirs.score, texts)})
            times_as_fast = ratio(seconds, "openvino", "onnxruntime")
            found[name] = {
                "openvino_over_onnxruntime": times_as_fast, "seconds": seconds, "difference": difference
            }  # fmt: skip
            print(name, times_as_fast, f"largest difference of logits {difference:.1e}", flush=True)
    result = {
        "texts": TEXTS,
        **found,
        "machine": fingerprint(),
        "versions": library_versions(("openvino", "onnxruntime")),
    }
    (RESULTS / "openvino_speed.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
