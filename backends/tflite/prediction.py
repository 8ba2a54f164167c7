"""What a model becomes in a .tflite file, told without writing it: which nodes have no form, which run in integers."""

import numpy as np

from zc.backends.base import Prediction
from zc.backends.rules import Violation
from zc.backends.tflite.flat import FlatGraph
from zc.backends.tflite.legalise import find_shapes, legalise
from zc.backends.tflite.lower import lower
from zc.backends.tflite.lowering import NoForm
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.ir.quantised import is_quantised

SOURCE = "TensorFlow Lite schema version 3 and LiteRT's kernels"


def refusals(model: Model) -> list[Violation]:
    """One violation for each node of the legalised model that has no form in the file, in graph order."""
    found: list[NoForm] = []
    ready = find_shapes(legalise(model))
    try:
        lower(ready, "check", found.append)
    except NoForm as err:
        found.append(err)
    return [Violation(one.rule, describe(one.node), f"{one.node.op}: {one.why}", SOURCE, one.advice) for one in found]


def predict(model: Model, graph: FlatGraph) -> Prediction:
    """Which nodes run in integers, and which compute in float although the model is quantised."""
    integer: dict[str, None] = {}
    floats: dict[str, str] = {}
    between = is_quantised(model)
    for op in graph.ops:
        if op.code in {"QUANTIZE", "DEQUANTIZE"}:
            continue
        if any(t.quant is not None for t in op.outputs):
            integer[op.origin] = None
        elif between and any(t.dtype == np.float32 for t in op.outputs):
            floats[op.origin] = f"{op.code} on float32: what it reads or puts out has no codes around it"
    return Prediction(tuple(integer), (), tuple((k, v) for k, v in floats.items() if k not in integer))
