"""What splats of a layer cost in bits: a snapshot, as plain tables for training, of symbols as in spec §7.4.

The coder's models adapt along the payload and look at neighbours; training needs prices that stand still while it
weighs one splat against the other.  `intra_costs` counts the symbols of a layer as it is now, in the contexts that a
splat knows of itself, and `IntraCosts` holds -log2 of their smoothed shares.  A splat coded whole with the symbols k, v
(see `state.IntraSymbols`), class e, position shifts hx, hy and octaves o1 = v1 >> e, o3 = v3 >> e, from -2 to 11, costs

    colors[c, context, min(|k_c|, 1023)]    c = 0: context 0; c = 1: digits(|k_0|); c = 2: digits(|k_1| + (|k_0| >> 2));
                                            digits is the number of binary digits, at most 5
    color_signs[c, context, k_c < 0]        where k_c is not 0; context 0 if c = 0 or k_(c-1) = 0, 1 if > 0, 2 if < 0
    lengths_1[e, o1 + 2]
    lengths_3[e, o1 + 2, o3 + 2]
    fractions[0, min(e, 2), o1 + 2, f1]     f: the highest fraction bits, (v >> max(e - 2, 0)) & (2^min(e, 2) - 1)
    fractions[1, min(e, 2), o3 + 2, f3]
    2 max(e - 2, 0)                         their other fraction bits
    shears[e, min(|v2|, 2047)]              the sign included
    (9 - hx) + (9 - hy)                     the position in its cell
    cells_fewer[y >> 9, x >> 9]             its share of the counts of cells, if it is there already; else `cells_more`

Estimates of a whole layer lie within some percent of its payload.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import coded_splats
from pgsvc_codec.coding.main.intra import grid_shape
from pgsvc_codec.coding.main.state import CELL_BITS, MAX_CLASS, classes_of, position_shifts, symbols_of
from pgsvc_codec.jit import kernel
from pgsvc_codec.splats import FloatArray, IntArray, SplatState

MOST_COLOR = 1023
MOST_SHEAR = 2047
_COLOR_CONTEXTS = 6
_SIGN_CONTEXTS = 3
_CELL_CONTEXTS = 10
_OCTAVES = 14
_LEAST_OCTAVE = -2
_DIGITS = 24
_SMOOTHING = 4.0  # symbols that a context borrows from all contexts together
_PEAK = 4  # counts of neighbours from which on they look alike
_MOST_NEAR = 6 * _PEAK
_MOST_COUNT = 64
# Of the cells that look at one: rows below it, columns to its right, how often each of its splats counts there.
_LOOKING = ((0, 1, 2), (1, 0, 2), (1, 1, 1), (1, -1, 1))


class IntraCosts(NamedTuple):
    """Bits of splats coded whole; the module says what is looked up where."""

    colors: FloatArray  # [C, 6, 1024]
    color_signs: FloatArray  # [C, 3, 2]
    lengths_1: FloatArray  # [9, 14]
    lengths_3: FloatArray  # [9, 14, 14]
    fractions: FloatArray  # [2, 3, 14, 4]
    shears: FloatArray  # [9, 2048]
    cells_more: FloatArray  # [rows, columns] of 8 × 8 pixels: bits that one more splat in this cell adds to all counts
    cells_fewer: FloatArray  # [rows, columns] bits that one splat less takes from them; 0 where there is none
    cells_total: float  # bits of all counts together


def intra_costs(state: SplatState, step: int, width: int, height: int) -> IntraCosts:
    """Prices from the splats of a layer.

    Args:
        state: of the layer, on its lattices for the step; inside the frame.
        step: D.
        width: full-size luma samples per row.
        height: full-size rows.

    Raises:
        ValueError: a splat does not lie on its lattice.
    """
    grid = grid_shape(width, height)
    cells = np.clip(state.positions >> CELL_BITS, 0, np.array(grid[::-1]) - 1)
    counts = np.bincount(cells[:, 1] * grid[1] + cells[:, 0], minlength=grid[0] * grid[1]).reshape(grid)
    more, fewer, total = _cell_bits(counts)
    return IntraCosts(*_symbol_bits(state, step), _single(more), _single(fewer), total)


def sparse_costs(state: SplatState, step: int, width: int, height: int, cell: float) -> IntraCosts:
    """Prices of splats so few that distances of their cells are coded, wherever they are.

    Args:
        state: as that of `intra_costs`, of splats like these; likewise step, width and height.
        cell: bits of each one's cell.

    Raises:
        ValueError: a splat does not lie on its lattice.
    """
    each = np.full(grid_shape(width, height), cell, np.float32)
    return IntraCosts(*_symbol_bits(state, step), each, each, 0.0)


def _symbol_bits(
    state: SplatState, step: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """The tables of `IntraCosts` that say nothing of cells, in their order."""
    symbols = symbols_of(state, step)
    classes = classes_of(state.amplitudes, step)
    octaves = (symbols.shapes[:, ::2] >> classes[:, None]) - _LEAST_OCTAVE
    pairs = np.stack([_fraction_bits(octaves[:, axis], symbols.shapes[:, 2 * axis], classes) for axis in range(2)])
    lengths_1 = _category_bits(octaves[:, 0], classes, MAX_CLASS + 1, _OCTAVES)
    joint = _category_bits(octaves[:, 1], octaves[:, 0], _OCTAVES, _OCTAVES)
    shears = _magnitude_bits(np.abs(symbols.shapes[:, 1]), classes, MAX_CLASS + 1, MOST_SHEAR)
    shears[:, 1:] += 1
    lengths_3 = np.broadcast_to(joint, (MAX_CLASS + 1, _OCTAVES, _OCTAVES))
    colors, signs = _color_bits(symbols.amplitudes)
    return _single(colors), _single(signs), _single(lengths_1), _single(lengths_3), _single(pairs), _single(shears)


def _single(table: NDArray[np.float64]) -> FloatArray:
    return np.ascontiguousarray(table, np.float32)


def intra_bits(state: SplatState, step: int, costs: IntraCosts) -> NDArray[np.float64]:
    """[N] bits of each splat of a layer, coded whole; its share of the counts of cells is not in them.

    Raises:
        ValueError: a splat does not lie on its lattice.
    """
    symbols = symbols_of(state, step)
    classes = classes_of(state.amplitudes, step)
    bits = np.zeros(len(state))
    for channel, (context, sign) in enumerate(_color_contexts(symbols.amplitudes)):
        k = symbols.amplitudes[:, channel]
        bits += costs.colors[channel, context, np.minimum(np.abs(k), MOST_COLOR)]
        bits += np.where(k != 0, costs.color_signs[channel, sign, (k < 0).astype(np.intp)], 0)
    octaves = (symbols.shapes[:, ::2] >> classes[:, None]) - _LEAST_OCTAVE
    bits += costs.lengths_1[classes, octaves[:, 0]] + costs.lengths_3[classes, octaves[:, 0], octaves[:, 1]]
    fine = np.minimum(classes, 2)
    for axis in range(2):
        top = symbols.shapes[:, 2 * axis] >> (classes - fine) & ((1 << fine) - 1)
        bits += costs.fractions[axis, fine, octaves[:, axis], top]
    bits += 2 * (classes - fine)
    bits += costs.shears[classes, np.minimum(np.abs(symbols.shapes[:, 1]), MOST_SHEAR)]
    bits += (CELL_BITS - position_shifts(state.shapes, classes)).sum(axis=1)
    return bits


def payload_bits(state: SplatState, step: int, costs: IntraCosts) -> float:
    """Bits of an I payload of a layer, but for the frame header.

    Raises:
        ValueError: a splat does not lie on its lattice.
    """
    return float(intra_bits(state, step, costs).sum()) + costs.cells_total + 8


def _digits(values: NDArray[np.signedinteger]) -> NDArray[np.intp]:
    return np.frexp(values.astype(np.float64))[1].astype(np.intp)


def _color_contexts(amplitudes: IntArray) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Per component, the contexts [N] of its magnitude and of its sign."""
    none = np.zeros(len(amplitudes), np.intp)
    contexts = [(none, none)]
    last = np.zeros(len(amplitudes), np.int64)
    for k in amplitudes.T[:-1]:
        last = np.abs(k) + (last >> 2)
        contexts.append((np.minimum(_digits(last), _COLOR_CONTEXTS - 1), np.select([k > 0, k < 0], [1, 2], 0)))
    return contexts


