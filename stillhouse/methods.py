"""The table of methods: name → `module:Class`, sorted, imported on use."""

import importlib

from stillhouse.errors import UserError, nearest
from stillhouse.method import Method
from stillhouse.parsing import parsed

METHODS = {
    "calibrate.confidence": "stillhouse.calibrate.confidence:Confidence",
    "distill.hidden": "stillhouse.distill.hidden:Hidden",
    "distill.logits": "stillhouse.distill.logits:Logits",
    "distill.relations": "stillhouse.distill.relations:Relations",
    "evaluate.compare": "stillhouse.evaluate.compare:Compare",
    "export.onnx": "stillhouse.export.onnx:Onnx",
    "prepare.text": "stillhouse.data.text:Text",
    "prepare.tokens": "stillhouse.data.tokens:Tokens",
    "prune.structured": "stillhouse.prune.structured:Structured",
    "prune.vocabulary": "stillhouse.prune.vocabulary:Vocabulary",
    "quantize.int8": "stillhouse.quantize.int8:Int8",
    "release.gate": "stillhouse.release.gate:Gate",
    "select.cheapest": "stillhouse.select.cheapest:Cheapest",
    "train.stage": "stillhouse.train.stage:Stage",
}


def load_method(name: str) -> type[Method]:
    """The settings class behind `uses: name`."""
    if name not in METHODS:
        raise UserError(f'unknown method "{name}"', nearest(name, set(METHODS)))
    module, _, attribute = METHODS[name].partition(":")
    return getattr(parsed(lambda: importlib.import_module(module)), attribute)
