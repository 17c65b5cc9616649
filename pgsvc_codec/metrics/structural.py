"""SSIM and MS-SSIM of a sequence: the mean over its frames, as pytorch-msssim computes them.

That is Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004) and "Multiscale
structural similarity" (2003), with a Gaussian window of 11 samples and five scales.  PyTorch is loaded by the first
meter that is made, not by this module.
"""

from __future__ import annotations

import math

import numpy as np

from pgsvc_codec.errors import BackendError, InputError
from pgsvc_codec.picture import Frame

_WINDOW = 11  # samples per side; a side must hold it
_SCALES = 5  # of MS-SSIM, each half the size of the one before


class StructuralMeter:
    """SSIM, or MS-SSIM, of a sequence of frames, 1 for equal pictures.

    Args:
        max_code: 255 or 1023.
        is_rgb: the mean over the three planes; else luma alone.
        is_multiscale: MS-SSIM; else SSIM.

    Raises:
        BackendError: pytorch-msssim is not installed.
    """

    def __init__(self, max_code: int, *, is_rgb: bool, is_multiscale: bool) -> None:
        self.name = "MS-SSIM" if is_multiscale else "SSIM"
        try:
            import pytorch_msssim
        except ImportError as error:
            raise BackendError(
                f"{self.name}: got no pytorch-msssim ({error}), allowed with the extra metrics"
            ) from None
        self._similarity = pytorch_msssim.ms_ssim if is_multiscale else pytorch_msssim.ssim
        self._max_code = max_code
        self._is_rgb = is_rgb
        self.min_side = smallest_side(is_multiscale=is_multiscale)
        self._sum = 0.0
        self._frames = 0

    def add(self, reference: Frame, distorted: Frame) -> float:
        """Take in one frame, planes of equal shapes; returns its similarity.

        Raises:
            InputError: the frame is too small to be measured.
        """
        import torch

        rows, columns = reference[0].shape
        if min(rows, columns) < self.min_side:
            raise InputError(f"{self.name}: got {columns}x{rows}, allowed sides of {self.min_side} and more")
        planes = slice(None) if self._is_rgb else slice(1)
        pictures = (
            torch.from_numpy(np.stack(frame[planes])[None].astype(np.float32)) for frame in (reference, distorted)
        )
        with torch.inference_mode():
            similarity = float(self._similarity(*pictures, data_range=self._max_code))
        self._sum += similarity
        self._frames += 1
        return similarity

    @property
    def mean(self) -> float:
        """Over the frames so far; not a number where there are none."""
        return self._sum / self._frames if self._frames else math.nan


def smallest_side(*, is_multiscale: bool) -> int:
    """Samples per side that a frame needs for MS-SSIM, 161, or SSIM, 11."""
    return (_WINDOW - 1) * 2 ** (_SCALES - 1) + 1 if is_multiscale else _WINDOW
