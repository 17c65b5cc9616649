"""Which levels are supervised when, and how long steps are."""

from __future__ import annotations

import numpy as np
import pytest

from pgsvc_codec.train.schedule import all_levels, cyclic, emphasised, full_level, half_cosine, halving, uniform

SCHEDULES = [all_levels, cyclic, uniform, full_level]


def test_the_cycle_is_the_papers():
    """Eq. 9 with three layers: the full level always, levels 1 and 2 in turn."""
    weights = cyclic(3, 0)
    assert [weights(k) for k in range(4)] == [[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1]]


def test_all_levels_weigh_as_the_cycle_does_on_average():
    for layers in range(1, 9):
        period = max(layers - 1, 1)
        mean = np.mean([cyclic(layers, 0)(k) for k in range(period)], axis=0)
        np.testing.assert_allclose(all_levels(layers, 0)(0), mean)


def test_random_levels_weigh_alike_and_come_with_the_full_one():
    weights = np.array([uniform(4, 7)(k) for k in range(3000)])
    assert (weights[:, 3] == 1).all()
    assert (weights.sum(axis=1) == 2).all()
    np.testing.assert_allclose(weights[:, :3].mean(axis=0), 1 / 3, atol=0.03)  # three standard deviations


def test_random_levels_depend_on_the_iteration_and_the_seed_alone():
    forwards = [uniform(4, 7)(k) for k in range(50)]
    schedule = uniform(4, 7)
    assert [schedule(k) for k in reversed(range(50))] == forwards[::-1]
    assert [uniform(4, 8)(k) for k in range(50)] != forwards


def test_the_full_level_alone():
    assert full_level(3, 0)(17) == [0, 0, 1]


def test_emphasis_multiplies_what_the_schedule_gives():
    assert emphasised(cyclic(3, 0), (2, 1, 0.5))(0) == [2, 0, 0.5]
    assert emphasised(all_levels(3, 0), (3, 1, 2))(9) == [1.5, 0.5, 2]
    plain = all_levels(3, 0)
    assert emphasised(plain, (1, 1, 1)) is plain


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_layer_is_the_plain_loss(schedule):
    assert schedule(1, 0)(5) == [1.0]


def test_steps_rise_then_fall_to_nothing():
    schedule = half_cosine(100, 10)
    scales = [schedule(k) for k in range(100)]
    assert np.argmax(scales) in range(8, 12)
    assert scales[-1] < 0.01
    assert scales[0] < 0.2


def test_steps_are_halved_every_period():
    schedule = halving(20_000)
    assert [schedule(k) for k in (0, 19_999, 20_000, 39_999, 40_000)] == [1, 1, 0.5, 0.5, 0.25]
