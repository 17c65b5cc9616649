"""The integers that a splat of the `main` profile is, their steps, and the floats they stand for (spec §7.1).

    position    x, y in 1/64 full-size pixel from the frame's upper left corner: pixel centre i lies at 64 i + 32
    shape       256 log2 l1, 256 t, 256 log2 l3 with L = [[l1, 0], [t l3, l3]], lengths in full-size pixels
    amplitude   4096 a, a = colour * sqrt(pi l1 l3): |a|^2 is the squared error of leaving an isolated splat out

Everything here but `splats_of` and `parameters_of` is integer arithmetic, so that all machines agree.

One number D, the *step* of the amplitudes, sets all steps.  A splat of amplitude a has the *class* e = log2(|a| / D),
rounded: a change of its shape or place by a given share of itself costs |a|^2 times as much, so its other steps are
2^-e times as wide as those of a splat with |a| = D.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.format.constants import MAX_SIDE
from pgsvc_codec.splats import IntArray, Splats, SplatState

POSITION_BITS = 6
SHAPE_BITS = 8
AMPLITUDE_BITS = 12

# The steps D that a payload can name, in units of amplitudes; eight to the octave.
STEPS = tuple(math.floor(16 * 2 ** (index / 8) + 0.5) for index in range(96))
MAX_CLASS = 8

MIN_LOG_LENGTH, MAX_LOG_LENGTH = -2 << SHAPE_BITS, (12 << SHAPE_BITS) - 1  # a quarter of a pixel to 4096 pixels
MAX_SHEAR = (64 << SHAPE_BITS) - 1
MAX_AMPLITUDE = (1 << 24) - 1
_MARGIN = 256 << POSITION_BITS  # that slots may leave the frame by
MIN_POSITION, MAX_POSITION = -_MARGIN, (MAX_SIDE << POSITION_BITS) + _MARGIN - 1

CELL_BITS = 3 + POSITION_BITS  # a cell of 8 pixels: no step of a position is wider

# Orthonormal, so that one D serves all channels: rows are the axes of amplitudes of RGB streams.
OPPONENT = np.array(
    [
        [1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)],
        [1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)],
        [-1 / math.sqrt(6), 2 / math.sqrt(6), -1 / math.sqrt(6)],
    ]
)


def parts_of(state: SplatState) -> tuple[IntArray, IntArray, IntArray]:
    """Positions, shapes and amplitudes."""
    return state.positions, state.shapes, state.amplitudes


def classes_of(amplitudes: IntArray, step: int) -> IntArray:
    """[N] the largest e <= MAX_CLASS with 2 |a|^2 >= 4^e D^2, 0 where there is none."""
    wide = amplitudes.astype(np.int64)
    energies = 2 * np.einsum("nc,nc->n", wide, wide)
    bounds = np.int64(step) ** 2 << 2 * np.arange(1, MAX_CLASS + 1, dtype=np.int64)
    classes: IntArray = np.searchsorted(bounds, energies, side="right").astype(np.int32)
    return classes


def shape_shifts(classes: IntArray) -> IntArray:
    """[N] log2 of the step of each shape parameter: one octave, a shear of one, where the class is 0."""
    shifts: IntArray = np.int32(SHAPE_BITS) - classes
    return shifts


def position_shifts(shapes: IntArray, classes: IntArray) -> IntArray:
    """[N, 2] log2 of the steps of x and y: about l1 and l3 over 2^e, at most a cell."""
    octaves = (shapes[:, ::2] + (1 << SHAPE_BITS - 1)) >> SHAPE_BITS
    shifts: IntArray = np.clip(octaves + POSITION_BITS - classes[:, None], 0, CELL_BITS).astype(np.int32)
    return shifts


class IntraSymbols(NamedTuple):
    """Splats coded whole, as multiples of their own steps.

    With h the shift of a parameter: amplitude = k D; log lengths and positions lie in the middle of cells of their
    lattice, (v << h) + (1 << h >> 1); the shear v << h has a zero.  k -> class -> shapes -> positions.
    """

    amplitudes: IntArray  # [N, C] k
    shapes: IntArray  # [N, 3] v
    positions: IntArray  # [N, 2] v


def _middles(values: IntArray, shifts: IntArray) -> IntArray:
    return (values << shifts) + (np.int32(1) << shifts >> 1)


def state_of(symbols: IntraSymbols, step: int) -> SplatState:
    """The splats that symbols stand for."""
    amplitudes = symbols.amplitudes * np.int32(step)
    classes = classes_of(amplitudes, step)
    shifts = shape_shifts(classes)
    lengths = _middles(symbols.shapes[:, ::2], shifts[:, None])
    shapes = np.stack([lengths[:, 0], symbols.shapes[:, 1] << shifts, lengths[:, 1]], axis=1)
    return SplatState(_middles(symbols.positions, position_shifts(shapes, classes)), shapes, amplitudes)


def symbols_of(state: SplatState, step: int) -> IntraSymbols:
    """The symbols of splats.

    Raises:
        ValueError: a splat does not lie on its own lattice for this step.
    """
    classes = classes_of(state.amplitudes, step)
    shifts = shape_shifts(classes)
    symbols = IntraSymbols(
        state.amplitudes // np.int32(step),
        state.shapes >> shifts[:, None],
        state.positions >> position_shifts(state.shapes, classes),
    )
    if not state_of(symbols, step).equals(state):
        raise ValueError(f"splats: not all lie on their lattice for step {step}")
    return symbols


def lengths_of(shapes: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N] l1 and l3 in full-size pixels, from shapes [N, 3]."""
    l1, l3 = np.exp2(shapes[:, ::2].T / float(1 << SHAPE_BITS))
    return l1, l3


def splats_of(state: SplatState, width: int, height: int, *, opponent: bool) -> Splats:
    """What a renderer draws.

    Args:
        state: of a frame, or a part of it.
        width: full-size luma samples per row.
        height: full-size rows.
        opponent: amplitudes lie on the axes of `OPPONENT`, that is, the stream is RGB.
    """
    l1, l3 = lengths_of(state.shapes)
    means = state.positions / (np.array([width, height]) * float(1 << POSITION_BITS - 1)) - 1
    cholesky = np.stack([l1, state.shapes[:, 1] / float(1 << SHAPE_BITS) * l3, l3], axis=1)
    amplitudes = state.amplitudes / float(1 << AMPLITUDE_BITS)
    colors = (amplitudes @ OPPONENT if opponent else amplitudes) / np.sqrt(math.pi * l1 * l3)[:, None]
    return Splats(means.astype(np.float32), cholesky.astype(np.float32), colors.astype(np.float32))


def parameters_of(splats: Splats, width: int, height: int, *, opponent: bool) -> tuple[NDArray[np.float64], ...]:
    """Positions [N, 2], shapes [N, 3] and amplitudes [N, C] of floats in the units of `SplatState`, not rounded."""
    l1, l2, l3 = splats.cholesky.T.astype(np.float64)
    l2, l1, l3 = l2 * np.sign(l1), np.abs(l1), np.abs(l3)  # a column of L may change sign
    positions = (splats.means.astype(np.float64) + 1) * np.array([width, height]) * (1 << POSITION_BITS - 1)
    shapes = np.stack([np.log2(l1), l2 / l3, np.log2(l3)], axis=1) * (1 << SHAPE_BITS)
    colors = splats.colors.astype(np.float64)
    amplitudes = (colors @ OPPONENT.T if opponent else colors) * np.sqrt(math.pi * l1 * l3)[:, None]
    return positions, shapes, amplitudes * (1 << AMPLITUDE_BITS)