def _color_bits(amplitudes: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    magnitudes, signs = [], []
    for k, (context, sign) in zip(amplitudes.T, _color_contexts(amplitudes), strict=True):
        magnitudes.append(_magnitude_bits(np.abs(k), context, _COLOR_CONTEXTS, MOST_COLOR))
        signs.append(_category_bits((k[k != 0] < 0).astype(np.intp), sign[k != 0], _SIGN_CONTEXTS, 2))
    return np.stack(magnitudes), np.stack(signs)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[contexts, categories] smoothed shares of each context; a context with few symbols is like all together."""
    pooled = counts.sum(axis=0) + 0.5
    borrowed = counts + _SMOOTHING * pooled / pooled.sum()
    shares: NDArray[np.float64] = borrowed / borrowed.sum(axis=1, keepdims=True)
    return shares


def _category_bits(
    values: NDArray[np.signedinteger], contexts: NDArray[np.signedinteger], num_contexts: int, num_values: int
) -> NDArray[np.float64]:
    """[contexts, values] bits of a symbol of a small alphabet."""
    flat = np.bincount(contexts * num_values + values, minlength=num_contexts * num_values).astype(np.float64)
    return _bits_of(flat.reshape(num_contexts, num_values))


def _bits_of(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[contexts, values] of symbols that have been seen so often."""
    bits: NDArray[np.float64] = -np.log2(_shares(counts))
    return bits


class _Magnitudes(NamedTuple):
    """How magnitudes are split, as the kernels do: a length, two digits behind the leading one, the rest."""

    lengths: NDArray[np.intp]  # [most + 1]
    is_coded: list[NDArray[np.bool_]]  # [most + 1] for each digit: it has a model
    digits: list[NDArray[np.intp]]  # [most + 1] likewise, where it is found: (length, digit before, digit)
    rest: NDArray[np.intp]  # [most + 1] bits of further digits


@cache
def _magnitudes(most: int) -> _Magnitudes:
    """Those up to `most`."""
    values = np.arange(most + 1)
    lengths = _digits(values)
    coded = [lengths >= 2 + place for place in range(2)]
    below = [values >> np.maximum(lengths - 2 - place, 0) & ((2 << place) - 1) for place in range(2)]
    rest = np.maximum(lengths - 1, 0) - coded[0] - coded[1]
    return _Magnitudes(lengths, coded, [4 * lengths + digits for digits in below], rest)


def _magnitude_bits(
    values: NDArray[np.signedinteger], contexts: NDArray[np.signedinteger], num_contexts: int, most: int
) -> NDArray[np.float64]:
    """[contexts, most + 1] bits of magnitudes."""
    lengths, digits = np.zeros((num_contexts, _DIGITS)), np.zeros((2, 2 * _DIGITS, 2))
    _count_magnitudes(values, contexts.astype(np.int64), lengths, digits)
    split = _magnitudes(most)
    bits: NDArray[np.float64] = _bits_of(lengths)[:, split.lengths]
    for counts, coded, places in zip(digits, split.is_coded, split.digits, strict=True):
        bits += np.where(coded, _bits_of(counts).ravel()[places], 0)
    return bits + split.rest


@kernel(nogil=True)
def _count_magnitudes(
    values: NDArray[np.signedinteger],
    contexts: NDArray[np.int64],
    lengths: NDArray[np.float64],
    digits: NDArray[np.float64],
) -> None:
    """Add [N] magnitudes to counts of lengths [contexts, 24] and of their digits [2, (length, digit before), digit]."""
    for n in range(len(values)):
        length = 0
        while values[n] >> length:
            length += 1
        lengths[contexts[n], length] += 1
        for place in range(2):
            if length >= 2 + place:
                below = values[n] >> (length - 2 - place) & ((2 << place) - 1)
                digits[place, 2 * length + (below >> 1), below & 1] += 1


def _fraction_bits(octaves: IntArray, values: IntArray, classes: IntArray) -> NDArray[np.float64]:
    """[3, 14, 4] bits of the highest none, one or two fraction bits of log lengths."""
    bits = np.zeros((3, _OCTAVES, 4))
    for fine in (1, 2):
        of = np.minimum(classes, 2) >= fine
        top = values[of] >> (classes[of] - fine) & ((1 << fine) - 1)
        bits[fine, :, : 1 << fine] = _category_bits(top, octaves[of], _OCTAVES, 1 << fine)
    return bits


def _cell_bits(counts: NDArray[np.signedinteger]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """What one more and one less splat in each cell changes, here and in neighbours' contexts, and the total."""
    padded = np.pad(np.minimum(counts, _PEAK), 1)
    rows, columns = counts.shape
    near = np.zeros(counts.shape, np.intp)
    for down, right, weight in _LOOKING:
        near += weight * padded[1 - down : 1 - down + rows, 1 - right : 1 - right + columns]
    context_of = np.array([coded_splats.cell_context(number) for number in range(_MOST_NEAR + 1)])
    capped = np.minimum(counts, _MOST_COUNT)
    table = _category_bits(capped.ravel(), context_of[near].ravel(), _CELL_CONTEXTS, _MOST_COUNT + 1)
    table = table[context_of]
    more, fewer = np.empty(counts.shape), np.empty(counts.shape)
    _cell_changes(counts, near, table, more, fewer)
    return more, fewer, float(table[near, capped].sum())


@kernel(nogil=True)
def _cell_changes(
    counts: NDArray[np.intp],
    near: NDArray[np.intp],
    table: NDArray[np.float64],
    more: NDArray[np.float64],
    fewer: NDArray[np.float64],
) -> None:
    """Into `more` and `fewer`: what one more and one less in each cell changes; `table` says by sum and count."""
    rows, columns = counts.shape
    for row in range(rows):
        for column in range(columns):
            count = counts[row, column]
            for change in (1, -1):
                changed = count + change
                bits = 0.0
                if changed >= 0:
                    before = table[near[row, column], min(count, _MOST_COUNT)]
                    bits = table[near[row, column], min(changed, _MOST_COUNT)] - before
                    moved = min(changed, _PEAK) - min(count, _PEAK)
                    # those that look at this cell lie to the right of it and below
                    for down, right, weight in _LOOKING:
                        if row + down < rows and 0 <= column + right < columns:
                            around, own = near[row + down, column + right], counts[row + down, column + right]
                            now = min(max(around + weight * moved, 0), _MOST_NEAR)
                            own = min(own, _MOST_COUNT)
                            bits += table[now, own] - table[around, own]
                if change > 0:
                    more[row, column] = bits
                else:
                    fewer[row, column] = -bits
