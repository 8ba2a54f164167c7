"""Where the time of a run goes."""

import numpy as np
import pytest

from zc.errors import ZcError
from zc.ir.model import from_text
from zc.measure.profile import profile

NET = from_text("""<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3,32,32] x) => (float[N,2,16,16] y) <float[2,3,1,1] w = {1,2,3,4,5,6}> {
    s = Softmax <axis = 1> (x)
    y = Conv <strides = [2, 2]> (s, w)
}""")


def test_kernels_come_with_their_times_shapes_and_attributes() -> None:
    kernels = {kernel.op: kernel for kernel in profile(NET, [{"x": np.ones((1, 3, 32, 32), np.float32)}], repeats=5)}
    assert kernels["Softmax"].inputs == (("float", (1, 3, 32, 32)),)
    assert kernels["Conv"].attrs["strides"] == [2, 2]
    assert kernels["Conv"].outputs[0][1][2:] == (16, 16)
    assert all(kernel.us > 0 for kernel in kernels.values())


def test_samples_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ZcError, match="onnxruntime fails on it"):
        profile(NET, [{"x": np.ones((1, 4, 32, 32), np.float32)}])
