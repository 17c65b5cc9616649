"""Splats coded whole, in the terms of the coder: the cells that they lie in, then what they are (spec §7.4, numba)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pgsvc_codec.coding.main.contexts import (
    CELL_MIX,
    CELL_STEPS,
    CELLS_NEAR,
    CELLS_PAIRS,
    CELLS_WIDE,
    CHANNELS,
    CHROMA_BELOW,
    CHROMA_DENSITY,
    CHROMA_NEAREST,
    CLASSES,
    COLOR_DIGITS,
    COLOR_MIX,
    DENSITIES,
    DIGIT_MODELS,
    DISTANCES,
    FRACTION_MODELS,
    FRACTIONS,
    GAP_DIGITS,
    GAPS,
    HALVES,
    LENGTH_MIX,
    LENGTHS,
    LENGTHS_CLASS,
    LENGTHS_DENSITY,
    LENGTHS_NEAREST,
    LUMA_BEFORE,
    LUMA_DENSITY,
    LUMA_NEAREST,
    NEAR,
    OCTAVES,
    SHEAR_DIGITS,
    SHEAR_MIX,
    SHEAR_SIGN_MIX,
    SHEAR_SIGNS,
    SHEARS_ASPECT,
    SHEARS_CLASS,
    SHEARS_LENGTH,
    SIGN_MIX,
    SIGNED_LEVELS,
    SIGNS_ALIKE,
    SIGNS_BELOW,
    SIGNS_NEAREST,
    SIZES,
    TREE,
)
from pgsvc_codec.coding.main.range_coder import (
    WRITING,
    code_bit,
    code_magnitude,
    code_mixed,
    code_mixed_magnitude,
    code_raw,
    compiled,
    digits_of,
)
from pgsvc_codec.coding.main.state import MAX_AMPLITUDE, MAX_CLASS, MAX_SHEAR

_MIDDLE = 4  # octave of lengths, where their models begin: four pixels or more

# Rows and columns to the cells up to two away that come before one in raster order, the nearest first.
_AROUND = np.array(
    [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1), (-2, -2), (-2, 2)],
    np.int64,
)
_ADJACENT = 4  # of them are one away


@compiled
def signed_level(value: Any, first: Any, second: Any, third: Any) -> Any:
    """Of a number with a sign, by three bounds."""
    size = abs(value)
    level = np.int64(size >= first) + np.int64(size >= second) + np.int64(size >= third)
    return 3 - level if value < 0 else 3 + level


@compiled
def sign_of(value: Any) -> Any:
    """-1, 0 or 1."""
    return np.int64(value > 0) - np.int64(value < 0)


@compiled
def class_of(energy: Any, square: Any) -> Any:
    """The class of a splat from the sum of its squared amplitudes and the square of D (`state.classes_of`)."""
    result = np.int64(0)
    while result < MAX_CLASS and 2 * energy >= square << 2 * (result + 1):
        result += 1
    return result


@compiled
def place_shift(log_length: Any, level: Any) -> Any:
    """log2 of the step of a splat's x or y (`state.position_shifts`)."""
    shift: Any = min(max((np.int64(log_length) + 128 >> 8) + 6 - level, 0), 9)
    return shift


@compiled
def code_cells(coder: Any, counts: Any, limit: Any) -> Any:
    """Numbers of splats of the cells [rows, columns]; returns their sum, -1 where it exceeds the limit."""
    rows, columns = counts.shape
    total = np.int64(0)
    capped = np.zeros((rows + 4, columns + 8), np.int64)  # a margin spares the edges
    above = np.zeros(columns + 8, np.int64)  # sums over four rows
    for row in range(rows):
        for column in range(columns + 8):
            above[column] += capped[row + 3, column]
            if row > 4:
                above[column] -= capped[row - 1, column]
        window = np.int64(0)
        for column in range(8):
            window += above[column]
        line, upper = capped[row + 4], capped[row + 3]
        for column in range(columns):
            window += above[column + 8]
            place = column + 4
            west, north, north_east = line[place - 1], upper[place], upper[place + 1]
            near = 2 * west + 2 * north + upper[place - 1] + north_east
            wide = window + west + line[place - 2] + line[place - 3] + line[place - 4]
            pair = 9 * min(west, 2) + 3 * min(north, 2) + min(north_east, 2)
            first = CELLS_NEAR + CELL_STEPS * cell_context(near)
            second = CELLS_WIDE + CELL_STEPS * _wide_context(wide)
            third = CELLS_PAIRS + CELL_STEPS * pair
            count = np.int64(counts[row, column])
            number = np.int64(0)
            step: Any = np.int64(0)
            while code_mixed(
                coder, CELL_MIX + step, first + step, second + step, third + step, np.int64(count > number)
            ):
                number += 1
                step = min(number, CELL_STEPS - 1)
                if total + number > limit:
                    return np.int64(-1)
            counts[row, column] = number
            line[place] = min(number, 4)
            total += number
            window -= above[column]
    return total


