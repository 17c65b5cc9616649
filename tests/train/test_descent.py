"""Iterations, and what is seen of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import SIZE, assert_equal_splats, objective_of, scene

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.descent import Descent, gradient_norm, single_threaded_torch
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.schedule import cyclic, half_cosine
from pgsvc_codec.train.start import mean_background, start_splats

PICTURE = scene(*SIZE)
BACKGROUND = mean_background(PICTURE)


def descent_from(start, ends, iterations, observe=None, done=0):
    model = SplatModel(start, ends, *SIZE)
    optimizer = Adam(model.parameters(), [0.6, 0.18, 0.7], (0.8, 0.9))
    objective = objective_of(PICTURE, levels=len(ends))
    weights = cyclic(len(ends), 0)
    return Descent(model, optimizer, objective, BACKGROUND, weights, half_cosine(iterations, 2), observe, done)


@pytest.fixture
def start(rng):
    return start_splats(objective_of(PICTURE), BACKGROUND, [10, 20, 30], rng)


def test_a_descent_in_parts_is_the_descent(start):
    """Runs share the optimiser's memory, the schedule and the cycle of levels: 3 + 7 iterations are 10."""
    whole, parts = (descent_from(start, [10, 20, 30], 10) for _ in range(2))
    whole.run(10)
    parts.run(3)
    parts.run(7)
    assert whole.done == parts.done == 10
    assert_equal_splats(whole.model.splats(), parts.model.splats())


def test_observers_see_the_loss_and_the_gradient_before_the_step(start):
    seen = []
    descent = descent_from(start, [10, 20, 30], 10, seen.append, done=1)
    objective, weights = objective_of(PICTURE), cyclic(3, 0)(1)
    twin = SplatModel(start, [10, 20, 30], *SIZE)
    step = objective.step(twin.splats(), BACKGROUND, [10, 20, 30], weights)
    twin.set_gradients(step.moments)
    last = descent.run(4)
    assert len(seen) == 4
    assert seen[0].loss == objective.loss(step.squared_error, weights)
    assert seen[0].gradient_norm == gradient_norm(twin.parameters())
    assert seen[-1].loss == last


def test_a_gradient_norm_is_that_of_all_parameters_in_one():
    parameters = [torch.zeros(2), torch.zeros(1, 1), torch.zeros(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([[6.0]])
    assert gradient_norm(parameters) == 7.0


def test_without_splats_there_is_nothing_to_do():
    descent = descent_from(Splats.empty(3), [0, 0], 5)
    assert descent.run(5) == 0.0
    assert descent.done == 0


def test_torch_has_its_threads_back():
    before = torch.get_num_threads()
    with single_threaded_torch():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), single_threaded_torch():
        raise KeyError
    assert torch.get_num_threads() == before


def test_adam_is_torchs_adam(rng):
    ours = [torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((4, 2), (4, 1))]
    theirs = [parameter.clone() for parameter in ours]
    optimizer = Adam(ours, [0.1, 0.02], (0.8, 0.9))
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(theirs, [0.05, 0.01], strict=True)]
    library = torch.optim.Adam(groups, betas=(0.8, 0.9), eps=1e-12)
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.from_numpy(rng.normal(size=tuple(one.shape)).astype(np.float32))
            other.grad = one.grad.clone()
        optimizer.step(0.5)
        library.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
