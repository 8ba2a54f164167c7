"""What the Edge TPU's compiler will map: the first operator that breaks it, and why."""

from dataclasses import replace

import numpy as np
import pytest

from zc.backends.tflite.edgetpu import BACKEND, CACHE, breaks, mapping_breaks
from zc.backends.tflite.flat import FlatGraph, FlatOp, FlatTensor, Quant
from zc.data.synthetic import synthesize
from zc.ir.model import Model, from_text
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context


def net(tail: str = "y = Softmax (f)", shape: str = "1,3,8,8") -> Model:
    model = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{shape}] x, float[8,3,3,3] w, float[8,8,3,3] v) => (float[1,288] y) {{
            a = Conv <pads=[1,1,1,1]> (x, w)
            b = Relu (a)
            c = Conv (b, v)
            f = Flatten (c)
            {tail}
        }}""")
    rng = np.random.default_rng(0)
    for tensor in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(tensor)
        tensor.to_constant((rng.normal(size=tensor.shape) / 4).astype(np.float32))
    return model


def int8(model: Model) -> Model:
    options = Quantize(rounding="nearest", equalize=False, guard=False)
    options.run(model, Context(BACKEND.target, synthesize(model.inputs, 8, seed=1)))
    return model


def test_everything_is_put_into_integers_to_the_last_operator() -> None:
    model = int8(net())
    assert BACKEND.check(model) == []
    graph = BACKEND.flat(model).graph
    assert [t.dtype.name for t in (*graph.inputs.values(), *graph.outputs.values())] == ["int8", "int8"]
    assert len(BACKEND.predict(model).integer) >= 3


def test_a_float_model_is_refused() -> None:
    found = BACKEND.check(net())
    assert (found[0].rule, found[0].severity) == ("float", "error")
    assert "quantise with --target edgetpu" in found[0].fix


def test_the_first_operator_that_breaks_the_mapping_is_told() -> None:
    found = BACKEND.check(int8(net("g = Erf (f) y = Softmax (g)")))
    assert (found[0].rule, found[0].severity) == ("float", "slow")
    assert "the first that breaks the mapping" in found[0].what
    assert all("on the CPU" in one.what for one in found)


def test_open_sizes_do_not_map() -> None:
    found = BACKEND.check(int8(net(shape="N,3,8,8")))
    assert [(one.rule, one.node) for one in found] == [("open-size", "x")]
    assert "--shape x=" in found[0].fix


def tensor(*shape: int, data: np.ndarray | None = None) -> FlatTensor:
    return FlatTensor("t", shape, np.dtype(np.int8), Quant.of(0.1, 0), data)


def ints(*values: int) -> FlatTensor:
    return FlatTensor("i", (len(values),), np.dtype(np.int32), None, np.array(values, np.int32))


def weight(*shape: int) -> FlatTensor:
    return tensor(*shape, data=np.ones(shape, np.int8))


def op(code: str, inputs: list[FlatTensor], *out: int, **options: int | str) -> FlatOp:
    return FlatOp(code, list(inputs), [tensor(*out)], dict(options), "n")


def pads(axis: int) -> FlatTensor:
    widths = np.zeros((4, 2), np.int32)
    widths[axis, 1] = 3
    return FlatTensor("p", (4, 2), np.dtype(np.int32), None, widths)


IMAGE, KERNEL, BIAS = tensor(1, 8, 8, 4), weight(8, 3, 3, 4), weight(8)
BROKEN = {
    "dimensions": (op("ADD", [tensor(2, 4, 4, 8)] * 2, 2, 4, 4, 8), "three innermost"),
    "dilation": (
        op("CONV_2D", [IMAGE, KERNEL, BIAS], 1, 4, 4, 8, dilationHFactor=2, dilationWFactor=1),
        "dilations",
    ),
    "computed weight": (op("CONV_2D", [IMAGE, tensor(8, 3, 3, 4), BIAS], 1, 6, 6, 8), "at run time"),
    "computed factor": (op("FULLY_CONNECTED", [tensor(1, 8), tensor(3, 8)], 1, 3), "at run time"),
    "pool with activation": (
        op("MAX_POOL_2D", [IMAGE], 1, 4, 4, 4, fusedActivationFunction="RELU"),
        "is fused into it",
    ),
    "rows": (op("FULLY_CONNECTED", [tensor(4, 8), weight(3, 8)], 4, 3), "more than one dimension"),
    "mean of six channels": (op("MEAN", [tensor(1, 4, 4, 6), ints(3)], 1, 4, 4, 1), "no multiple of 4"),
    "pad of the batch": (op("PAD", [tensor(1, 4, 4, 8), pads(0)], 1, 4, 4, 8), "it pads the batch"),
    "split of the batch": (op("SPLIT", [ints(0), IMAGE], 1, 8, 8, 4), "it splits the batch"),
    "steps": (op("STRIDED_SLICE", [tensor(1, 8), ints(0, 0), ints(1, 8), ints(1, 2)], 1, 4), "steps are not 1"),
    "likelihoods of rows": (op("SOFTMAX", [tensor(4, 8)], 4, 8), "more than one dimension"),
    "likelihoods of many": (op("SOFTMAX", [tensor(1, 20000)], 1, 20000), "16,000"),
    "operator": (op("GATHER", [tensor(8), ints(1)], 1), "no such operator"),
    "constant": (op("CONCATENATION", [tensor(1, 2), tensor(1, 2, data=np.ones((1, 2), np.int8))], 1, 4), "not zero"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_forms_that_do_not_map(case: str) -> None:
    one, why = BROKEN[case]
    assert why in (breaks(one) or "")


MAPPED = {
    "mean of eight channels": op("MEAN", [tensor(1, 4, 4, 8), ints(3)], 1, 4, 4, 1),
    "pad of channels": op("PAD", [tensor(1, 4, 4, 8), pads(3)], 1, 4, 4, 11),
    "split of channels": op("SPLIT", [ints(3), IMAGE], 1, 8, 8, 2),
    "squared difference": op("SQUARED_DIFFERENCE", [IMAGE, IMAGE], 1, 8, 8, 4),
    "convolution": op("CONV_2D", [IMAGE, KERNEL, BIAS], 1, 6, 6, 8),
    "transposed convolution": op("TRANSPOSE_CONV", [ints(1, 8, 8, 8), KERNEL, IMAGE, BIAS], 1, 8, 8, 8),
}


@pytest.mark.parametrize("case", MAPPED)
def test_forms_that_map(case: str) -> None:
    assert breaks(MAPPED[case]) is None


def test_weights_beyond_the_chip_are_told() -> None:
    data, out = tensor(1, 1024), tensor(1, CACHE // 1024 + 1)
    weight = tensor(CACHE // 1024 + 1, 1024, data=np.zeros((CACHE // 1024 + 1, 1024), np.int8))
    graph = FlatGraph("g", [FlatOp("FULLY_CONNECTED", [data, weight], [out], {}, "n")], {"x": data}, {"y": out})
    assert [one.rule for one in mapping_breaks(graph)] == ["memory"]


def test_codes_at_the_ends_are_the_default() -> None:
    assert (BACKEND.io, replace(BACKEND, io="float").io) == ("int8", "float")
