"""A small classifier with data, and a way to run one training pass on it."""

from collections.abc import Callable

import numpy as np
import pytest

from zc.backends import find_target
from zc.data import Samples, load_samples
from zc.ir.model import Model, from_text
from zc.pipeline.base import Context, PassResult
from zc.pipeline.spec import parse


def array(values: np.ndarray) -> str:
    return "{" + ",".join(f"{v:.6g}" for v in values.ravel()) + "}"


@pytest.fixture
def net() -> Callable[..., Model]:
    """`net(seed)`: 6 -> 16 -> 4 with a Softmax; its weights by seed."""

    def make(seed: int = 0, tail: str = "[last] z = MatMul (r, v) y = Softmax (z)") -> Model:
        rng = np.random.default_rng(seed)
        w, v = rng.standard_normal((6, 16)) / 2, rng.standard_normal((16, 4)) / 2
        return from_text(f"""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,6] x) => (float[N,4] y)
            <float[6,16] w = {array(w)}, float[16] b = {array(np.zeros(16))}, float[16,4] v = {array(v)}> {{
                [first] h = Gemm (x, w, b)
                r = Relu (h)
                {tail}
            }}""")

    return make


@pytest.fixture
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Samples]:
    """`samples(model, rows, labels=...)`: random rows for it."""

    def make(model: Model, rows: int = 256, labels: np.ndarray | None = None, x: np.ndarray | None = None) -> Samples:
        path = tmp_path_factory.mktemp("data") / "rows.npz"
        x = np.random.default_rng(7).standard_normal((rows, 6)).astype(np.float32) if x is None else x
        np.savez(path, x=x, **({} if labels is None else {"y": labels}))
        return load_samples(str(path), model.inputs)

    return make


@pytest.fixture
def train() -> Callable[..., PassResult]:
    """`train(text, model, samples, teacher)`: run the one pass of a pipeline text on the model, in place."""

    def run(text: str, model: Model, rows: Samples | None, teacher: Model | None, seed: int = 0) -> PassResult:
        ctx = Context(find_target("ort-cpu", None), rows, seed, threads=1)
        ctx.original = teacher
        return parse(text).passes[0].run(model, ctx)

    return run
