"""Every test here runs a file in LiteRT beside the model in onnxruntime."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from zc.data.synthetic import synthesize
from zc.execute import Runner
from zc.ir.model import Model, from_text


@pytest.fixture(scope="session")
def litert() -> None:
    """For tests that run a file; they are skipped where LiteRT is not installed."""
    pytest.importorskip("ai_edge_litert", reason="no package ai-edge-litert (zc[tflite])")


@pytest.fixture(scope="session")
def emitted(litert: None) -> Callable[..., Counter[str]]:
    """`emitted(model_or_text, tolerance=, kernels=, **options)`: the operators of a file that was seen to agree."""
    from zc.backends.tflite.emit import TfliteOptions, bundle, flatten
    from zc.backends.tflite.legalise import legalise
    from zc.backends.tflite.litert import LiteRtRunner

    def check(given: Model | str, tolerance: float = 1e-5, feeds: dict | None = None, **options) -> Counter[str]:
        model = from_text(given) if isinstance(given, str) else given
        kernels = options.pop("kernels", ("xnnpack", "builtin"))
        rows = options.pop("rows", 2)
        flat = flatten(legalise(model), TfliteOptions(**options))
        data = bundle({"serving_default": flat})
        feeds = feeds or next(synthesize(model.inputs, rows, seed=3).batches(rows))
        want = Runner(model, level="basic", threads=1).run(feeds)
        for kernel in kernels:
            got = LiteRtRunner(data, kernels=kernel).run(feeds)
            for name, value in want.items():
                assert got[name].shape == value.shape
                ours, theirs = got[name].astype(np.float64), value.astype(np.float64)
                np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=kernel)
        return Counter(op.code for op in flat.graph.ops)

    return check
