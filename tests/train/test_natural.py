"""I-frames in natural coordinates: the grid they end on, tiny pictures, chroma."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, assert_equal_splats, objective_of, plan_of, psnr, scene

from pgsvc_codec.coding.baseline.quant import dequantize_intra, quantize_intra
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_intra
from pgsvc_codec.video import Chroma, VideoInfo


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 9)])
def test_tiny_pictures_fit(size):
    plan = plan_of(size, splats=6, iterations=20)
    fit = fit_intra(objective_of(scene(*size)), plan, np.random.default_rng(0))
    assert [len(layer) for layer in fit.whole] == [2, 2, 2]
    assert all(np.isfinite(layer.cholesky).all() for layer in fit.whole)


def test_an_intra_fit_ends_on_its_grid_and_levels_improve():
    objective = objective_of(scene(*SIZE))
    fit = fit_intra(objective, plan_of(), np.random.default_rng(0))
    for layer, tables in zip(fit.whole, fit.tables_intra, strict=True):
        assert_equal_splats(dequantize_intra(quantize_intra(layer, tables), tables), layer)
    levels = psnr(objective, fit.whole, fit.background)
    assert levels[0] > 24
    assert (np.diff(levels) > 0.2).all()


def test_chroma_planes_of_half_size_take_part():
    info = VideoInfo(*SIZE, chroma=Chroma.YUV420)
    luma = scene(*SIZE)[0]
    picture = (luma, *(plane[::2, ::2] for plane in scene(*SIZE)[1:]))
    objective = objective_of(picture, info)
    fit = fit_intra(objective, plan_of(), np.random.default_rng(0))
    splats = Splats.concatenate(fit.whole)
    squared = objective.step(splats, fit.background, [40, 80, 120], [0, 0, 1]).squared_error[2]
    for plane, error in zip(picture, squared, strict=True):
        assert error < 0.25 * float(((plane - plane.mean()) ** 2).sum())
