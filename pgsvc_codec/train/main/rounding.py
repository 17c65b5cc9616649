"""Splats to the nearest points of their lattices, one coordinate after the other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import (
    MAX_AMPLITUDE,
    MAX_LOG_LENGTH,
    MAX_SHEAR,
    MIN_LOG_LENGTH,
    POSITION_BITS,
    SHAPE_BITS,
    IntraSymbols,
    classes_of,
    lengths_of,
    parameters_of,
    position_shifts,
    shape_shifts,
    state_of,
)
from pgsvc_codec.splats import Splats, SplatState


def round_whole(splats: Splats, step: int, size: tuple[int, int], *, opponent: bool) -> SplatState:
    """Splats on their lattice, each coordinate rounded with what rounding those before it has done in view.

    The place slides along the ellipse: y follows the error of x, as the shear follows those of the log lengths.
    Splats all of whose amplitudes round to zero are left out.

    Args:
        splats: of one layer.
        step: D.
        size: full width and height of the frame.
        opponent: the stream is RGB.
    """
    positions, shapes, amplitudes = parameters_of(splats, *size, opponent=opponent)
    symbols = np.rint(amplitudes / step)
    symbols = np.clip(symbols, -(MAX_AMPLITUDE // step), MAX_AMPLITUDE // step).astype(np.int32)
    kept = (symbols != 0).any(axis=1)
    positions, shapes, symbols = positions[kept], shapes[kept], symbols[kept]
    classes = classes_of(symbols, 1)
    shifts = shape_shifts(classes)
    width = np.exp2(shifts)[:, None]
    bounds = np.array([MIN_LOG_LENGTH, MAX_LOG_LENGTH]) >> shifts[:, None]
    lengths = np.clip(np.floor(shapes[:, ::2] / width), bounds[:, :1], bounds[:, 1:])
    grown = ((lengths + 0.5) * width - shapes[:, ::2]) * math.log(2) / (1 << SHAPE_BITS)
    shear = shapes[:, 1] * (1 + grown[:, 0] - grown[:, 1])
    steepest = MAX_SHEAR >> shifts
    shear = np.clip(np.rint(shear / width[:, 0]), -steepest, steepest)
    shape_symbols = np.stack([lengths[:, 0], shear, lengths[:, 1]], axis=1).astype(np.int32)
    rounded = state_of(IntraSymbols(symbols, shape_symbols, np.zeros((len(symbols), 2), np.int32)), step)
    pitch = position_shifts(rounded.shapes, classes)
    l1, l3 = lengths_of(rounded.shapes)
    slope = rounded.shapes[:, 1] / (1 << SHAPE_BITS) * l3 / l1
    x = _nearest_place(positions[:, 0], pitch[:, 0], size[0])
    error = (x + 0.5) * np.exp2(pitch[:, 0]) - positions[:, 0]
    y = _nearest_place(positions[:, 1] + slope * error, pitch[:, 1], size[1])
    return state_of(IntraSymbols(symbols, shape_symbols, np.stack([x, y], axis=1).astype(np.int32)), step)


def _nearest_place(values: NDArray[np.float64], shifts: NDArray[np.int32], size: int) -> NDArray[np.float64]:
    """Symbols of one coordinate, within the frame."""
    return np.clip(np.floor(values / np.exp2(shifts)), 0, ((size << POSITION_BITS) - 1) >> shifts)
