"""Where a fit stays: on its rasteriser's device, if that has one, else in host memory."""

from __future__ import annotations

import torch

from pgsvc_codec.render.rasterizer import Rasterizer


def device_of(rasterizer: Rasterizer) -> torch.device | None:
    """The device of a `render.cuda` rasteriser, the CPU's where its kernels are interpreted; None: it has none."""
    device: torch.device | None = getattr(rasterizer, "device", None)
    return device
