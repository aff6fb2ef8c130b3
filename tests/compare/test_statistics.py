"""Intervals hold what they promise on populations whose differences are known."""

import numpy as np
import pytest

from mmres2net.compare.comparison import Bootstrap
from mmres2net.compare.statistics import difference, draw_images, draw_seeds, holm, interval, pooled
from tests.compare.samples import classified, segmented


@pytest.mark.parametrize(
    ('population', 'images', 'times'),
    [pytest.param(classified, 100, 800, id='top-1'), pytest.param(segmented, 60, 600, id='mIoU')],
)
def test_intervals_of_95_percent_hold_the_difference_95_times_of_100(population, images, times) -> None:
    people, rng, held = population(), np.random.default_rng(0), 0
    for _ in range(times):
        mine = rng.integers(people.size, size=images)
        draws = draw_images(images, 300, rng)
        one, other = (people.metric(side, mine, draws) for side in (0, 1))
        low, high = interval(other - one)
        held += low <= people.difference <= high
    assert abs(held / times - 0.95) <= 0.02


def test_seeds_add_the_variance_of_their_mean() -> None:
    """Of 3 seeds the variance is that of a mean of 3, on average; with an interval that knows how few they are."""
    rng, variances, held = np.random.default_rng(1), [], 0
    for _ in range(1000):
        one, other = (rng.normal(0, 2, size=(3, 1)).repeat(401, 1) for _ in range(2))
        weights = [draw_seeds(3, 400, rng) for _ in range(2)]
        variances.append(pooled(one, weights[0], 10**9)[1:].var())
        low, high = interval(pooled(other, weights[1], 4) - pooled(one, weights[0], 4))
        held += low <= 0 <= high
    assert np.mean(variances) == pytest.approx(4 / 3, rel=0.08)
    assert abs(held / 1000 - 0.95) <= 0.025


def test_both_levels_add_up() -> None:
    """Images and seeds vary independently: their variances are added."""
    rng = np.random.default_rng(2)
    images, seeds = rng.normal(0, 3, size=4001), np.array([-1.0, 0, 1])
    runs = images + seeds[:, None]
    both = pooled(runs, draw_seeds(3, 4000, rng), 10**9)
    assert both[1:].var() == pytest.approx(images[1:].var() + seeds.var(ddof=1) / 3, rel=0.05)


def test_a_row_of_equal_sides_is_0_and_of_swapped_sides_the_negative() -> None:
    people, draws = classified(), draw_images(50, 500, np.random.default_rng(0))
    one, other = (people.metric(side, np.arange(50), draws) for side in (0, 1))
    boot = Bootstrap([1, 1], 50, 500, 0)
    same = boot.row(('', 'x'), [[one], [one.copy()]]).differences[0]
    assert (same.value, same.low, same.high, same.above, same.bias, same.p) == (0, 0, 0, 0.5, 0, 1)
    orders = (([[one], [other]], (1, 3)), ([[other], [one]], (3, 1)))
    there, back = (boot.row(('', 'x'), runs, paper).differences[0] for runs, paper in orders)
    assert (there.value, there.bias, there.paper) == (-back.value, pytest.approx(-back.bias), -back.paper)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert (there.above, there.p) == (pytest.approx(1 - back.above), back.p)


def test_values_that_are_not_defined() -> None:
    nothing = difference(np.full(10, np.nan), 0.5)
    assert (nothing.value, nothing.low, nothing.p, nothing.paper) == (None, None, None, 0.5)
    some = difference(np.array([1, np.nan, 1, 3]))
    assert (some.value, some.low, some.above) == (1, pytest.approx(-0.9), 0.5)


def test_p_values_are_adjusted_for_their_number() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1, 1]
