"""A small net with weights and samples, for passes that rewrite weights layer by layer."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from zc.data import Samples, load_samples
from zc.ir.model import Model

NET = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,12,12] x) => (float[N,6] y)
<float[24,8,3,3] w0, float[24] b0, float[24,1,3,3] w1, float[32,24,3,3] w2, float[32] b2, float[32,40] w3, float[40] b3,
 float[6,40] w4>
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    b = Relu (a)
    c = Conv <group = 24, pads = [1, 1, 1, 1]> (b, w1)
    d = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (c, w2, b2)
    e = Relu (d)
    f = GlobalAveragePool (e)
    h = Flatten (f)
    i = MatMul (h, w3)
    j = Add (i, b3)
    k = Relu (j)
    y = Gemm <transB = 1> (k, w4)
}"""
WEIGHTS = {"w0", "b0", "w1", "w2", "b2", "w3", "b3", "w4"}


def make(rank: int | None = None) -> Model:
    """The net. rank: of its larger weights."""
    proto = onnx.parser.parse_model(NET)
    random = np.random.default_rng(5)
    for value in list(proto.graph.value_info):
        if value.name in WEIGHTS:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            array = random.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))
            if rank is not None and len(shape) > 1 and value.name != "w1":
                flat = array.reshape(shape[0], -1)
                left, values, right = np.linalg.svd(flat, full_matrices=False)
                array = ((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(shape)
            proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), value.name))
            proto.graph.value_info.remove(value)
    for node in proto.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(proto, full_check=True)
    return Model.from_proto(proto)


@pytest.fixture
def net() -> Callable[..., Model]:
    return make


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Channels that vary together, with means: what is known of them is worth something."""
    random = np.random.default_rng(3)
    mix = random.standard_normal((8, 8)) * np.linspace(0.1, 2, 8)
    x = (
        np.einsum("nchw,cd->ndhw", random.standard_normal((160, 8, 12, 12)), mix)
        + random.standard_normal(8)[:, None, None]
    )
    file = tmp_path_factory.mktemp("rows") / "x.npz"
    np.savez(file, x=x.astype(np.float32))
    return load_samples(str(file), make().inputs)
