"""PSNR: how near a picture is to its source, in code values.

That of a sequence comes from the squared error summed over its frames: a perfect frame does not make it infinite,
and neither does averaging decibels hide a bad one.
"""

from __future__ import annotations

import math

import numpy as np

from pgsvc_codec.jit import kernel
from pgsvc_codec.picture import Frame, Plane

_WEIGHTS_420 = (6.0, 1.0, 1.0)  # luma, Cb, Cr: the usual weighting of planes' PSNR for subsampled video
_BLOCK = 1 << 11  # samples
MAX_PSNR = 100.0  # dB, reported for equal pictures


def psnr_of(squared_error: float, samples: int, max_code: int) -> float:
    """PSNR in dB of a summed squared error in code values; `MAX_PSNR` where there is none."""
    if squared_error == 0:
        return MAX_PSNR
    return min(MAX_PSNR, 10.0 * math.log10(max_code**2 * samples / squared_error))


@kernel(nogil=True, error_model="numpy")
def _squared_error(reference: Plane, distorted: Plane) -> int:
    """Summed over samples [N]; sums of `_BLOCK` of them fit into 32 bits, of which a processor adds many at once."""
    total = 0
    for begin in range(0, len(reference), _BLOCK):
        a, b = reference[begin : begin + _BLOCK], distorted[begin : begin + _BLOCK]
        part = np.int32(0)
        for at in range(len(a)):
            difference = np.int32(np.int32(a[at]) - np.int32(b[at]))
            part = np.int32(part + np.int32(difference * difference))
        total += int(part)
    return total


class PsnrMeter:
    """Squared errors of a sequence, plane by plane.

    Args:
        max_code: 255 or 1023.
        is_rgb: planes weigh alike, by their samples; else 6:1:1 on the planes' PSNR, or luma alone.
    """

    def __init__(self, max_code: int, *, is_rgb: bool) -> None:
        self.max_code = max_code
        self.is_rgb = is_rgb
        self.squared_errors: list[float] = []
        self.samples: list[int] = []

    def add(self, reference: Frame, distorted: Frame) -> float:
        """Take in one frame: planes of equal shapes, or ValueError.  Returns what `combined` is of this frame alone."""
        shapes, others = ([plane.shape for plane in frame] for frame in (reference, distorted))
        if shapes != others:
            raise ValueError(f"PSNR: got planes of {others}, allowed those of the reference, {shapes}")
        if not self.samples:
            self.squared_errors = [0.0] * len(reference)
            self.samples = [0] * len(reference)
        pairs = zip(reference, distorted, strict=True)
        errors = [float(_squared_error(a.reshape(-1), b.reshape(-1))) for a, b in pairs]
        samples = [plane.size for plane in reference]
        self.squared_errors = [before + error for before, error in zip(self.squared_errors, errors, strict=True)]
        self.samples = [before + size for before, size in zip(self.samples, samples, strict=True)]
        return self._combine(errors, samples)

    def include(self, other: PsnrMeter) -> None:
        """Take in the frames of another meter of the same kind."""
        if not self.samples:
            self.squared_errors = [0.0] * len(other.samples)
            self.samples = [0] * len(other.samples)
        if other.samples:
            self.squared_errors = [a + b for a, b in zip(self.squared_errors, other.squared_errors, strict=True)]
            self.samples = [a + b for a, b in zip(self.samples, other.samples, strict=True)]

    @property
    def planes(self) -> tuple[float, ...]:
        """PSNR of each plane, dB."""
        return self._per_plane(self.squared_errors, self.samples)

    @property
    def combined(self) -> float:
        """One figure, dB: over all samples (RGB), 6:1:1 of the planes' PSNR (Y′CbCr), luma (gray)."""
        return self._combine(self.squared_errors, self.samples)

    def _per_plane(self, errors: list[float], samples: list[int]) -> tuple[float, ...]:
        return tuple(psnr_of(error, size, self.max_code) for error, size in zip(errors, samples, strict=True))

    def _combine(self, errors: list[float], samples: list[int]) -> float:
        if self.is_rgb:
            return psnr_of(sum(errors), sum(samples), self.max_code)
        planes = self._per_plane(errors, samples)
        weights = _WEIGHTS_420[: len(planes)]
        return sum(w * p for w, p in zip(weights, planes, strict=True)) / sum(weights)
