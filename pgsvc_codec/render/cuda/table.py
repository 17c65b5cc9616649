"""Splats on a device, as kernels take them: of all pictures of a launch in one table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats


class SplatTable(NamedTuple):
    """Splats of all pictures of a launch; rows with all colours zero take no part.

    The order of a picture's rows is the order of its sums.
    """

    means: torch.Tensor  # [N, 2] float32 in full-size pixels, x then y; the centre of the first one is at 0
    cholesky: torch.Tensor  # [N, 3] float32 in full-size pixels
    colors: torch.Tensor  # [N, channels] float32
    pictures: torch.Tensor  # [N] int32
    layers: torch.Tensor  # [N] int32


def pixels_of(splats: Splats, size: tuple[int, int]) -> NDArray[np.float64]:
    """[N, 2] means in pixels of a picture of that width and height, as a table has them."""
    return (splats.means.astype(np.float64) + 1.0) * (np.array(size) / 2.0) - 0.5


def means_of(pixels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """[N, 2] normalised means of splats, the reverse of `pixels_of`."""
    means: NDArray[np.float32] = ((pixels + 0.5) * (2 / np.array(size)) - 1).astype(np.float32)
    return means


def blank_table(rows: int, channels: int, device: torch.device) -> SplatTable:
    """A table of rows that take no part."""
    return SplatTable(
        means=torch.zeros(rows, 2, device=device),
        cholesky=torch.ones(rows, 3, device=device),
        colors=torch.zeros(rows, channels, device=device),
        pictures=torch.zeros(rows, dtype=torch.int32, device=device),
        layers=torch.zeros(rows, dtype=torch.int32, device=device),
    )


def table_of(
    splats: Splats,
    size: tuple[int, int],
    layers: NDArray[np.integer],
    rows: int,
    device: torch.device,
    picture: int = 0,
) -> SplatTable:
    """Splats of one picture as a table on a device.

    Args:
        size: full width and height of the picture.
        layers: [N] of each splat.
        rows: of the table, at least N.
        picture: its number.
    """
    count = len(splats)

    def column(values: NDArray[np.floating], width: int) -> torch.Tensor:
        padded = np.zeros((rows, width), np.float32)
        padded[:count] = values
        return torch.from_numpy(padded).to(device)

    cholesky = np.ones((rows, 3), np.float32)  # rows that take no part are shaped like splats
    cholesky[:count] = splats.cholesky
    layer_of = np.zeros(rows, np.int32)
    layer_of[:count] = layers
    return SplatTable(
        column(pixels_of(splats, size), 2),
        torch.from_numpy(cholesky).to(device),
        column(splats.colors, splats.channels),
        torch.full((rows,), picture, dtype=torch.int32, device=device),
        torch.from_numpy(layer_of).to(device),
    )
