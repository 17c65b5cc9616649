"""In which order a GPU settles splats, and which of them at the same time.

As in `train.main.visits`, splats that fit into half a tile around their own never touch a sample that those of another
tile of the same colour touch.  Here tiles come in several sizes, and every splat is in the smallest that holds it:
small splats are many, and a program that settles them one after the other should not have many.  Larger splats go
first; those that fit nowhere go one by one, each worked on by many programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import POSITION_BITS, SHAPE_BITS
from pgsvc_codec.jit import kernel
from pgsvc_codec.splats import IntArray

TILE_BITS = (9, 8, 7, 6, 5, 4)  # log2 of tiles' sides in pixels, largest first
_ORDERED = 8  # bits of tiles of large splats, which go by size: what a larger one lacks, smaller ones mend
# Times its reach that a splat may have before it counts as larger: it may move and grow; far before it is settled, but
# where that would cost the most time.
_SLACK, _LOOSE_SLACK = 1.5, 3.0
_HAIR = np.array([1, -1, 1, -1]) / 64  # pixels that bounds keep clear, whatever is rounded
_LEAST_CUTOFF = 2 * math.log(4080.0)  # of a colour of 1, which few splats exceed

# A place is one number: size, colour, row, column, and what is left of the largest extent.
_EXTENT_BITS, _PLACE_BITS = 16, 20
_MOST_PLACE = (1 << _PLACE_BITS) - 1
_COLOR_SHIFT = 2 * _PLACE_BITS
_SIZE_SHIFT = _COLOR_SHIFT + 2
_MOST_EXTENT = 1 << _EXTENT_BITS - 1  # more than the sum of two log lengths


class Group(NamedTuple):
    """Tiles that go at the same time."""

    first: int
    number: int
    bits: int  # log2 of their side


class Tiles(NamedTuple):
    """The splats of a layer, in order."""

    order: IntArray  # [N] rows: those of all tiles, then large ones
    starts: IntArray  # [T + 1] where each tile's begin among them, and where large ones do
    bounds: NDArray[np.float32]  # [T + 1, 4] least x, end of x, least y, end of y; none for large ones
    groups: list[Group]


def cut(states: Sequence[tuple[IntArray, IntArray]], loose: NDArray[np.bool_]) -> Tiles:
    """Cut the splats of a layer, by what they are and nothing else.

    Args:
        states: one or more that splats may have: positions [N, 2] in 1/64 pixels and shapes [N, 3] in 1/256.  The
            first says in which tile a splat belongs; one that leaves the bounds of that tile in any is larger.
        loose: [N] not settled on their lattice yet.
    """
    positions, shapes = (np.stack(parts) for parts in zip(*states, strict=True))
    lengths = np.exp2(shapes[:, :, ::2] / float(1 << SHAPE_BITS))
    places = np.empty(len(loose), np.int64)
    _find_places(positions, shapes, lengths, loose, places)
    order = np.argsort(places, kind="stable")
    ordered = places[order] >> _EXTENT_BITS
    small = int(np.searchsorted(ordered, len(TILE_BITS) << _SIZE_SHIFT))
    begins = np.flatnonzero(np.diff(ordered[:small], prepend=-1))
    tiles = ordered[begins]
    bits = np.array(TILE_BITS)[tiles >> _SIZE_SHIFT]
    x, y = tiles & _MOST_PLACE, tiles >> _PLACE_BITS & _MOST_PLACE
    bounds = np.empty((len(begins) + 1, 4), np.float32)
    corners = np.stack([x, x, y, y], axis=1) + np.array([-0.5, 1.5, -0.5, 1.5])
    bounds[:-1] = corners * np.exp2(bits)[:, None] + _HAIR
    bounds[-1] = [-np.inf, np.inf, -np.inf, np.inf]
    firsts = np.flatnonzero(np.diff(tiles >> _COLOR_SHIFT, prepend=-1))
    counts = np.diff(firsts, append=len(begins))
    return Tiles(
        order.astype(np.int32),
        np.append(begins, small).astype(np.int32),
        bounds,
        [Group(*numbers) for numbers in zip(firsts.tolist(), counts.tolist(), bits[firsts].tolist(), strict=True)],
    )


@kernel(nogil=True, error_model="numpy")
def _find_places(
    positions: IntArray,
    shapes: IntArray,
    lengths: NDArray[np.float64],
    loose: NDArray[np.bool_],
    places: NDArray[np.int64],
) -> None:
    """Into `places` [N]: numbers that rise with size, colour, row and column of tiles, and with when splats go.

    Args:
        positions: [S, N, 2] of S states that splats may have.
        shapes: [S, N, 3] likewise.
        lengths: [S, N, 2] likewise, l1 and l3 in pixels.
        loose: see `cut`.
        places: a new one.
    """
    cutoff = math.sqrt(_LEAST_CUTOFF)
    for n in range(len(loose)):
        size = len(TILE_BITS) - 1
        while size >= 0:
            bits = TILE_BITS[size]
            side = float(1 << bits)
            slack = _LOOSE_SLACK if loose[n] and bits < _ORDERED else _SLACK
            inside = True
            for state in range(len(positions)):
                shear = shapes[state, n, 1] / float(1 << SHAPE_BITS)
                for axis in range(2):
                    reach = lengths[state, n, axis] * cutoff * slack
                    if axis:
                        reach *= math.sqrt(1 + shear**2)
                    center = positions[state, n, axis] / float(1 << POSITION_BITS) - 0.5
                    corner = (max(positions[0, n, axis], 0) >> bits + POSITION_BITS) * side
                    inside &= center - reach >= corner - side / 2 and center + reach < corner + 1.5 * side
            if inside:
                break
            size -= 1
        extent = _MOST_EXTENT - shapes[0, n, 0] - shapes[0, n, 2]
        if size < 0:
            places[n] = len(TILE_BITS) << _SIZE_SHIFT + _EXTENT_BITS | extent
            continue
        x = np.int64(max(positions[0, n, 0], 0) >> TILE_BITS[size] + POSITION_BITS)
        y = np.int64(max(positions[0, n, 1], 0) >> TILE_BITS[size] + POSITION_BITS)
        color = x % 2 + 2 * (y % 2)
        tile = size << _SIZE_SHIFT | color << _COLOR_SHIFT | y << _PLACE_BITS | x
        places[n] = tile << _EXTENT_BITS | (extent if TILE_BITS[size] >= _ORDERED else 0)
