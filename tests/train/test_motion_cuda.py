"""Motion searched for on a GPU: the vectors that the CPU finds."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import some_splats

from pgsvc_codec.train import motion as host
from pgsvc_codec.train.cuda import motion as cuda


@pytest.fixture
def frames(rng):
    """Smooth noise that moves by 5 and -2 pixels, but for a corner, with sides that no block divides."""
    coarse = np.kron(rng.random((9, 12)), np.ones((4, 4))) + 0.3 * rng.random((36, 48))
    old = coarse[:35, :45].astype(np.float32)
    new = np.roll(old, (-2, 5), axis=(0, 1))
    new[:12, :14] = rng.random((12, 14))
    return old, new


@pytest.mark.usefixtures("any_order")
def test_vectors_on_cuda_are_those_of_the_cpu(cuda_device, frames):
    wanted, found = host.estimate_motion(*frames), cuda.estimate_motion(*frames, cuda_device)
    np.testing.assert_array_equal(found.vectors, wanted.vectors)
    assert np.ptp(found.vectors) > 0
    assert found.residual == pytest.approx(wanted.residual, rel=1e-5)
    assert found.texture == pytest.approx(wanted.texture, rel=1e-5)


@pytest.mark.usefixtures("any_order")
def test_splats_on_cuda_follow_as_on_the_cpu(cuda_device, frames, rng):
    motion = host.estimate_motion(*frames)
    splats = some_splats(rng, 3)
    found = cuda.follow(splats, motion, cuda_device)
    np.testing.assert_allclose(found, host.follow(splats, motion), atol=1e-6)
    assert np.abs(found - splats.means).max() > 0.01


def test_motion_on_cuda_of_a_few_pixels(cuda_device):
    """Frames smaller than a block, or than a sample of the coarse search."""
    old, new = (np.full((2, 5), value, np.float32) for value in (0.5, 0.25))
    wanted, found = host.estimate_motion(old, new), cuda.estimate_motion(old, new, cuda_device)
    np.testing.assert_array_equal(found.vectors, wanted.vectors)
    assert found.residual == pytest.approx(wanted.residual) == 0.25
