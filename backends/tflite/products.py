"""Matrix products: FULLY_CONNECTED where one factor is a constant matrix, else BATCH_MATMUL."""

import numpy as np

from zc.backends.tflite.codes import bias_codes, weight_codes
from zc.backends.tflite.convolutions import zeros_or
from zc.backends.tflite.flat import FlatTensor, Quant
from zc.backends.tflite.layout import Layout, plain
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Array, Node, Tensor, attribute


def gemm(lowering: Lowering, node: Node) -> None:
    """Gemm. Alpha and beta are folded into constants."""
    a, b = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    across, down = bool(attribute(node, "transA", 0)), bool(attribute(node, "transB", 0))
    channels = lowering.shape(node.outputs[0])[1]
    vector = bias is not None and lowering.known(bias) and lowering.sizes(bias)[-1:] == (channels,)
    vector = vector and lowering.constant(bias).size == channels  # type: ignore[arg-type, union-attr]
    if lowering.known(b) and not across and (bias is None or vector) and lowering.dtype(a).kind == "f":
        if alpha != 1.0 or (beta != 1.0 and bias is not None):
            _scaled_dense(lowering, node, alpha, beta, down)
        else:
            _dense(lowering, node, down, bias)
        return
    # Computed factors: a product of matrices, and what is added behind it.
    out = lowering.out(node.outputs[0])
    left = lowering.read(a, (1, 0) if across else (0, 1))
    right = lowering.read(b, (1, 0) if down else (0, 1))
    made = lowering.like(out)
    lowering.op("BATCH_MATMUL", [left, right], [made])
    if alpha != 1.0:
        made = lowering.apply("MUL", made, lowering.array(np.array(alpha, np.float32)))
    if bias is not None and beta != 0.0:
        added = lowering.read(bias)
        if beta != 1.0:
            added = lowering.apply("MUL", added, lowering.array(np.array(beta, np.float32)))
        made = lowering.apply("ADD", made, added, shape=out.shape)
    lowering.bind(node.outputs[0], made)


def matmul(lowering: Lowering, node: Node) -> None:
    """MatMul; of a constant matrix on the right, FULLY_CONNECTED on any number of axes."""
    a, b = node.inputs
    if lowering.dtype(a).kind != "f" or (lowering.dtype(b).kind != "f" and id(b) not in lowering.coded):
        raise lowering.fail(
            f"a product of {lowering.dtype(a)} numbers; LiteRT multiplies float32 and codes with scales"
        )
    if lowering.known(b) and lowering.rank(b) == 2 and not lowering.known(a):
        _dense(lowering, node, transposed=False, bias=None)
    else:
        _batched(lowering, node)


def _dense(lowering: Lowering, node: Node, transposed: bool, bias: Tensor | None) -> None:
    """X [.., K] times a constant weight. The axes in front may lie in any order: so does the result's."""
    data, weight = node.inputs[0], node.inputs[1]
    order = (0, 1) if transposed else (1, 0)  # to [channels, depth]
    source, layout, scatter = _rows(lowering, data)
    channels = lowering.sizes(weight)[order[0]]
    if lowering.integer:
        codes, quant = weight_codes(lowering, weight)
        scales = Quant(quant.scale, quant.zero, 0)
        kernel = lowering.array(_gathered(codes.transpose(order), scatter), weight.name, scales)
        assert source.quant is not None
        added = bias_codes(lowering, bias, source.quant, scales, channels, source.dtype == np.int16)
    else:
        if scatter is not None:
            numbers = lowering.constant(weight)
            assert numbers is not None
            kernel = lowering.array(_gathered(numbers.transpose(order), scatter), weight.name)
        else:
            kernel = lowering.weight(weight, order)
        added = zeros_or(lowering, bias, channels)
        if added.shape != (channels,):
            added = lowering.reshape(added, (channels,))
    out = lowering.out(node.outputs[0], layout)
    lowering.op("FULLY_CONNECTED", [source, kernel, added], [out], keepNumDims=len(source.shape) > 2)


