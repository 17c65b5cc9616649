"""SSIM and MS-SSIM: equal pictures, the library called directly, sequences, and pictures that are too small."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from pgsvc_codec.errors import BackendError, InputError
from pgsvc_codec.metrics.structural import StructuralMeter, smallest_side


def picture(side: int, noise: float, planes: int = 1, max_code: int = 255):
    """Planes of waves of which each is of its own, and noise that depends on its strength alone."""
    y, x = np.mgrid[:side, :side]
    random = np.random.default_rng(7)
    values = (
        np.sin(x / (5 + plane)) * np.cos(y / 9) * 60 + 128 + random.normal(0, 1, x.shape) * noise
        for plane in range(planes)
    )
    return tuple(
        np.clip(np.round(value * max_code / 255), 0, max_code).astype(np.uint8 if max_code == 255 else np.uint16)
        for value in values
    )


@pytest.mark.parametrize("is_multiscale", [False, True])
@pytest.mark.parametrize("is_rgb", [False, True])
@pytest.mark.parametrize("max_code", [255, 1023])
def test_equal_pictures_are_1_and_noise_takes_from_it(is_multiscale, is_rgb, max_code):
    meter = StructuralMeter(max_code, is_rgb=is_rgb, is_multiscale=is_multiscale)
    clean, *noisy = (picture(161, noise, 3, max_code) for noise in (0, 4, 16))
    assert meter.add(clean, clean) == pytest.approx(1, abs=1e-6)
    little, much = (meter.add(clean, frame) for frame in noisy)
    assert 1 - 1e-3 > little > much + 0.05
    assert meter.mean == pytest.approx((1 + little + much) / 3, abs=1e-6)


@pytest.mark.parametrize("is_multiscale", [False, True])
def test_it_is_what_the_library_says(is_multiscale):
    import pytorch_msssim
    import torch

    clean, noisy = picture(170, 0, 3), picture(170, 9, 3)
    similarity = pytorch_msssim.ms_ssim if is_multiscale else pytorch_msssim.ssim
    tensors = [torch.tensor(np.stack(frame)[None] / 255) for frame in (clean, noisy)]
    rgb = StructuralMeter(255, is_rgb=True, is_multiscale=is_multiscale).add(clean, noisy)
    luma = StructuralMeter(255, is_rgb=False, is_multiscale=is_multiscale).add(clean, noisy)
    assert rgb == pytest.approx(float(similarity(*tensors, data_range=1.0)), abs=2e-5)
    assert luma == pytest.approx(float(similarity(*(tensor[:, :1] for tensor in tensors), data_range=1.0)), abs=2e-5)
    assert abs(rgb - luma) > 1e-4


def test_a_uniform_shift_by_hand():
    """Without structure, SSIM is its luminance term: (2ab + C1) / (a² + b² + C1) with C1 = (0.01 · 255)²."""
    a, b, c1 = 100, 120, (0.01 * 255) ** 2
    meter = StructuralMeter(255, is_rgb=False, is_multiscale=False)
    shown = meter.add((np.full((11, 13), a, np.uint8),), (np.full((11, 13), b, np.uint8),))
    assert shown == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-4)


@pytest.mark.parametrize(("is_multiscale", "name", "side"), [(False, "SSIM", 11), (True, "MS-SSIM", 161)])
def test_small_pictures_are_refused_where_the_scales_end(is_multiscale, name, side):
    assert smallest_side(is_multiscale=is_multiscale) == side
    meter = StructuralMeter(255, is_rgb=False, is_multiscale=is_multiscale)
    assert meter.add(picture(side, 0), picture(side, 1)) > 0.9
    small = tuple(plane[:, 1:] for plane in picture(side, 0))
    with pytest.raises(InputError, match=rf"^{name}: got {side - 1}x{side}, allowed sides of {side} and more$"):
        meter.add(small, small)


def test_nothing_measured_is_no_number():
    assert math.isnan(StructuralMeter(255, is_rgb=False, is_multiscale=False).mean)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    with pytest.raises(BackendError, match=r"^MS-SSIM: got no pytorch-msssim .*, allowed with the extra metrics$"):
        StructuralMeter(255, is_rgb=True, is_multiscale=True)


def test_pytorch_is_loaded_by_meters_only():
    program = """
import sys
from pgsvc_codec.metrics import psnr, structural, vmaf
assert "torch" not in sys.modules
structural.StructuralMeter(255, is_rgb=True, is_multiscale=False)
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
