"""Motion between frames, searched for wherever their splats are painted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.render.rasterizer import Rasterizer
from pgsvc_codec.splats import Splats
from pgsvc_codec.train import motion as host
from pgsvc_codec.train.motion import Motion
from pgsvc_codec.train.place import device_of


def estimate_motion(old: NDArray[np.float32], new: NDArray[np.float32], rasterizer: Rasterizer) -> Motion:
    """As `motion.estimate_motion`, on the device of the rasteriser."""
    device = device_of(rasterizer)
    if device is None:
        return host.estimate_motion(old, new)
    from pgsvc_codec.train.cuda import motion as cuda

    return cuda.estimate_motion(old, new, device)


def follow(splats: Splats, motion: Motion, rasterizer: Rasterizer) -> NDArray[np.float32]:
    """As `motion.follow`, on the device of the rasteriser."""
    device = device_of(rasterizer)
    if device is None:
        return host.follow(splats, motion)
    from pgsvc_codec.train.cuda import motion as cuda

    return cuda.follow(splats, motion, device)
