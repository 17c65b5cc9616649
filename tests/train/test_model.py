"""Natural coordinates: they describe the same splats, and their gradients are those of the loss."""

from __future__ import annotations

import numpy as np
import torch
from scenes import SIZE, objective_of, scene, some_splats

from pgsvc_codec.render import reference
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.model import Held, SplatModel
from pgsvc_codec.train.schedule import full_level, half_cosine
from pgsvc_codec.train.start import mean_background, start_splats
from pgsvc_codec.train.tuning import CODED, FREE


def covariances(splats):
    l1, l2, l3 = splats.cholesky.astype(np.float64).T
    return np.stack([l1 * l1, l1 * l2, l2 * l2 + l3 * l3], axis=1)


def test_a_model_holds_the_splats_it_was_given(rng):
    splats = some_splats(rng, 40)
    held = SplatModel(splats, [10, 40], 64, 48).splats()
    np.testing.assert_allclose(held.means, splats.means, atol=1e-6)
    np.testing.assert_allclose(covariances(held), covariances(splats), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(held.colors, splats.colors, rtol=1e-5)


def test_put_changes_only_its_rows(rng):
    first, second = some_splats(rng, 12), some_splats(rng, 12)
    model = SplatModel(first, [12], 64, 48)
    before = model.splats()
    model.put(second, np.array([3, 7]))
    after = model.splats()
    np.testing.assert_allclose(after.means[[3, 7]], second.means[[3, 7]], atol=1e-6)
    others = np.delete(np.arange(12), [3, 7])
    np.testing.assert_array_equal(after.colors[others], before.colors[others])


def test_gradients_are_slopes_of_the_loss(rng):
    """Central differences of every natural coordinate of every splat, through the float64 reference."""
    width, height = 24, 20
    objective = objective_of(scene(width, height), levels=2, rasterizer=reference)
    background = np.full(3, 0.4, np.float32)
    ends, weights = [3, 6], [0.5, 1.0]
    model = SplatModel(some_splats(rng, 6, signs=False), ends, width, height, FREE)
    model.set_gradients(objective.step(model.splats(), background, ends, weights).moments.astype(np.float32))

    def loss():
        step = objective.step(model.splats(), background, ends, weights)
        return objective.loss(step.squared_error, weights) * width * height

    for parameter, step in ((model.shapes, 2e-3), (model.amplitudes, 2e-2)):
        for index in np.ndindex(*parameter.shape):
            kept = float(parameter[index])
            values = []
            for sign in (1, -1):
                parameter[index] = kept + sign * step
                values.append(loss())
            parameter[index] = kept
            slope = (values[0] - values[1]) / (2 * step)
            scale = float(parameter.grad.abs().max())
            assert abs(slope - float(parameter.grad[index])) < 0.03 * scale, (index, slope)
    kept_means, gradient = model.means.clone(), model.offsets.grad.clone()
    for index in np.ndindex(*model.offsets.shape):
        values = []
        for sign in (1, -1):
            model.means.copy_(kept_means)
            model.offsets[index] = sign * 2e-3
            model.settle()
            values.append(loss())
        model.means.copy_(kept_means)
        slope = (values[0] - values[1]) / 4e-3
        assert abs(slope - float(gradient[index])) < 0.03 * float(gradient.abs().max()), (index, slope)


def test_settle_keeps_splats_within_reason(rng):
    model = SplatModel(some_splats(rng, 30), [30], 64, 48)
    model.offsets += 1e3
    model.shapes += torch.tensor([50.0, -80.0, -50.0])
    model.settle()
    splats = model.splats()
    assert np.abs(splats.means).max() <= 1
    assert np.isfinite(splats.cholesky).all()
    assert splats.cholesky[:, [0, 2]].min() > 0.4
    assert splats.cholesky.max() < 64


def test_held_rows_do_not_move(rng):
    picture = scene(*SIZE)
    objective, background = objective_of(picture, levels=1), mean_background(picture)
    model = SplatModel(start_splats(objective, background, [30], rng), [30], *SIZE)
    held = Held(np.arange(30) < 10, np.arange(30) % 2 == 0)
    before = model.splats()
    model.hold(held)
    optimizer = Adam(model.parameters(), [0.6, 0.18, 0.5], (0.8, 0.9))
    descent = Descent(model, optimizer, objective, background, full_level(1, 0), half_cosine(20, 2))
    descent.run(10)
    after = model.splats()
    np.testing.assert_array_equal(after.means[:10], before.means[:10])
    np.testing.assert_array_equal(after.cholesky[:10], before.cholesky[:10])
    both = held.geometry & held.amplitudes
    np.testing.assert_array_equal(after.colors[both], before.colors[both])
    assert (after.means[10:] != before.means[10:]).any(axis=1).all()
    none = np.zeros(30, np.bool_)
    model.hold(Held(none, none))
    descent.run(1)
    assert (model.splats().means[:10] != before.means[:10]).any(axis=1).all(), "and no others: these are free again"


def test_a_ridge_pulls_amplitudes_towards_nothing(rng):
    splats = some_splats(rng, 8)
    moments = np.zeros((8, 3 + 5), np.float32)
    coded, free = (SplatModel(splats, [8], 64, 48, limits) for limits in (CODED, FREE))
    for model in (coded, free):
        model.set_gradients(moments)
    assert CODED.ridge > FREE.ridge == 0
    np.testing.assert_allclose(coded.amplitudes.grad, CODED.ridge * coded.amplitudes, rtol=1e-6)
    assert not free.amplitudes.grad.any()
    assert not coded.shapes.grad.any()
