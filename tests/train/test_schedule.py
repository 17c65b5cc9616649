"""Which levels are supervised when."""

from __future__ import annotations

import numpy as np

from pgsvc_codec.train.schedule import all_levels, cyclic, step_scale


def test_the_cycle_is_the_papers():
    """Eq. 9 with three layers: the full level always, levels 1 and 2 in turn."""
    weights = cyclic(3)
    assert [weights(k) for k in range(4)] == [[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1]]


def test_all_levels_weigh_as_the_cycle_does_on_average():
    for layers in range(1, 9):
        period = max(layers - 1, 1)
        mean = np.mean([cyclic(layers)(k) for k in range(period)], axis=0)
        np.testing.assert_allclose(all_levels(layers)(0), mean)


def test_one_layer_is_the_plain_loss():
    assert cyclic(1)(5) == all_levels(1)(5) == [1.0]


def test_steps_rise_then_fall_to_nothing():
    scales = [step_scale(k, 100, 10) for k in range(100)]
    assert np.argmax(scales) in range(8, 12)
    assert scales[-1] < 0.01
    assert scales[0] < 0.2
