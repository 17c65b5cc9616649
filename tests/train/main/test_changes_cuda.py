"""P- and B-frames fitted on a GPU: what the CPU's fit comes to, and nothing left over from one frame to the next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import assert_equal_splats, objective_of, rgb_info, scene, some_splats

from pgsvc_codec.coding.main.predict import Slots
from pgsvc_codec.coding.main.state import parameters_of
from pgsvc_codec.picture import plane_grids, resample
from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.cuda import passes
from pgsvc_codec.train.cuda.changes import CudaChanges
from pgsvc_codec.train.main.changes import HostChanges, Pace
from pgsvc_codec.train.main.deltas import Deltas
from pgsvc_codec.train.main.inter import fit_changes, fit_inter
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.video import Chroma, Matrix

SIZE = (24, 16)
SPACING = 8
WEIGHTS = [0.5, 1.0]


def slots_of(rng, count, opponent, channels=3, size=SIZE) -> Slots:
    splats = some_splats(rng, count)
    splats = Splats(splats.means, splats.cholesky, splats.colors[:, :channels].copy())
    parts = (np.rint(part).astype(np.int32) for part in parameters_of(splats, *size, opponent=opponent))
    return Slots(SplatState(*parts), np.zeros(count, np.int32))


def problem_of(picture, rasterizer, info, price=3.0, index=34) -> InterProblem:
    objective = objective_of(picture, info, levels=2, rasterizer=rasterizer)
    background = np.full(len(picture), 0.5, np.float32)
    return InterProblem(objective, background, [index] * 2, WEIGHTS, opponent=info.chroma is Chroma.RGB, price=price)


def cost(problem: InterProblem, layers) -> float:
    ends = np.cumsum([len(layer) for layer in layers]).tolist()
    shown = problem.objective.step(
        Splats.concatenate(layers), problem.background, ends, WEIGHTS, with_moments=False
    )  # fmt: skip
    return problem.objective.loss(shown.squared_error, WEIGHTS)


@pytest.fixture
def moved():
    """Luma of a reference, and a frame in which things have moved and something is new."""
    picture = scene(*SIZE, shift=(2.0, 1.0))
    picture[0][4:10, 5:12] -= 0.5
    return scene(*SIZE)[0], picture


def test_a_p_frame_on_cuda_is_that_of_the_cpu(cuda_device, rng, moved, monkeypatch):
    """The same field, births and nearly the same splats; again in buffers that were used before, and grew."""
    luma, picture = moved
    info = rgb_info(*SIZE)
    layers = [slots_of(rng, count, True) for count in (6, 8)]
    on_host = problem_of(picture, cpu, info, index=24)
    on_cuda = problem_of(picture, CudaRasterizer(cuda_device), info, index=24)
    monkeypatch.setattr(passes, "_ENTRIES", 0)
    wanted = fit_inter(on_host, layers, luma, SPACING, 4)
    found, again = (fit_inter(on_cuda, layers, luma, SPACING, 4) for _ in range(2))
    assert sum(int(reborn.sum()) for reborn in wanted.reborn) > 0
    for one, other in zip(found.splats, again.splats, strict=True):
        assert_equal_splats(one, other)
    np.testing.assert_array_equal(found.field.vectors, again.field.vectors)
    assert np.abs(found.field.vectors - wanted.field.vectors).max() <= 1
    assert [len(splats) for splats in found.splats] == [len(splats) for splats in wanted.splats]
    assert cost(on_host, found.splats) == pytest.approx(cost(on_host, wanted.splats), rel=0.01)


@pytest.mark.cuda
def test_a_large_p_frame_on_cuda_is_as_good_as_that_of_the_cpu(cuda_device, rng):
    """Many programs, iterations and births, in captured runs; the same again to the last bit."""
    size = 480, 270
    info = rgb_info(*size)
    layers = [slots_of(rng, count, True, size=size) for count in (700, 1100)]
    picture = scene(*size, shift=(3.0, -2.0))
    on_host, on_cuda = (problem_of(picture, chosen, info, index=28) for chosen in (cpu, CudaRasterizer(cuda_device)))
    wanted = fit_inter(on_host, layers, scene(*size)[0], 16, 40)
    found, again = (fit_inter(on_cuda, layers, scene(*size)[0], 16, 40) for _ in range(2))
    for one, other in zip(found.splats, again.splats, strict=True):
        assert_equal_splats(one, other)
    assert cost(on_host, found.splats) == pytest.approx(cost(on_host, wanted.splats), rel=0.02)


@pytest.mark.parametrize("chroma", [Chroma.YUV420, Chroma.GRAY])
def test_a_b_frame_on_cuda_is_that_of_the_cpu(cuda_device, rng, moved, chroma):
    info = replace(rgb_info(*SIZE), chroma=chroma, matrix=Matrix.BT709)
    grids = plane_grids(info)
    picture = resample(moved[1][: len(grids)], [grids[0]] * len(grids), grids)
    layers = [slots_of(rng, count, False, len(grids)) for count in (6, 0)]
    on_host = problem_of(picture, cpu, info)
    wanted = fit_changes(on_host, layers, 4)
    found = fit_changes(problem_of(picture, CudaRasterizer(cuda_device), info), layers, 4)
    assert cost(on_host, found) == pytest.approx(cost(on_host, wanted), rel=1e-3)
    for name in ("means", "cholesky", "colors"):
        np.testing.assert_allclose(getattr(found[0], name), getattr(wanted[0], name), rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("any_order")
def test_a_field_on_cuda_goes_where_the_cpus_goes(cuda_device, rng, moved):
    """By what splats pull and by its roughness, from the gradients of the first iteration on."""
    picture = moved[1]
    info = rgb_info(*SIZE)
    layers = [slots_of(rng, count, True) for count in (6, 5)]
    states = [slots.state for slots in layers]
    pace = Pace((0.1, 0.02, 0.01), [0.5, 1.0], [0.5, 1.0], 0.8)
    field = rng.normal(0, 2, (2, 3, 2))
    fields = []
    for make in (HostChanges, lambda *args: CudaChanges(*args, cuda_device)):
        rasterizer = cpu if make is HostChanges else CudaRasterizer(cuda_device)
        problem = problem_of(picture, rasterizer, info)
        deltas = Deltas(states, problem.steps, [2, 1], SIZE, opponent=True)
        changes = make(problem, deltas, pace, SPACING)
        losses = changes.errors([np.zeros_like(field), field])
        changes.follow(field)
        changes.run(2)
        fields.append((losses, changes.fitted_field()))
    (host_losses, host), (losses, found) = fields
    assert losses == pytest.approx(host_losses, rel=1e-4)
    assert np.abs(host - field).max() > 0.3
    np.testing.assert_allclose(found, host, atol=2e-3)


def test_cuda_buffers_of_frames_unlike_are_others(cuda_device, rng):
    """Frames of other sizes in turn, on one rasteriser, are as they are alone."""
    rasterizer = CudaRasterizer(cuda_device)
    layers = [slots_of(rng, count, True) for count in (4, 3)]
    fits = []
    for width in (16, 24, 16):
        problem = problem_of(scene(width, 8), rasterizer, rgb_info(width, 8))
        fits.append(fit_changes(problem, layers, 1))
    for one, other in zip(fits[0], fits[2], strict=True):
        assert_equal_splats(one, other)
