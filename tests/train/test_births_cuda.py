"""Births from a residual on a GPU: those that the CPU finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import growing_objective, scene, some_splats

from pgsvc_codec.render import cpu as host
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.train import births as cpu
from pgsvc_codec.train.cuda import births as cuda


@pytest.mark.parametrize(("size", "planes"), [((43, 30), 3), ((2, 5), 1), ((3, 1), 1)])
def test_births_on_cuda_are_those_of_the_cpu(cuda_device, rng, size, planes):
    """Sizes that do not divide evenly, chroma planes of half size, and pictures too small for any."""
    luma = rng.standard_normal(size[::-1]).astype(np.float32)
    residual = (luma, *(rng.standard_normal(luma[::2, ::2].shape).astype(np.float32) for _ in range(planes - 1)))
    wanted = cpu.find_births(residual, 1.5, (2 * size[0], 2 * size[1]), 7, 20)
    planes_there = [torch.from_numpy(plane).to(cuda_device) for plane in residual]
    found = cuda.find_births(planes_there, 1.5, (2 * size[0], 2 * size[1]), 7, 20)
    assert len(found.gains) == len(wanted.gains) == (0 if min(size) < 2 else 20 if planes > 1 else 2)
    np.testing.assert_allclose(found.gains, wanted.gains, rtol=1e-5)
    np.testing.assert_array_equal(found.splats.means, wanted.splats.means)
    np.testing.assert_array_equal(found.splats.cholesky, wanted.splats.cholesky)
    np.testing.assert_allclose(found.splats.colors, wanted.splats.colors, rtol=1e-3, atol=1e-5)


def test_births_on_cuda_of_nothing(cuda_device):
    """No error, or no room for births."""
    assert len(cuda.find_births([torch.zeros(12, 16, device=cuda_device)], 1.0, (16, 12), 5, 3).gains) == 0
    assert len(cuda.find_births([torch.ones(12, 16, device=cuda_device)], 1.0, (16, 12), 5, 0).gains) == 0


@pytest.mark.usefixtures("any_order")
def test_births_of_an_objective_on_cuda_are_those_of_the_cpu(cuda_device, rng):
    """Over levels of one size together, one of them smaller, from splats that the host has."""
    splats = some_splats(rng, 9)
    picture, sizes, background = scene(24, 20), [(12, 10), (24, 20), (24, 20)], np.full(3, 0.5, np.float32)
    on_host, there = (
        growing_objective(picture, sizes, rasterizer) for rasterizer in (host, CudaRasterizer(cuda_device))
    )
    for level in (0, 1):
        wanted, found = (
            objective.find_births(level, splats, background, [2, 5, 9], [0.5, 0.5, 1.0], 4, 6)
            for objective in (on_host, there)
        )
        assert len(wanted.gains) == len(found.gains) > 0
        np.testing.assert_allclose(found.gains, wanted.gains, rtol=1e-3)
        np.testing.assert_array_equal(found.splats.means, wanted.splats.means)
        np.testing.assert_allclose(found.splats.colors, wanted.splats.colors, rtol=1e-2, atol=1e-4)