@compiled
def cell_context(near: Any) -> Any:
    """Of 2 W + 2 N + NW + NE, each count at most 4."""
    if near < 6:
        return near
    return min(6 + (near - 6) // 3, NEAR - 1)


@compiled
def _wide_context(wide: Any) -> Any:
    """Of the four cells to the left and the 36 around and above them, each count at most 4."""
    context = np.int64(0)
    for bound in (1, 2, 3, 5, 7, 10, 14, 19, 25, 33, 45):
        context += wide >= bound
    return context


@compiled
def _density(number: Any) -> Any:
    """Of the splats in the 25 cells around one."""
    context = np.int64(0)
    for bound in (2, 4, 5, 7, 9, 13, 19, 28, 45):
        context += number >= bound
    return context


@compiled
def _half(length: Any) -> Any:
    """Of a log length in 1/256 from a quarter of a pixel on."""
    return min(max((length >> 7) - 3, 0), HALVES - 1)


@compiled
def _log_length(coder: Any, axis: Any, first: Any, second: Any, third: Any, level: Any, value: Any) -> Any:
    """The octave and at most two fraction bits of a log length of a splat of class `level`."""
    octave: Any = value >> level
    mixture = LENGTH_MIX + 4 * axis
    if code_mixed(coder, mixture, first, second, third, np.int64(octave >= _MIDDLE)):
        number: Any = np.int64(_MIDDLE)
        while number < OCTAVES - 1 and code_mixed(
            coder,
            mixture + 1 + np.int64(number > _MIDDLE),
            first + number,
            second + number,
            third + number,
            np.int64(octave > number),
        ):
            number += 1
    else:
        number = np.int64(_MIDDLE - 1)
        while number > 0 and code_mixed(
            coder, mixture + 3, first + number, second + number, third + number, np.int64(octave < number)
        ):
            number -= 1
    octave = number
    base = FRACTIONS + (axis * OCTAVES + octave) * FRACTION_MODELS
    rest = level
    node = np.int64(1)
    for _ in range(min(level, 2)):
        rest -= 1
        node = node << 1 | code_bit(coder, base + node, value >> rest & 1)
    return octave << (level - rest) | node - (np.int64(1) << (level - rest))


@compiled
def _nearest(latest: Any, row: Any, column: Any) -> Any:
    """The splat coded last in the nearest cell that has one, and how far away that is; -1 where there is none."""
    if latest[row, column] >= 0:
        return np.int64(latest[row, column]), np.int64(0)
    for index in range(len(_AROUND)):
        y, x = row + _AROUND[index, 0], column + _AROUND[index, 1]
        if y >= 0 and x >= 0 and x < latest.shape[1] and latest[y, x] >= 0:
            return np.int64(latest[y, x]), np.int64(1 if index < _ADJACENT else 2)
    return np.int64(-1), np.int64(3)


@compiled
def _densities(cells: Any, rows: Any, columns: Any) -> Any:
    """[N] contexts of the number of splats around each splat."""
    sums = np.zeros((rows + 6, columns + 6), np.int64)
    for n in range(len(cells)):
        sums[cells[n] // columns + 3, cells[n] % columns + 3] += 1
    for row in range(1, rows + 6):
        line = np.int64(0)
        for column in range(columns + 6):
            line += sums[row, column]
            sums[row, column] = sums[row - 1, column] + line
    result = np.empty(len(cells), np.int64)
    for n in range(len(cells)):
        row, column = cells[n] // columns, cells[n] % columns
        number = sums[row + 5, column + 5] - sums[row, column + 5] - sums[row + 5, column] + sums[row, column]
        result[n] = _density(number)
    return result


@compiled
def code_whole(
    coder: Any, step: Any, rows: Any, columns: Any, cells: Any, amplitudes: Any, shapes: Any, positions: Any
) -> Any:
    """Splats coded whole; returns 0, or -1 where one that is read is out of limits.

    Args:
        coder: of the payload.
        step: D.
        rows: of the grid of cells.
        columns: likewise.
        cells: int32 [N] in raster order, rising.
        amplitudes: int32 [N, C]; written, multiples of D; read, amplitudes.
        shapes: int32 [N, 3]; written, multiples of their steps, lengths from a quarter of a pixel on; read, shapes.
        positions: int32 [N, 2]; written, multiples of their steps within the cell; read, positions.
    """
    channels = amplitudes.shape[1]
    densities = _densities(cells, rows, columns)
    latest = np.full((rows, columns), -1, np.int32)
    # The last row is that of no splat at all.
    symbols = np.zeros((len(cells) + 1, CHANNELS), np.int64)
    forms = np.zeros((len(cells) + 1, 3), np.int64)  # shapes in 1/256, lengths from a quarter of a pixel on
    fault = np.int64(0)
    before: Any = np.int64(0)
    for n in range(len(cells)):
        row, column = np.int64(cells[n]) // columns, np.int64(cells[n]) % columns
        density = densities[n]
        other, distance = _nearest(latest, row, column)
        if other < 0:
            other = np.int64(n - 1 if n else len(cells))
        if distance:
            before = np.int64(0)
        latest[row, column] = n

        energy = np.int64(0)
        last: Any = np.int64(0)  # magnitude and sign that the next component's contexts come from
        sign = np.int64(0)
        size: Any = np.int64(0)  # length of the first component
        alike = np.int64(0)  # sign of the first component over that of the nearest splat
        for channel in range(channels):
            symbol = np.int64(amplitudes[n, channel])
            theirs = symbols[other, channel]
            digits = COLOR_DIGITS + channel * DIGIT_MODELS
            mixture = COLOR_MIX + channel * LENGTHS
            near = min(digits_of(abs(theirs)), SIZES - 1) * DISTANCES + distance
            if channel == 0:
                first = LUMA_BEFORE + min(before, SIZES - 1) * LENGTHS
                second = LUMA_DENSITY + density * LENGTHS
                third = LUMA_NEAREST + near * LENGTHS
            else:
                below = (channel - 1) * SIZES + min(digits_of(last), SIZES - 1)
                first = CHROMA_BELOW + below * LENGTHS
                second = CHROMA_DENSITY + ((channel - 1) * DENSITIES + density) * LENGTHS
                third = CHROMA_NEAREST + ((channel - 1) * SIZES * DISTANCES + near) * LENGTHS
            value = code_mixed_magnitude(coder, mixture, first, second, third, digits, np.int64(0), abs(symbol))
            if channel == 0:
                size = digits_of(value)
                before = 1 + size
            negative = np.int64(0)
            if value:
                # Luma: how far away the sign comes from; chroma: whether luma went along with it, and how strongly.
                third = (sign_of(theirs) + 1) * SIZES + distance
                if channel:
                    third = (channel * 3 + sign_of(theirs) * alike + 1) * SIZES
                    third += min(size, SIZES - 1)
                negative = code_mixed(
                    coder,
                    SIGN_MIX + channel,
                    SIGNS_BELOW + channel * 3 + sign + 1,
                    SIGNS_NEAREST + channel * 9 + (sign + 1) * 3 + sign_of(theirs) + 1,
                    SIGNS_ALIKE + third,
                    np.int64(symbol < 0),
                )
            sign = np.int64(value > 0) * (1 - 2 * negative)
            if channel == 0:
                alike = sign * sign_of(theirs)
            symbols[n, channel] = sign * value
            fault |= value * step > MAX_AMPLITUDE
            energy += value * value
            last = value + (last >> 2)
        level = class_of(energy, np.int64(1))

        few: Any = min(level, CLASSES - 1)
        crowd = (few * DENSITIES + density) * TREE
        rest: Any = max(level - 2, 0)
        length_1 = _log_length(
            coder,
            np.int64(0),
            LENGTHS_CLASS + few * TREE,
            LENGTHS_DENSITY + crowd,
            LENGTHS_NEAREST + _half(forms[other, 0]) * TREE,
            level,
            np.int64(shapes[n, 0]),
        )
        length_3 = _log_length(
            coder,
            np.int64(1),
            LENGTHS_CLASS + (CLASSES + (length_1 >> (level - rest))) * TREE,
            LENGTHS_DENSITY + CLASSES * DENSITIES * TREE + crowd,
            LENGTHS_NEAREST + (HALVES + _half(forms[other, 2])) * TREE,
            level,
            np.int64(shapes[n, 2]),
        )
        mask = (np.int64(1) << rest) - 1
        fine = code_raw(coder, 2 * rest, (np.int64(shapes[n, 0]) & mask) << rest | np.int64(shapes[n, 2]) & mask)
        length_1 = (length_1 << rest | fine >> rest) << (8 - level)
        length_3 = (length_3 << rest | fine & mask) << (8 - level)

        aspect = signed_level(length_3 - length_1, 64, 256, 512)
        shear = np.int64(shapes[n, 1])
        value = code_mixed_magnitude(
            coder,
            np.int64(SHEAR_MIX),
            SHEARS_CLASS + level * LENGTHS,
            SHEARS_ASPECT + (level * SIGNED_LEVELS + aspect) * LENGTHS,
            SHEARS_LENGTH + _half(length_1) * LENGTHS,
            np.int64(SHEAR_DIGITS),
            3 - level,
            abs(shear),
        )
        fault |= value << (8 - level) > MAX_SHEAR
        if value:
            theirs = signed_level(forms[other, 1], 1, 64, 256)
            if code_mixed(
                coder,
                np.int64(SHEAR_SIGN_MIX),
                SHEAR_SIGNS + theirs,
                SHEAR_SIGNS + SIGNED_LEVELS + aspect,
                SHEAR_SIGNS + 2 * SIGNED_LEVELS + theirs * SIGNED_LEVELS + aspect,
                np.int64(shear < 0),
            ):
                value = -value
        shear = value << (8 - level)
        forms[n, 0], forms[n, 1], forms[n, 2] = length_1, shear, length_3

        # Lengths lie in the middle of the cells of their lattice (`state.state_of`); steps of positions follow.
        middle = np.int64(1) << (8 - level) >> 1
        length_1, length_3 = length_1 + middle - 512, length_3 + middle - 512
        shift_x, shift_y = place_shift(length_1, level), place_shift(length_3, level)
        place = np.int64(positions[n, 0]) << (9 - shift_y) | np.int64(positions[n, 1])
        place = code_raw(coder, 18 - shift_x - shift_y, place)
        if not coder[WRITING] and not fault:
            for channel in range(channels):
                amplitudes[n, channel] = symbols[n, channel] * step
            shapes[n, 0], shapes[n, 1], shapes[n, 2] = length_1, shear, length_3
            x, y = place >> (9 - shift_y), place & ((np.int64(1) << (9 - shift_y)) - 1)
            positions[n, 0] = (column << 9) + (x << shift_x) + (np.int64(1) << shift_x >> 1)
            positions[n, 1] = (row << 9) + (y << shift_y) + (np.int64(1) << shift_y >> 1)
    return np.int64(-1 if fault else 0)


@compiled
def code_gaps(coder: Any, cells: Any, total: Any) -> Any:
    """Cells [N] of a grid of `total` in rising order; returns 0, or -1 where one lies behind the last."""
    number = len(cells)
    bits = max(digits_of(np.int64(total // max(number, 1))) - 2, 0)
    last = np.int64(0)
    for n in range(number):
        gap = np.int64(cells[n]) - last
        high = code_magnitude(coder, GAPS, GAP_DIGITS, np.int64(0), gap >> bits)
        last += high << bits | code_raw(coder, bits, gap & ((np.int64(1) << bits) - 1))
        if last >= total:
            return np.int64(-1)
        cells[n] = last
    return np.int64(0)
