"""Steps in units of the sizes of weights."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.units import LEAST_SIZE, UnitAdam, units  # noqa: E402


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


def test_a_first_step_is_the_rate_times_the_unit() -> None:
    weight = torch.nn.Parameter(filters(0.1, 1, 5))
    start = weight.detach().clone()
    optimizer = UnitAdam([{"params": [weight], "weight_decay": 0.0}], {weight: units(weight)})
    optimizer.param_groups[0]["lr"] = 0.01
    (weight * 123).sum().backward()
    optimizer.step()
    moved = (start - weight.detach()).flatten(1).mean(1)
    torch.testing.assert_close(moved, torch.tensor([0.001, 0.01, 0.05]), rtol=1e-3, atol=0)


def test_without_units_it_is_adam_with_decoupled_decay() -> None:
    ours = torch.nn.Parameter(torch.ones(4, 3))
    theirs = torch.nn.Parameter(torch.ones(4, 3))
    own = UnitAdam([{"params": [ours], "weight_decay": 0.1}], {ours: torch.ones(())})
    other = torch.optim.AdamW([theirs], lr=0.03, weight_decay=0.1)
    own.param_groups[0]["lr"] = 0.03
    for seed in range(5):
        slope = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        for weight, optimizer in ((ours, own), (theirs, other)):
            weight.grad = slope.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