def _rows(lowering: Lowering, data: Tensor) -> tuple[FlatTensor, Layout, Array | None]:
    """The data with its last axis last, its layout, and the order of that axis if it is not ONNX's."""
    value = lowering.values[id(data)]
    rank = lowering.rank(data)
    if value.spread is not None:
        source = value.spread.source.tensor
        if source.quant is not None and not lowering.integer:
            lowering.settled(data)
        else:
            return lowering.reshape(source, lowering.shape(data)), plain(rank), value.spread.order
    layout = lowering.values[id(data)].layout
    if layout[-1] != rank - 1:
        layout = (*(axis for axis in layout if axis != rank - 1), rank - 1)
    return lowering.read(data, layout), layout, None


def _gathered(matrix: Array, order: Array | None) -> Array:
    return matrix if order is None else matrix[:, order]


def _scaled_dense(lowering: Lowering, node: Node, alpha: float, beta: float, down: bool) -> None:
    weight = lowering.constant(node.inputs[1])
    assert weight is not None
    source, layout, scatter = _rows(lowering, node.inputs[0])
    matrix = (weight if down else weight.T) * np.float32(alpha)
    kernel = lowering.array(_gathered(matrix, scatter), node.inputs[1].name)
    bias = np.zeros(matrix.shape[0], np.float32)
    if len(node.inputs) > 2 and node.inputs[2].name:
        found = lowering.constant(node.inputs[2])
        assert found is not None
        bias = np.broadcast_to(found.reshape(-1) * np.float32(beta), bias.shape)
    out = lowering.out(node.outputs[0], layout)
    lowering.op("FULLY_CONNECTED", [source, kernel, lowering.array(bias, "bias")], [out])


def _batched(lowering: Lowering, node: Node) -> None:
    """Products of computed matrices. A factor that lies transposed stays so: the kernel takes a flag."""
    a, b = node.inputs
    ranks = [lowering.rank(t) for t in (a, b)]
    target = lowering.shape(node.outputs[0])
    sides = []
    flags = []
    rank = max(2, *ranks)
    for tensor, one, column in ((a, ranks[0], False), (b, ranks[1], True)):
        if one == 1:
            made = lowering.read(tensor)
            size = made.shape[0]
            made = lowering.reshape(made, (1,) * (rank - 2) + ((size, 1) if column else (1, size)))
            flag = False
        else:
            layout = lowering.layout(tensor)
            flag = layout[-2:] == (one - 1, one - 2)
            wanted = plain(one) if not flag else (*plain(one)[:-2], one - 1, one - 2)
            made = _factor(lowering, tensor, wanted)
        sides.append(made)
        flags.append(flag)
    if lowering.integer:
        out = lowering.out(node.outputs[0])
        if 1 in ranks:
            raise lowering.fail("a product with a vector in integers", "leave it in float (quantize:skip=MatMul)")
        lowering.op("BATCH_MATMUL", sides, [out], adjX=flags[0], adjY=flags[1])
        return
    full = list(target)
    if ranks[1] == 1:
        full.append(1)
    if ranks[0] == 1:
        full.insert(len(full) - 1, 1)
    made = lowering.temporary(tuple(full), np.float32, node.outputs[0].name)
    lowering.op("BATCH_MATMUL", sides, [made], adjX=flags[0], adjY=flags[1])
    lowering.bind(node.outputs[0], lowering.reshape(made, target))


def _factor(lowering: Lowering, tensor: Tensor, layout: Layout) -> FlatTensor:
    if lowering.integer and id(tensor) in lowering.coded:
        codes, quant = lowering.coded[id(tensor)]
        return lowering.array(codes.transpose(layout), tensor.name, quant)
    return lowering.read(tensor, layout)


RULES = {"Gemm": gemm, "MatMul": matmul}
