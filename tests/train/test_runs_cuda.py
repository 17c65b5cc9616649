"""Runs of iterations on a GPU: the descent that the CPU makes."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import growing_objective, objective_of, scene, some_splats

from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.model import Held, SplatModel
from pgsvc_codec.train.schedule import cyclic, half_cosine

SIZE = (24, 20)
ENDS = [3, 5, 9]
BACKGROUND = np.full(3, 0.5, np.float32)


def descent_on(rasterizer, splats, objective, between=None) -> Descent:
    model = SplatModel(splats, ENDS, *SIZE)
    optimizer = Adam(model.parameters(), [0.3, 0.1, 0.3], (0.8, 0.9))
    return Descent(model, optimizer, objective, BACKGROUND, cyclic(3, 0), half_cosine(6, 2), between=between)


def assert_alike(one: SplatModel, other: SplatModel) -> None:
    for name in ("means", "shapes", "amplitudes"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-3, err_msg=name)


@pytest.mark.usefixtures("any_order")
def test_a_descent_on_cuda_is_that_of_the_cpu(cuda_device, rng):
    """In two runs, with the optimiser's memory, splats held, levels that take turns, and those of another size."""
    splats = some_splats(rng, 9)
    sizes = [(12, 10), SIZE, SIZE]
    ends = []
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        descent = descent_on(rasterizer, splats, growing_objective(scene(*SIZE), sizes, rasterizer))
        descent.run(2)
        held = Held(np.arange(9) < 4, np.arange(9) % 3 == 0)
        before = descent.model.means[:4].clone()
        descent.model.hold(held)
        loss = descent.run(2)
        np.testing.assert_array_equal(descent.model.means[:4], before)
        ends.append((loss, descent.model))
    (wanted, on_host), (found, there) = ends
    assert found == pytest.approx(wanted, rel=1e-3)
    assert_alike(there, on_host)


class Replacing:
    """After the second iteration the last splat is another, and what the step saw is kept."""

    def __init__(self) -> None:
        self.seen = []

    def is_due(self, iteration):
        return iteration == 1

    def __call__(self, iteration, splats, step):
        self.seen.append((iteration, splats, step))
        new = Splats(-splats.means[:1], splats.cholesky[:1], splats.colors[:1])
        self.model.replace(np.array([8]), new)


def test_what_happens_between_iterations_on_cuda(cuda_device, rng):
    """It is told what it would be told on the CPU, and what it does to the model stays."""
    splats = some_splats(rng, 9)
    seen, models = [], []
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        between = Replacing()
        objective = objective_of(scene(*SIZE), rasterizer=rasterizer)
        descent = descent_on(rasterizer, splats, objective, between)
        between.model = descent.model
        descent.run(3)
        assert descent.done == 3
        seen.append(between.seen)
        models.append(descent.model)
    ((number, at, step),), ((wanted_number, wanted_at, wanted_step),) = reversed(seen)
    assert number == wanted_number == 1
    np.testing.assert_allclose(at.means, wanted_at.means, atol=1e-4)
    np.testing.assert_allclose(step.squared_error, wanted_step.squared_error, rtol=1e-3)
    np.testing.assert_allclose(step.moments, wanted_step.moments, atol=0.02)
    assert_alike(*models)
