"""Steps in units of the sizes of weights."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.optimizers import UnitAdam, UnitMuon, orthogonal  # noqa: E402
from zc.training.units import units  # noqa: E402


def random(*shape: int, seed: int = 0) -> "torch.Tensor":
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def muon(weight: "torch.nn.Parameter", *shape: int, decay: float = 0.0) -> UnitMuon:
    """An optimiser of one weight that is matrices of that shape, at a rate of 0.01."""
    group = {"params": [weight], "weight_decay": decay}
    optimizer = UnitMuon([group], {weight: units(weight)}, {weight: shape} if shape else {})
    optimizer.param_groups[0]["lr"] = 0.01
    return optimizer


def stepped(weight: "torch.Tensor", slope: "torch.Tensor", *shape: int, decay: float = 0.0) -> "torch.Tensor":
    """By what a first step along a gradient changes a weight."""
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = muon(parameter, *shape, decay=decay)
    parameter.grad = slope
    optimizer.step()
    return parameter.detach() - weight


def test_a_first_step_of_adam_is_the_rate_times_the_unit() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 1, 3, 3) * torch.tensor([0.1, 1, 5]).reshape(-1, 1, 1, 1))
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
        slope = random(4, 3, seed=seed)
        for weight, optimizer in ((ours, own), (theirs, other)):
            weight.grad = slope.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 40, 10), (3, 10, 40)])
def test_orthogonal_makes_singular_values_alike_and_keeps_the_vectors(shape: tuple[int, int, int]) -> None:
    given = random(*shape)
    found = orthogonal(given)
    left, values, right = torch.linalg.svd(given, full_matrices=False)
    inner = torch.diagonal(left.transpose(1, 2) @ found @ right.transpose(1, 2), dim1=1, dim2=2)
    well = values > 0.05 * values.amax(1, keepdim=True)
    assert (inner[well] > 0.5).all()
    assert (inner[well] < 1.3).all()
    torch.testing.assert_close(left @ torch.diag_embed(inner) @ right, found, rtol=0, atol=1e-4)


def test_a_step_of_a_matrix_moves_weak_directions_as_far_as_strong_ones() -> None:
    ends = torch.linalg.qr(random(12, 12)).Q
    slope = ends @ torch.diag(torch.logspace(0, -1, 12)) @ ends.T
    moved = stepped(torch.ones(12, 12), slope, 1, 12, 12)
    values = torch.linalg.svdvals(moved)
    assert values.max() < 2 * values.min()
    assert moved.square().mean().sqrt() == pytest.approx(0.01, rel=0.3)


def test_a_step_does_not_depend_on_how_scales_are_shared_out_between_layers() -> None:
    weight, slope = torch.ones(10, 8), random(10, 8, seed=1)
    rows, columns = torch.logspace(-1, 1, 10)[:, None], torch.logspace(1, 0, 8)
    moved = stepped(weight, slope, 1, 10, 8)
    scaled = stepped(rows * weight * columns, slope / rows / columns, 1, 10, 8)
    torch.testing.assert_close(scaled / rows / columns, moved, rtol=1e-3, atol=1e-6)


def test_filters_are_one_matrix_and_each_matrix_of_a_stack_its_own() -> None:
    slope = random(2, 9, 10)
    alone = torch.stack([stepped(torch.ones(9, 10), one, 1, 9, 10) for one in slope])
    torch.testing.assert_close(stepped(torch.ones(2, 9, 10), slope, 2, 9, 10), alone, rtol=1e-3, atol=1e-6)
    filters = random(9, 2, 3, 3)
    flat = stepped(torch.ones(9, 18), filters.flatten(1), 1, 9, 18)
    torch.testing.assert_close(stepped(torch.ones(9, 2, 3, 3), filters, 1, 9, 18).flatten(1), flat)


@pytest.mark.parametrize("shape", [(7, 300), (300, 300), (8, 2**17 + 1)])
def test_small_and_large_matrices_step_as_with_adam(shape: tuple[int, int]) -> None:
    slope = random(*shape)
    as_matrix = stepped(torch.ones(shape), slope, 1, *shape)
    torch.testing.assert_close(as_matrix, stepped(torch.ones(shape), slope))
    torch.testing.assert_close(as_matrix.abs(), torch.full(shape, 0.01), rtol=1e-3, atol=0)


def test_matrices_decay_too() -> None:
    plain, decayed = (stepped(torch.ones(9, 9), random(9, 9), 1, 9, 9, decay=d) for d in (0.0, 0.5))
    torch.testing.assert_close(decayed, plain - 0.01 * 0.5)
