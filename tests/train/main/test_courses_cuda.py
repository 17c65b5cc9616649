"""I-frames fitted on a GPU: what the CPU's fit comes to, alone and side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import assert_equal_splats, growing_objective, objective_of, psnr, rgb_info, scene

from pgsvc_codec.picture import plane_grids, resample
from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.train.cuda import passes, runs
from pgsvc_codec.train.cuda.courses import take as take_there
from pgsvc_codec.train.main.aim import Aim, level_weights
from pgsvc_codec.train.main.courses import take
from pgsvc_codec.train.main.fit import LIMITS, Still, _Fit, fit_stills
from pgsvc_codec.video import Chroma, Matrix

SIZE = (24, 20)
AIM = Aim(0.4, (0.5, 0.5), level_weights(2))


def objective_on(rasterizer, size=SIZE, chroma=Chroma.RGB, shift=(0.0, 0.0)):
    matrix = Matrix.RGB if chroma is Chroma.RGB else Matrix.BT709
    info = replace(rgb_info(*size), chroma=chroma, matrix=matrix)
    grids = plane_grids(info)
    picture = resample(scene(*size, shift=shift)[: len(grids)], [grids[0]] * len(grids), grids)
    return objective_of(picture, info, levels=2, rasterizer=rasterizer)


def still_of(objective, aim=AIM) -> Still:
    return Still(objective, aim, np.random.default_rng(0))


@pytest.mark.parametrize("chroma", [Chroma.RGB, Chroma.YUV420, Chroma.GRAY])
def test_a_course_on_cuda_is_that_of_the_cpu(cuda_device, chroma, monkeypatch):
    """With bits that cost something, rows at their limits, and room that was wanting."""
    monkeypatch.setattr(passes, "_ENTRIES", 0)
    courses, seen = [], []
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        fit = _Fit(still_of(objective_on(rasterizer, chroma=chroma)), 20, opponent=chroma is Chroma.RGB)
        course = fit.course(range(8, 11))
        course.model.shapes[::3] = np.log(LIMITS.shortest)
        course.model.shapes[1::3, 1] = 9.0
        courses.append(course)
        seen.extend(take([course]) if rasterizer is cpu else take_there([course], cuda_device))
    wanted, found = seen
    np.testing.assert_allclose(found.splats.colors, wanted.splats.colors, atol=1e-3)
    np.testing.assert_allclose(found.step.squared_error, wanted.step.squared_error, rtol=2e-3)
    np.testing.assert_allclose(found.bits, wanted.bits, atol=0.05)
    (on_host, there) = (course.model for course in courses)
    for name in ("means", "shapes", "amplitudes"):
        np.testing.assert_allclose(getattr(there, name), getattr(on_host, name), atol=5e-3, err_msg=name)
    for one, other in zip(courses[1].optimizer.second, courses[0].optimizer.second, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02, atol=1e-5)


def test_a_fit_on_cuda_is_as_good_as_that_of_the_cpu(cuda_device):
    """With births and splats that go, in levels of two sizes."""
    fits = []
    sizes = [(10, 8), (20, 16)]
    host = growing_objective(scene(*sizes[1]), sizes, cpu)
    for objective in (host, growing_objective(scene(*sizes[1]), sizes, CudaRasterizer(cuda_device))):
        fits.append(fit_stills([still_of(objective)], 12, opponent=True)[0])
    quality = [psnr(host, fit.layers, fit.background)[-1] for fit in fits]
    counts = [[*map(len, fit.layers)] for fit in fits]
    assert counts[0] != [6, 10]
    assert counts[1] == counts[0]
    assert quality[1] == pytest.approx(quality[0], abs=0.2)


def test_stills_side_by_side_on_cuda_are_as_alone(cuda_device):
    """Of other sizes and aims, with splats that come and go."""
    rasterizer = CudaRasterizer(cuda_device)

    def stills() -> list[Still]:
        second = objective_on(rasterizer, (12, 18), shift=(3.0, 1.0))
        return [still_of(objective_on(rasterizer, (16, 12))), still_of(second, AIM._replace(step=0.3))]

    together = fit_stills(stills(), 5, opponent=True)
    for still, fit in zip(stills(), together, strict=True):
        (alone,) = fit_stills([still], 5, opponent=True)
        assert alone.step_indices == fit.step_indices
        for one, other in zip(alone.layers, fit.layers, strict=True):
            assert_equal_splats(one, other)


@pytest.mark.cuda
def test_the_host_waits_for_nothing_in_a_course_on_cuda(cuda_device):
    """Captured iterations do what they do one by one, and are all that a run asks of the GPU."""
    import torch

    splats = []
    for replays in (False, True):
        objective = objective_on(CudaRasterizer(cuda_device))
        fit = _Fit(still_of(objective), 40, opponent=True)
        if replays:
            take_there([fit.course(range(8))], cuda_device)
            splats.append(fit.model.splats())
        else:
            for iteration in range(8):
                take_there([fit.course(range(iteration, iteration + 1))], cuda_device)
            splats.append(fit.model.splats())
    assert_equal_splats(*splats)
    going = [runs.Going(fit.model, fit._optimizer, objective, fit._background, [[0.5, 1.0]] * 4, [0.1] * 4)]
    runs.run(going, cuda_device)
    (buffers,) = [kept for kept in runs._kept.buffers[objective.rasterizer].values() if not kept._rated]
    buffers.iterate(4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        buffers.iterate(4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
