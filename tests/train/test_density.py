"""Prices of removing and adding splats, against what really happens to the loss."""

from __future__ import annotations

import numpy as np
import pytest

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.density import Births, birth_candidates, choose_moves


def test_a_birth_lies_where_the_error_is_and_gains_what_it_says():
    """The residual is one Gaussian: the matched filter finds it, and its gain is nearly all of the error."""
    y, x = np.mgrid[:40, :56]
    bump = np.exp(-((x - 37) ** 2 + (y - 12) ** 2) / (2 * 3.0**2)).astype(np.float32)
    residual = (0.3 * bump, -0.2 * bump, 0.1 * bump)
    births = birth_candidates(residual, weight=1.0, length=3.0, full_width=56)
    column, row = (births.splats.means[0] + 1) * np.array([56, 40]) / 2 - 0.5
    assert (round(column), round(row)) == (37, 12)
    total = sum(float((plane**2).sum()) for plane in residual)
    # the filter's own width halves the peak: sum g R over sum g^2 is exact only at the true amplitude
    assert births.gains[0] == pytest.approx(total, rel=0.1)
    shares = births.splats.colors[0] / [0.3, -0.2, 0.1]
    assert shares.min() > 0.4, "towards the error in every plane"
    assert shares.max() < 1, "but not beyond it: neighbours are born too"


def test_a_birth_on_a_smaller_level_is_the_same_splat():
    """A level of half the size has a quarter of the samples: where, how long and what colour stay, the gain does not.

    Squared errors of a level weigh as its samples would at full size, so gains are in full-size samples.
    """
    y, x = np.mgrid[:40, :56]
    bump = np.exp(-((x - 36.5) ** 2 + (y - 12.5) ** 2) / (2 * 4.0**2)).astype(np.float32)
    halved = bump.reshape(20, 2, 28, 2).mean(axis=(1, 3))
    full, small = (
        birth_candidates((0.3 * plane,) * 3, weight=1.0, length=4.0, full_width=56) for plane in (bump, halved)
    )
    np.testing.assert_allclose(small.splats.means[0], full.splats.means[0], atol=1.5 * 2 / 56)
    np.testing.assert_array_equal(small.splats.cholesky[0], full.splats.cholesky[0])
    np.testing.assert_allclose(small.splats.colors[0], full.splats.colors[0], rtol=0.1)
    assert small.gains[0] == pytest.approx(full.gains[0], rel=0.15)


def test_moves_stop_where_they_no_longer_pay():
    births = Births(np.array([9.0, 5.0, 1.0, 0.5, 0.1, 0, 0, 0, 0, 0]), Splats.empty(3))
    costs = np.linspace(0, 9, 10)
    assert choose_moves(costs, births, 0.0, base=False) == 2
    assert choose_moves(costs, births, 1e9, base=False) == 0
    assert choose_moves(np.zeros(10), Births(np.ones(10), Splats.empty(3)), 0.0, base=True) == 2, "the paper's share"
