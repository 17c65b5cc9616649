"""P-frames of the baseline on a GPU: as good as those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import objective_of, plan_of, psnr, rgb_info, scene

from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.train.fit import fit_inter, fit_intra
from pgsvc_codec.train.motion_search import estimate_motion
from pgsvc_codec.train.stack import Reference

SIZE = (16, 16)


def test_a_p_frame_of_the_baseline_on_cuda(cuda_device):
    """From motion to the quantiser's grid; relocations come and go by hairs, so qualities are alike, not splats."""
    plan = plan_of(SIZE, splats=12, iterations=60, layers=1)
    first, second = scene(*SIZE), scene(*SIZE, shift=(2, 1))
    still = fit_intra(objective_of(first, levels=1), plan, np.random.default_rng(0))
    plan = plan_of(SIZE, splats=12, iterations=6, layers=1)
    qualities = []
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        motion = estimate_motion(first[0], second[0], rasterizer)
        reference = Reference(still.whole, motion, still.tables_intra, [])
        objective = objective_of(second, rgb_info(*SIZE), levels=1, rasterizer=rasterizer)
        fit = fit_inter(objective, plan, np.random.default_rng(1), still.background, reference)
        qualities.append(psnr(objective_of(second, levels=1), fit.layers, fit.background)[-1])
    before = psnr(objective_of(second, levels=1), still.whole, still.background)[-1]
    assert qualities[1] == pytest.approx(qualities[0], abs=0.3)
    assert qualities[1] > before + 1
