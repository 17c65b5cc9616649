"""In which order splats are settled, and which of them at the same time.

Splats settle one after the other, each against what those before it have left.  Those that are large come first; the
others are cut by where they are into tiles of four colours, like a chessboard of 2 x 2 fields, and stay within half a
tile around their own.  Tiles of one colour then never touch the same sample, so that they can go at the same time,
and what comes out is the same whoever takes which tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import POSITION_BITS, SHAPE_BITS, lengths_of
from pgsvc_codec.splats import IntArray
from pgsvc_codec.train.main.refine_sums import LANES

_TILE_BITS = 7  # log2 of a tile's side in pixels
_CELL_BITS = 5  # log2 of the side of cells, in pixels: what is worked on lies close together
_SLACK = 1.2  # times its reach that a splat may have before it counts as large: it may grow
_LEAST_CUTOFF = 2 * math.log(4080.0)  # of a colour of 1, which few splats exceed


class Tile(NamedTuple):
    """Splats that settle one after the other."""

    rows: NDArray[np.int64]
    bounds: NDArray[np.float64]  # least x, end of x, least y, end of y in pixels that they may touch


class Visits(NamedTuple):
    """All splats of a layer, in order."""

    large: Tile
    colors: list[list[Tile]]  # tiles that may go at the same time

    def go(self, settle: Callable[[NDArray[np.int64], NDArray[np.float64]], Any]) -> None:
        """Call `settle` with the rows and bounds of every tile; it holds no lock and changes those rows alone."""
        settle(*self.large)
        for tiles in self.colors:
            if get_num_threads() == 1 or len(tiles) == 1:
                for tile in tiles:
                    settle(*tile)
            else:
                for done in [_threads().submit(settle, *tile) for tile in tiles]:
                    done.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(get_num_threads(), thread_name_prefix="refinement")


def visits(states: Sequence[tuple[IntArray, IntArray]], spacing: float) -> Visits:
    """Cut the splats of a layer, by what they are and nothing else.

    Args:
        states: one or more that splats may have: positions [N, 2] in 1/64 pixels and shapes [N, 3] in 1/256.  The
            first says in which tile a splat belongs; one that leaves the bounds of that tile in any is large.
        spacing: pixels from sample to sample of the coarsest grid.
    """
    positions, shapes = states[0]
    places = np.maximum(positions >> _TILE_BITS + POSITION_BITS, 0)
    inside = np.ones(len(positions), np.bool_)
    for state in states:
        inside &= _is_inside(*state, places * float(1 << _TILE_BITS), spacing)
    cells = positions >> _CELL_BITS + POSITION_BITS
    near = np.lexsort((cells[:, 0], cells[:, 1]))
    large = np.flatnonzero(~inside)
    large = large[np.argsort(-(shapes[:, 0] + shapes[:, 2])[large], kind="stable")]
    everywhere = np.array([-np.inf, np.inf, -np.inf, np.inf])
    colors: list[list[Tile]] = [[], [], [], []]
    small = near[inside[near]]
    keys = places[small]
    across = int(keys[:, 0].max(initial=0)) + 1
    flat = keys[:, 1] * across + keys[:, 0]
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    for rows in np.split(small[order], starts[1:]) if len(starts) else []:
        x, y = (int(place) for place in places[rows[0]])
        bounds = np.array([x - 0.5, x + 1.5, y - 0.5, y + 1.5]) * (1 << _TILE_BITS)
        colors[x % 2 + 2 * (y % 2)].append(Tile(rows.astype(np.int64), bounds))
    return Visits(Tile(large.astype(np.int64), everywhere), [tiles for tiles in colors if tiles])


def _is_inside(
    positions: IntArray, shapes: IntArray, corners: NDArray[np.float64], spacing: float
) -> NDArray[np.bool_]:
    """[N] whether splats stay well within half a tile around the tiles that begin at the given corners."""
    centers = positions / float(1 << POSITION_BITS) - 0.5
    l1, l3 = lengths_of(shapes)
    shear = shapes[:, 1] / float(1 << SHAPE_BITS)
    reach = math.sqrt(_LEAST_CUTOFF) * _SLACK * np.stack([l1, l3 * np.sqrt(1 + shear**2)], axis=1)
    ends = centers + reach + np.array([LANES * spacing, 0.0])
    side = float(1 << _TILE_BITS)
    inside: NDArray[np.bool_] = ((centers - reach >= corners - side / 2) & (ends < corners + 1.5 * side)).all(axis=1)
    return inside
