"""The learning rate that trials choose."""

import math

import pytest

from zc.training.rates import RATES, choose_rate, trial_steps


def chosen(losses: dict[float, float], start: float = 1.0) -> tuple[float, list[float]]:
    """What is chosen where trials end so (the others harm), and the rates that were tried."""
    tried = []

    def trial(rate: float) -> float:
        tried.append(rate)
        return losses.get(rate, 2.0)

    return choose_rate("adamw", start, trial), tried


def test_the_highest_rate_that_lowers_the_loss_is_chosen() -> None:
    assert chosen({0.003: 0.9, 0.001: 0.85}) == (0.003, [0.01, 0.003, 0.001])


def test_a_lower_rate_that_gains_much_more_is_preferred() -> None:
    assert chosen({0.01: 0.99, 0.003: 0.7, 0.001: 0.65})[0] == 0.003


def test_where_every_rate_harms_the_least_harmful_is_chosen() -> None:
    rate, tried = chosen({3e-5: 1.01, 0.01: math.nan})
    assert rate == 3e-5
    assert tried == list(RATES["adamw"])


@pytest.mark.parametrize(("total", "steps"), [(10, 20), (2000, 40), (50000, 100)])
def test_a_trial_is_a_small_share_of_the_run(total: int, steps: int) -> None:
    assert trial_steps(total) == steps
