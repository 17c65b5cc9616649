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

from pgsvc_codec.coding.main.state import POSITION_BITS, SHAPE_BITS, lengths_of
from pgsvc_codec.splats import IntArray

TILE_BITS = (9, 8, 7, 6, 5, 4)  # log2 of tiles' sides in pixels, largest first
_ORDERED = 8  # bits of tiles of large splats, which go by size: what a larger one lacks, smaller ones mend
# Times its reach that a splat may have before it counts as larger: it may move and grow; far before it is settled, but
# where that would cost the most time.
_SLACK, _LOOSE_SLACK = 1.5, 3.0
_HAIR = np.array([1, -1, 1, -1]) / 64  # pixels that bounds keep clear, whatever is rounded
_LEAST_CUTOFF = 2 * math.log(4080.0)  # of a colour of 1, which few splats exceed


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
    positions, shapes = states[0]
    slacks = np.full(len(loose), _SLACK), np.where(loose, _LOOSE_SLACK, _SLACK)
    near, far = ([_ends(*state, slack) for state in states] for slack in slacks)
    size = np.full(len(positions), -1)
    for index, bits in enumerate(TILE_BITS):
        side = float(1 << bits)
        corners = (np.maximum(positions, 0) >> bits + POSITION_BITS) * side
        ends = far if bits < _ORDERED else near
        fits = [(first >= corners - side / 2) & (last < corners + 1.5 * side) for first, last in ends]
        size[np.all(fits, axis=(0, 2))] = index
    large = np.flatnonzero(size < 0)
    large = large[np.argsort(-(shapes[:, 0] + shapes[:, 2])[large], kind="stable")]
    small = np.flatnonzero(size >= 0)
    places = np.maximum(positions[small], 0) >> (np.array(TILE_BITS)[size[small]] + POSITION_BITS)[:, None]
    keys = np.stack([places[:, 0], places[:, 1], places[:, 0] % 2 + 2 * (places[:, 1] % 2), size[small]])
    by_size = np.where(size[small] <= TILE_BITS.index(_ORDERED), -(shapes[:, 0] + shapes[:, 2])[small], 0)
    order = np.lexsort([by_size, *keys])
    keys = keys[:, order]
    begins = np.flatnonzero((np.diff(keys, prepend=-1) != 0).any(axis=0))
    tiles = keys[:, begins]
    sides = np.exp2(np.array(TILE_BITS))[tiles[3]]
    bounds = np.empty((len(begins) + 1, 4), np.float32)
    bounds[:-1] = (tiles[[0, 0, 1, 1]] + np.array([[-0.5], [1.5], [-0.5], [1.5]])).T * sides[:, None] + _HAIR
    bounds[-1] = [-np.inf, np.inf, -np.inf, np.inf]
    firsts = np.flatnonzero((np.diff(tiles[2:], prepend=-1) != 0).any(axis=0))
    counts = np.diff(firsts, append=len(begins))
    bits = np.array(TILE_BITS)[tiles[3, firsts]]
    return Tiles(
        np.concatenate([small[order], large]).astype(np.int32),
        np.append(begins, len(small)).astype(np.int32),
        bounds,
        [Group(*numbers) for numbers in zip(firsts.tolist(), counts.tolist(), bits.tolist(), strict=True)],
    )


def _ends(
    positions: IntArray, shapes: IntArray, slack: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N, 2] least and largest x and y that splats may reach."""
    centers = positions / float(1 << POSITION_BITS) - 0.5
    l1, l3 = lengths_of(shapes)
    shear = shapes[:, 1] / float(1 << SHAPE_BITS)
    reach = np.stack([l1, l3 * np.sqrt(1 + shear**2)], axis=1) * (math.sqrt(_LEAST_CUTOFF) * slack)[:, None]
    return centers - reach, centers + reach
