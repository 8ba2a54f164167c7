"""Parts of a student that already say what the teacher says."""

import numpy as np
import pytest

from zc.ir.model import Model, from_text

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.settled import settled_values, weights_behind  # noqa: E402


def rows() -> "dict[str, torch.Tensor]":
    return {"x": torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))}


def net(kept: tuple[int, ...] = (0, 1, 2, 3), shift: float = 0.0) -> Model:
    """Three convolutions; the first has those channels of four, the second is off by a share of its weights."""
    rng = np.random.default_rng(0)
    first, second, third = (rng.standard_normal(shape) for shape in ((4, 3, 1, 1), (5, 4, 1, 1), (2, 5, 1, 1)))
    first, second = first[list(kept)], second[:, list(kept)] * (1 + shift * rng.standard_normal((5, len(kept), 1, 1)))
    text = ", ".join(
        f"float[{','.join(map(str, w.shape))}] {name} = {{{','.join(f'{v:.7g}' for v in w.ravel())}}}"
        for name, w in (("w1", first), ("w2", second), ("w3", third))
    )
    return from_text(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,6,6] x) => (float[N,2,6,6] y) <{text}> {{
            a = Conv (x, w1)
            b = Conv (a, w2)
            c = Relu (b)
            y = Conv (c, w3)
        }}""")


def test_values_in_front_of_the_first_error_are_settled() -> None:
    assert settled_values(net(), net(), rows(), 0.01) == ["a", "b", "c"]
    assert settled_values(net(shift=0.5), net(), rows(), 0.01) == ["a"]


def test_a_narrower_value_is_compared_at_the_channels_it_has() -> None:
    assert settled_values(net(kept=(3, 1)), net(), rows(), 0.01) == ["a"]


def test_only_what_comes_behind_given_values_is_left() -> None:
    assert weights_behind(net(), ["a"], ["y"]) == {"w2", "w3"}
    assert weights_behind(net(), ["a", "c"], ["y"]) == {"w3"}
    assert weights_behind(net(), ["c"], ["a", "y"]) == {"w1", "w3"}
    assert weights_behind(net(), [], ["y"]) == {"w1", "w2", "w3"}
