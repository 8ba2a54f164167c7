"""A teacher says the same wherever it runs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.ir.model import Model, from_text  # noqa: E402
from zc.training import teacher as place  # noqa: E402
from zc.training.teacher import Teacher  # noqa: E402

CODED = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4] x) => (float[N,4] y)
<float s = {0.1}, int8 z = {0}>
{
  q = QuantizeLinear (x, s, z)
  y = DequantizeLinear (q, s, z)
}
"""
CPU = torch.device("cpu")


@pytest.fixture
def batch():
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"x": images.contiguous(memory_format=torch.channels_last)}


@pytest.fixture
def net() -> Model:
    """x -> Conv -> Relu (r) -> GlobalAveragePool -> Flatten -> y."""
    weights = ", ".join(f"{w:.4g}" for w in np.random.default_rng(0).standard_normal(4 * 3 * 3 * 3))
    return from_text(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w = {{{weights}}}> {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            r = Relu (c)
            p = GlobalAveragePool (r)
            y = Flatten (p)
        }}""")


@pytest.fixture(autouse=True)
def _no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's half costs less where the processor multiplies it."""
    monkeypatch.setattr(place, "gains_by_bfloat16", lambda device: False)


def test_onnxruntime_says_what_torch_says(net, batch) -> None:
    teacher = Teacher(net, ["y", "r"])
    said = teacher(batch)
    teacher.place(CPU, sloped=False)
    assert teacher.in_session
    again = teacher(batch)
    assert list(again) == ["y", "r"]
    for name in said:
        torch.testing.assert_close(again[name], said[name], rtol=1e-5, atol=1e-5)
    assert again["r"].is_contiguous(memory_format=torch.channels_last)


def test_gradients_by_the_input_are_torchs(net, batch) -> None:
    teacher = Teacher(net, ["y"])
    teacher.place(CPU, sloped=True)
    image = batch["x"].requires_grad_()
    teacher({"x": image})["y"].sum().backward()
    assert not teacher.in_session
    assert image.grad is not None


def test_a_teacher_in_codes_is_torchs() -> None:
    teacher = Teacher(from_text(CODED), ["y"])
    teacher.place(CPU, sloped=False)
    assert not teacher.in_session


def test_an_input_that_is_asked_for_is_torchs(net, batch) -> None:
    teacher = Teacher(net, ["x", "y"])
    teacher.place(CPU, sloped=False)
    assert torch.equal(teacher(batch)["x"], batch["x"])
