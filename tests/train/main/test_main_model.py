"""Models whose splats have a price, and come and go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import SIZE, assert_equal_splats, objective_of, scene, some_splats

from pgsvc_codec.coding.main.state import OPPONENT
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.main.model import GrowingAdam, RatedModel
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.tuning import FREE


@pytest.fixture
def model(rng: np.random.Generator) -> RatedModel:
    return RatedModel(some_splats(rng, 12), [3, 7, 12], *SIZE, FREE, opponent=True)


def test_amplitudes_lie_on_opponent_axes(rng: np.random.Generator) -> None:
    splats = some_splats(rng, 12)
    plain = SplatModel(splats, [12], *SIZE, FREE)
    turned = RatedModel(splats, [12], *SIZE, FREE, opponent=True)
    expected = plain.amplitudes.numpy() @ OPPONENT.T
    np.testing.assert_allclose(turned.amplitudes.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(turned.splats().colors, plain.splats().colors, atol=1e-5)


def test_gradients_are_those_of_the_loss_on_its_axes(model: RatedModel) -> None:
    objective, background = objective_of(scene(*SIZE)), np.zeros(3, np.float32)
    weights = [0.25, 0.5, 1.0]

    def loss() -> float:
        squared = objective.step(model.splats(), background, model.ends, weights).squared_error
        return float(np.dot(weights, squared.sum(axis=1)))

    model.set_gradients(objective.step(model.splats(), background, model.ends, weights).moments)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    for parameter, gradient, tiny in zip(model.parameters()[1:], gradients[1:], (1e-3, 1e-2), strict=True):
        for row, column in ((0, 0), (5, 1), (11, 2)):
            ends = []
            for sign in (-1, 1):
                parameter[row, column] += sign * tiny
                ends.append(loss())
                parameter[row, column] -= sign * tiny
            assert (ends[1] - ends[0]) / (2 * tiny) == pytest.approx(float(gradient[row, column]), rel=0.05, abs=0.05)


def test_splats_go_and_come(model: RatedModel, rng: np.random.Generator) -> None:
    optimizer = GrowingAdam(model.parameters(), (0.1, 0.1, 0.1), (0.9, 0.9))
    before, new = model.splats(), some_splats(rng, 2, signs=False)
    rows = np.array([0, 2, 3, 4, 9, 11])
    model.keep(rows)
    optimizer.keep(model.parameters(), rows)
    assert model.ends == [2, 4, 6]
    assert_equal_splats(model.splats(), before[rows])
    model.insert(1, new)
    optimizer.insert(model.parameters(), 4, 2)
    assert model.ends == [2, 6, 8]
    expected = Splats.concatenate([before[rows[:4]], new, before[rows[4:]]])
    np.testing.assert_allclose(model.splats().means, expected.means, atol=1e-6)
    np.testing.assert_allclose(model.splats().colors, expected.colors, atol=1e-6)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    was = model.shapes.clone()
    optimizer.step(1.0)
    assert (model.shapes < was).all()


def test_prices_scale_the_slopes_of_the_rate(model: RatedModel) -> None:
    rate = model.rate(model.densities([0.1, 0.1, 0.1]))
    prices = torch.linspace(0, 1, 12)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.add_rate(rate, prices)
    torch.testing.assert_close(model.shapes.grad, rate.shapes * prices[:, None])
    torch.testing.assert_close(model.amplitudes.grad, rate.amplitudes * prices[:, None])
