"""Splats coded whole: counts of the cells of a grid, which are also their order, then their symbols (spec §7.4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import coded_splats, range_coder
from pgsvc_codec.coding.main.state import (
    CELL_BITS,
    MAX_AMPLITUDE,
    MAX_LOG_LENGTH,
    MAX_SHEAR,
    MIN_LOG_LENGTH,
    POSITION_BITS,
    SHAPE_BITS,
    STEPS,
    IntraSymbols,
    classes_of,
    position_shifts,
    symbols_of,
)
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.format.constants import MAX_SPLATS
from pgsvc_codec.splats import IntArray, SplatState

_CELL_PIXELS = 1 << CELL_BITS - POSITION_BITS
_LEAST_OCTAVE, _END_OCTAVE = MIN_LOG_LENGTH >> SHAPE_BITS, MAX_LOG_LENGTH + 1 >> SHAPE_BITS


class CellSymbols(NamedTuple):
    """Splats in the order in which they are coded, as the kernels take them."""

    cells: IntArray  # [N] in raster order, rising
    amplitudes: IntArray  # [N, C] k
    shapes: IntArray  # [N, 3] v, those of lengths counted from the least length on
    places: IntArray  # [N, 2] v within the cell


def grid_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of cells of a frame of width × height full-size pixels."""
    return -(-height // _CELL_PIXELS), -(-width // _CELL_PIXELS)


def cell_symbols(state: SplatState, step: int, grid: tuple[int, int]) -> tuple[CellSymbols, NDArray[np.intp]]:
    """What codes splats whole, and the row of `state` that each coded splat came from.

    The order is by cells, within a cell by falling magnitude of the first colour.

    Raises:
        ValueError: a splat lies outside the grid or not on its lattice, or is out of limits.
    """
    symbols = symbols_of(state, step)
    cells = state.positions >> CELL_BITS
    if len(state) and not ((cells >= 0) & (cells < np.array(grid[::-1]))).all():
        raise ValueError(f"splats: one lies outside the grid of {grid[0]} x {grid[1]} cells")
    fault = _out_of_limits(symbols, step)
    if fault:
        raise ValueError(f"splats: {fault}")
    places = cells[:, 1] * np.int32(grid[1]) + cells[:, 0]
    order = np.lexsort((-np.abs(symbols.amplitudes[:, 0]), places))
    places = places[order]
    symbols = IntraSymbols(*(np.ascontiguousarray(part[order]) for part in symbols))
    classes = classes_of(symbols.amplitudes, 1)
    shifts = position_shifts(state.shapes[order], classes)
    shapes = symbols.shapes - _least_lengths(classes)
    inner = symbols.positions & ((1 << CELL_BITS - shifts) - 1)
    return CellSymbols(places, symbols.amplitudes, shapes, inner), order


def write_whole(
    coder: range_coder.Coder, symbols: CellSymbols, step: int, grid: tuple[int, int], *, sparse: bool
) -> None:
    """Append splats coded whole; where they are few, `sparse`, distances of cells take the place of counts."""
    if sparse:
        coded_splats.code_gaps(coder, symbols.cells, grid[0] * grid[1])
    else:
        counts = np.bincount(symbols.cells, minlength=grid[0] * grid[1]).astype(np.int32)
        coded_splats.code_cells(coder, counts.reshape(grid), MAX_SPLATS)
    coded_splats.code_whole(coder, step, *grid, *symbols)


def read_counted(coder: range_coder.Coder, step: int, grid: tuple[int, int], channels: int) -> SplatState:
    """Read splats coded whole, from the counts of their cells on.

    Raises:
        CorruptError: there are too many, or one is out of limits.
    """
    counts = np.zeros(grid, np.int32)
    if coded_splats.code_cells(coder, counts, MAX_SPLATS) < 0:
        raise CorruptError(f"cells: got more than {MAX_SPLATS} splats, allowed {MAX_SPLATS}")
    cells = np.repeat(np.arange(counts.size, dtype=np.int32), counts.ravel())
    return _read_splats(coder, cells, step, grid, channels)


def read_sparse(coder: range_coder.Coder, number: int, step: int, grid: tuple[int, int], channels: int) -> SplatState:
    """Read so many splats coded whole, from the distances of their cells on.

    Raises:
        CorruptError: one is out of limits.
    """
    cells = np.zeros(number, np.int32)
    if coded_splats.code_gaps(coder, cells, grid[0] * grid[1]) < 0:
        raise CorruptError(f"new splats: one lies behind the last of {grid[0]} x {grid[1]} cells")
    return _read_splats(coder, cells, step, grid, channels)


def _read_splats(
    coder: range_coder.Coder, cells: IntArray, step: int, grid: tuple[int, int], channels: int
) -> SplatState:
    amplitudes, shapes, positions = (np.zeros((len(cells), width), np.int32) for width in (channels, 3, 2))
    if coded_splats.code_whole(coder, step, *grid, cells, amplitudes, shapes, positions):
        raise CorruptError(f"splats: got an amplitude or a shear out of limits with step {step}")
    return SplatState(positions, shapes, amplitudes)


def _least_lengths(classes: IntArray) -> IntArray:
    """[N, 3] what is subtracted from the symbols of shapes, so that those of lengths are not negative."""
    least = np.zeros((len(classes), 3), np.int32)
    least[:, ::2] = (np.int32(_LEAST_OCTAVE) << classes)[:, None]
    return least


def _out_of_limits(symbols: IntraSymbols, step: int) -> str | None:
    """What is wrong with symbols whose state could not be held."""
    most = MAX_AMPLITUDE // step
    if (np.abs(symbols.amplitudes) > most).any():
        return f"got an amplitude of {np.abs(symbols.amplitudes).max()} D, allowed {most} D"
    classes = classes_of(symbols.amplitudes, 1)
    if (np.abs(symbols.shapes[:, 1]) > MAX_SHEAR >> np.int32(SHAPE_BITS) - classes).any():
        return f"got a shear of more than {MAX_SHEAR} / {1 << SHAPE_BITS}"
    lengths = symbols.shapes[:, ::2]
    octaves = lengths >> classes[:, None]
    if ((octaves < _LEAST_OCTAVE) | (octaves >= _END_OCTAVE)).any():
        return f"got a length outside 2^{_LEAST_OCTAVE}..2^{_END_OCTAVE} pixels"
    return None


def capacity(number: int, grid: tuple[int, int]) -> int:
    """Bytes that suffice for so many splats coded whole: two for each bit with a model, of which numbers have 24."""
    return 2 * grid[0] * grid[1] + 512 * number


def step_of(index: int) -> int:
    """D of a step index.

    Raises:
        CorruptError: there is no such step.
    """
    if not 0 <= index < len(STEPS):
        raise CorruptError(f"step index: got {index}, allowed 0..{len(STEPS) - 1}")
    return STEPS[index]
