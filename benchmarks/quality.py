"""How good a level is: PSNR, MS-SSIM and VMAF of its frames against the source at the size of the level."""

from __future__ import annotations

from contextlib import AbstractContextManager
from statistics import fmean
from types import TracebackType
from typing import NamedTuple, Self

from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.metrics.structural import StructuralMeter, smallest_side
from pgsvc_codec.metrics.vmaf import MIN_SIDE, VmafMeter
from pgsvc_codec.picture import Frame, luma_of
from pgsvc_codec.video import Chroma, VideoInfo


class Quality(NamedTuple):
    """Of one level, over all frames; None where it is too small for a metric."""

    psnr: float  # dB, see `PsnrMeter.combined`
    ms_ssim: float | None
    vmaf: float | None


METRICS = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM", "vmaf": "VMAF"}


class LevelMeter(AbstractContextManager["LevelMeter"]):
    """Takes in the frames of one level.

    Args:
        info: of the frames, at the size of the level.

    Raises:
        BackendError: a metric is not installed.
    """

    def __init__(self, info: VideoInfo) -> None:
        is_rgb, side = info.chroma is Chroma.RGB, min(info.width, info.height)
        self._info = info
        self._psnr = PsnrMeter(info.max_code, is_rgb=is_rgb)
        self._structural = (
            StructuralMeter(info.max_code, is_rgb=is_rgb, is_multiscale=True)
            if side >= smallest_side(is_multiscale=True)
            else None
        )
        self._vmaf = VmafMeter(info.max_code) if side >= MIN_SIDE else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._vmaf is not None:
            self._vmaf.close()

    def add(self, reference: Frame, picture: Frame) -> None:
        """One frame."""
        self._psnr.add(reference, picture)
        if self._structural is not None:
            self._structural.add(reference, picture)
        if self._vmaf is not None:
            self._vmaf.add(luma_of(reference, self._info), luma_of(picture, self._info))

    def finish(self) -> Quality:
        """Of all frames; to be asked for once."""
        return Quality(
            psnr=self._psnr.combined,
            ms_ssim=None if self._structural is None else self._structural.mean,
            vmaf=None if self._vmaf is None else fmean(self._vmaf.finish()),
        )
