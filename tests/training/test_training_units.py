"""The sizes of weights."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.units import LEAST_SIZE, units  # noqa: E402


def filters(*scales: float) -> "torch.Tensor":
    """Depthwise filters [C, 1, 3, 3] of these sizes."""
    each = torch.randn(len(scales), 1, 3, 3, generator=torch.Generator().manual_seed(0))
    each = each / each.square().mean((1, 2, 3), keepdim=True).sqrt()
    return each * torch.tensor(scales).reshape(-1, 1, 1, 1)


def test_each_filter_has_its_own_unit() -> None:
    torch.testing.assert_close(units(filters(0.1, 1, 5)).flatten(), torch.tensor([0.1, 1, 5]))


def test_units_follow_a_scale_that_moves_from_one_layer_to_the_next() -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    rows, columns = torch.tensor([1, 2, 0.5, 3, 1, 1])[:, None], torch.tensor([4, 1, 0.25, 1, 1])
    outer = units(torch.ones(6, 5))
    torch.testing.assert_close(outer, torch.ones(6, 5))
    torch.testing.assert_close(units(rows * columns), rows * columns)
    assert units(weight).shape == weight.shape


def test_what_is_zero_can_still_move() -> None:
    assert units(torch.zeros(8)) == pytest.approx(LEAST_SIZE)
    assert units(torch.zeros(8, 4)) == pytest.approx(LEAST_SIZE)
    assert (units(filters(0, 1)) > 0).all()
