"""Where the splats of a new picture start: positions by detail, sizes by how densely they lie (I-frames)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.tuning import DEFAULTS, Tuning

_MIN_LENGTH = 0.5  # pixels
_COLOR_SHARE = 0.1  # of the picture's colour that a splat starts with: a splat of no colour has no gradient


def mean_background(picture: UnitFrame) -> NDArray[np.float32]:
    """[C] mean of each plane, on the 8-bit grid that the stream has for it."""
    return np.array([np.rint(plane.mean(dtype=np.float64) * 255) / 255 for plane in picture], np.float32)


def start_splats(
    objective: Objective,
    background: NDArray[np.float32],
    ends: Sequence[int],
    rng: np.random.Generator,
    tuning: Tuning = DEFAULTS,
    awake: float = 1.0,
) -> Splats:
    """Splats for a fit to begin with, layer after layer, each layer spread over the whole picture of the top level.

    Only a share `awake` of each layer has a colour.  The others show nothing, so that nothing is lost when they are the
    first to be sent where error is left: a layer grows (GaussianImage++).
    """
    picture = objective.targets[-1].picture
    height, width = picture[0].shape
    pitch = objective.width / width  # full-size pixels per sample
    guide = np.mean(picture, axis=0) if len({plane.shape for plane in picture}) == 1 else picture[0]
    slopes = [np.gradient(guide, axis=axis) if guide.shape[axis] > 1 else np.zeros_like(guide) for axis in (0, 1)]
    detail = np.hypot(*slopes).astype(np.float64) + 1e-6
    density = (tuning.detail_share * detail / detail.sum() + (1 - tuning.detail_share) / detail.size).ravel()
    count = ends[-1]
    # a picture with fewer pixels than splats starts several at one place; they part as they are fitted
    places = rng.choice(density.size, count, replace=count > density.size, p=density / density.sum())
    rows, columns = np.divmod(places, width)

    layer_sizes = np.diff([0, *ends])
    splats_here = density[places] * np.repeat(layer_sizes, layer_sizes)  # of this layer, per pixel
    lengths = np.maximum(tuning.start_size / np.sqrt(splats_here) * pitch, _MIN_LENGTH)
    cholesky = np.stack([lengths, np.zeros(count), lengths], axis=1)
    colors = [
        plane[rows * plane.shape[0] // height, columns * plane.shape[1] // width] - under
        for plane, under in zip(picture, background, strict=True)
    ]
    # off the pixel centres by a little, or equal neighbours would stay equal
    means = np.stack([2 * (columns + 0.5) / width - 1, 2 * (rows + 0.5) / height - 1], axis=1)
    means += rng.uniform(-0.25, 0.25, means.shape) * 2 / np.array([width, height])
    shown = _COLOR_SHARE * np.stack(colors, axis=1).astype(np.float32)
    place_in_layer = np.arange(count) - np.repeat(np.array(ends) - layer_sizes, layer_sizes)
    shown[place_in_layer >= np.ceil(awake * np.repeat(layer_sizes, layer_sizes))] = 0
    return Splats(means.astype(np.float32), cholesky.astype(np.float32), shown)
