"""The paper's parameters: what they show, the slopes of the loss along them, and what stays when splats go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scenes import assert_equal_splats, objective_of, scene, some_splats

from pgsvc_codec.render import reference
from pgsvc_codec.splats import MIN_LENGTH, Splats
from pgsvc_codec.train.plain import PlainModel


@pytest.fixture
def model(rng):
    """Ten splats in three layers whose weights have been learned."""
    model = PlainModel(some_splats(rng, 10), [2, 5, 10], 24, 20)
    model.weights += torch.from_numpy(rng.normal(0, 0.3, (10, 1)).astype(np.float32))
    return model


def test_a_model_shows_the_splats_it_was_given_and_leaves_them_alone(rng):
    splats = some_splats(rng, 6)
    kept = Splats(splats.means.copy(), splats.cholesky.copy(), splats.colors.copy())
    model = PlainModel(splats, [6], 64, 48)
    assert_equal_splats(model.splats(), splats)
    for parameter in model.parameters():
        parameter += 1
    assert_equal_splats(splats, kept)


def test_gradients_are_slopes_of_the_loss(model):
    """Central differences of every parameter of every splat, weights too, through the float64 reference."""
    objective = objective_of(scene(24, 20), rasterizer=reference)
    background, weights = np.full(3, 0.4, np.float32), [0.5, 0.25, 1.0]

    def loss():
        return objective.loss(objective.step(model.splats(), background, model.ends, weights).squared_error, weights)

    step = objective.step(model.splats(), background, model.ends, weights)
    model.set_gradients(step.moments)
    for parameter, length in zip(model.parameters(), (1e-3, 1e-2, 1e-2, 1e-2), strict=True):
        largest = float(parameter.grad.abs().max())
        assert largest > 1e-4, "something to compare"
        for index in np.ndindex(*parameter.shape):
            kept = float(parameter[index])
            values = []
            for sign in (1, -1):
                parameter[index] = kept + sign * length
                values.append(loss())
            parameter[index] = kept
            slope = (values[0] - values[1]) / (2 * length)
            assert abs(slope - float(parameter.grad[index])) < 0.01 * largest, (index, slope)


def test_weights_are_folded_into_what_is_shown(model):
    shown = model.splats()
    np.testing.assert_array_equal(shown.colors, (model.colors * model.weights).numpy())
    model.weights.grad = torch.ones(10, 1)
    model.fold_weights()
    assert_equal_splats(model.splats(), shown)
    assert (model.weights == 1).all()
    assert model.weights.grad is None, "no longer learned"


@given(st.sets(st.integers(0, 9)))
def test_layers_follow_the_rows_that_are_kept(rows):
    kept = np.array(sorted(rows), np.intp)
    splats = some_splats(np.random.default_rng(1), 10)
    model = PlainModel(splats, [2, 5, 10], 64, 48)
    model.keep(kept)
    assert_equal_splats(model.splats(), splats[kept])
    assert model.ends == [sum(row < end for row in rows) for end in (2, 5, 10)]


def test_settling_keeps_means_inside_and_lengths_off_zero():
    model = PlainModel(some_splats(np.random.default_rng(1), 2), [2], 64, 48)
    model.means[:] = torch.tensor([[-1.5, 1.0], [0.25, 7.0]])
    model.cholesky[:] = torch.tensor([[1e-4, -3.0, -1e-4], [-0.0, 2.0, 5.0]])
    model.settle()
    below_one = float(np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(model.means.numpy(), np.array([[-1, below_one], [0.25, below_one]], np.float32))
    shortest = float(MIN_LENGTH)
    expected = [[shortest, -3, -shortest], [-shortest, 2, 5]]
    np.testing.assert_array_equal(model.cholesky.numpy(), np.array(expected, np.float32))
