"""What tests of training share."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from zc.execute import Runner, relative_error
from zc.ir.graph import Array
from zc.ir.model import Model


@pytest.fixture
def same_as_onnxruntime() -> Callable[[Model, Mapping[str, Array]], float]:
    """The largest relative error of a model as a torch module against onnxruntime."""

    def error(model: Model, feeds: Mapping[str, Array]) -> float:
        import torch

        from zc.training.graph import GraphModule

        want = Runner(model, level="off", threads=1).run(feeds)
        with torch.no_grad():
            got = GraphModule(model)({k: torch.from_numpy(np.array(v)) for k, v in feeds.items()})
        assert list(got) == list(want)
        for name, value in want.items():
            assert got[name].numpy().dtype == value.dtype, name
        return max(relative_error(got[name].numpy(), want[name]) for name in want)

    return error
