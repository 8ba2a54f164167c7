"""Normal equations that are summed batch by batch."""

import numpy as np

from zc.passes.layers.normal import Normal, fit


def test_least_squares_in_a_stream_is_that_of_all_rows_at_once() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((600, 5)) * 0.1 + 50
    truth, offset = random.standard_normal((5, 3)), random.standard_normal(3)
    targets = rows @ truth + offset
    sums = [Normal(rows[:100].mean(axis=0)[None]) for _ in range(2)]
    for i in range(0, 600, 100):
        sums[i >= 400].add(rows[None, i : i + 100].astype(np.float32), targets[None, i : i + 100])
    weights, bias = fit(sums[0], sums[1], truth[None] + 0.05)
    np.testing.assert_allclose(weights[0], truth, atol=2e-3)
    np.testing.assert_allclose(rows @ weights[0] + bias[0], targets, atol=2e-3)


def test_few_rows_stay_near_the_old_weights() -> None:
    random = np.random.default_rng(1)
    old = random.standard_normal((1, 40, 2))
    rows = random.standard_normal((1, 24, 40))
    targets = rows @ old + random.standard_normal((1, 24, 2))  # nothing to learn but noise
    sums = [Normal(np.zeros((1, 40))) for _ in range(2)]
    sums[0].add(rows[:, :16], targets[:, :16])
    sums[1].add(rows[:, 16:], targets[:, 16:])
    weights, _ = fit(*sums, old)
    assert np.abs(weights - old).max() < 0.5
