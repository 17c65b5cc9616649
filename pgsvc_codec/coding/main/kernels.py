"""Range coder with adaptive binary models, and the payloads of the `main` profile in its terms (spec §7, numba).

Each kernel walks the syntax once, for both directions: a call of `_bit` writes the bit that it is given, or replaces
it by the one that it reads, and returns it.  So writer and reader cannot differ.

The coder is constriction's queue coder of 64-bit state, 32-bit words and 24-bit probabilities, but that words lie in
the payload with the highest byte first, and that bytes past the end read as 0: what is 0 at the end is not stored.

Kernels and everything they call live in this one file: numba's disk cache does not see edits elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _kernel(function: _Function) -> _Function:
    return cast(_Function, njit(cache=True, nogil=True, error_model="numpy")(function))


u64 = np.uint64
MASK = (1 << 64) - 1

# A model is the probability that a bit is 0, in 2^-22, and the number of bits it is worth: probability << 10 | count.
PROBABILITY_BITS = 22
COUNT_BITS = 10
COUNT_LIMIT = 255  # of the bits that a model remembers
_RATES = np.array([(1 << 17) // (2 * count + 3) for count in range(1 << COUNT_BITS)], np.int64)
_LEAST = 1 << 8  # of 2^24: probability of a bit, whatever the model says
_PRECISION = 24
_MOST_BITS = 20  # equiprobable bits of one interval

# A coder is one array, which is what compiled functions pass on fastest: registers, models, then words of the payload.
# Reading, _LOW is the distance of the read point from the interval's lower end.
_LOW, _SIZE, _WORDS, _LENGTH, _FAULT, _WRITING, _LIMIT, _MODELS = range(8)
Coder = NDArray[np.uint64]


# Magnitudes: the number of binary digits in unary, then the two digits behind the leading one; others are equiprobable.
_LENGTHS = 12  # models of the unary part; longer ones share the last
_MOST_DIGITS = 23
_DIGITS = 7  # lengths that have models for their digits; longer ones share the last
_DIGIT_MODELS = 3 * _DIGITS

MAX_CLASS = 8
CHANNELS = 3
CELL_CONTEXTS = 10
CELL_STEPS = 6  # models of a count in unary; further ones share the last
MOST_IN_CELL = 1 << 20
COLOR_CONTEXTS = 6
SIGN_CONTEXTS = 3
OCTAVES = 14
LENGTH_CONTEXTS = 6
_TREE = 16
_FRACTIONS = 4
_VECTOR_CONTEXTS = 4
_NEAR_CONTEXTS = 4
_FLAG_CONTEXTS = 4 * 2 * _NEAR_CONTEXTS  # flags before it, the same flag in the frame coded before, neighbours
_MOST_DELTAS = 8

POSITION, SHAPE, COLOR, REMOVED, REVIVED = 1, 2, 4, 8, 16  # what a slot does, as bits of one number
_NEIGHBOURHOOD = 10  # log2 of 1/64 pixels per side of the squares in which neighbours are remembered

# Where the models of each kind of symbol begin.
CELLS = 0
COLORS = CELLS + CELL_CONTEXTS * CELL_STEPS
COLOR_DIGITS = COLORS + CHANNELS * COLOR_CONTEXTS * _LENGTHS
COLOR_SIGNS = COLOR_DIGITS + CHANNELS * _DIGIT_MODELS
LENGTHS_1 = COLOR_SIGNS + CHANNELS * SIGN_CONTEXTS
LENGTHS_3 = LENGTHS_1 + LENGTH_CONTEXTS * _TREE
FRACTIONS = LENGTHS_3 + OCTAVES * _TREE
SHEARS = FRACTIONS + 2 * OCTAVES * _FRACTIONS
SHEAR_DIGITS = SHEARS + (MAX_CLASS + 1) * _LENGTHS
SHEAR_SIGN = SHEAR_DIGITS + _DIGIT_MODELS
GAPS = SHEAR_SIGN + 1
GAP_DIGITS = GAPS + _LENGTHS
VECTORS = GAP_DIGITS + _DIGIT_MODELS
VECTOR_DIGITS = VECTORS + 2 * _VECTOR_CONTEXTS * _LENGTHS
VECTOR_SIGNS = VECTOR_DIGITS + _DIGIT_MODELS
FLAGS = VECTOR_SIGNS + 2
REMOVALS = FLAGS + 2 * 3 * _FLAG_CONTEXTS
REVIVALS = REMOVALS + 2 * _NEAR_CONTEXTS
DELTAS = REVIVALS + 2
DELTA_DIGITS = DELTAS + 2 * _MOST_DELTAS * 2 * _LENGTHS
DELTA_SIGNS = DELTA_DIGITS + 2 * 3 * _DIGIT_MODELS
FRAME_FLAGS = DELTA_SIGNS + 2 * _MOST_DELTAS
NUMBERS = FRAME_FLAGS + 8
NUMBER_DIGITS = NUMBERS + _LENGTHS
NUM_MODELS = NUMBER_DIGITS + _DIGIT_MODELS


def _coder(models: NDArray[np.int64], registers: list[int], words: int) -> Coder:
    coder = np.empty(_MODELS + NUM_MODELS + words, np.uint64)
    coder[:_MODELS] = registers
    coder[_MODELS : _MODELS + NUM_MODELS] = models
    return coder


def writer(models: NDArray[np.int64], capacity: int, count_limit: int = COUNT_LIMIT) -> Coder:
    """A coder that writes up to so many bytes, beginning with these models."""
    return _coder(models, [0, MASK, 0, 0, 0, 1, count_limit], capacity // 4 + 2)


def reader(models: NDArray[np.int64], payload: bytes) -> Coder:
    """A coder that reads a payload, beginning with these models."""
    words = np.frombuffer(payload + bytes(-len(payload) % 4 + 8), ">u4")
    coder = _coder(models, [int(words[0]) << 32 | int(words[1]), MASK, 2, len(words), 0, 0, COUNT_LIMIT], len(words))
    coder[_MODELS + NUM_MODELS :] = words
    return coder


def models_of(coder: Coder) -> NDArray[np.int64]:
    """The models as they are now."""
    return coder[_MODELS : _MODELS + NUM_MODELS].astype(np.int64)


def finished(coder: Coder) -> bytes:
    """The bytes of a coder that has written everything: the shortest within its interval."""
    low, size, words = (int(register) for register in coder[: _WORDS + 1])
    data = coder[_MODELS + NUM_MODELS :][:words].astype(">u4").tobytes()
    for dropped in range(64, -1, -8):
        point = -(-low >> dropped) << dropped
        if point < low + size:
            break
    head = int.from_bytes(data, "big")
    return ((head << 64) + point).to_bytes(len(data) + 8, "big").rstrip(b"\0")


def left_over(coder: Coder, payload: bytes) -> bool:
    """Whether a coder that has read a payload leaves bytes unread or ends in a byte that is 0, or never fitted."""
    low, size, words, _, fault = (int(register) for register in coder[: _FAULT + 1])
    return bool(fault) or low >= size or len(payload) > 4 * words or payload.endswith(b"\0")


@_kernel
def _renew(coder: Any) -> None:
    """Move one word."""
    place = np.int64(coder[_WORDS])
    if coder[_WRITING]:
        coder[_MODELS + NUM_MODELS + place] = coder[_LOW] >> u64(32)
        coder[_LOW] <<= u64(32)
    else:
        if coder[_LOW] >= coder[_SIZE]:
            coder[_FAULT] = u64(1)
            coder[_LOW] = coder[_SIZE] - u64(1)
        coder[_LOW] <<= u64(32)
        if place < np.int64(coder[_LENGTH]):
            coder[_LOW] |= coder[_MODELS + NUM_MODELS + place]
    coder[_SIZE] <<= u64(32)
    coder[_WORDS] = u64(place + 1)


@_kernel
def _carry(coder: Any) -> None:
    """Into the words that are written."""
    place = _MODELS + NUM_MODELS + np.int64(coder[_WORDS]) - 1
    while coder[place] == u64(0xFFFFFFFF):
        coder[place] = u64(0)
        place -= 1
    coder[place] += u64(1)


@_kernel
def _bit(coder: Any, index: Any, bit: Any) -> Any:
    """One bit by an adaptive model."""
    model = np.int64(coder[_MODELS + index])
    probability, count = model >> COUNT_BITS, model & ((1 << COUNT_BITS) - 1)
    weight: Any = min(max(probability << (_PRECISION - PROBABILITY_BITS), _LEAST), (1 << _PRECISION) - _LEAST)
    step = coder[_SIZE] >> u64(_PRECISION)
    zeros = step * u64(weight)
    low = coder[_LOW]
    if coder[_WRITING]:
        if bit:
            coder[_LOW] = low + zeros
            if low + zeros < low:
                _carry(coder)
    else:
        bit = np.int64(low >= zeros)
        if bit:
            coder[_LOW] = low - zeros
    size = zeros
    target = np.int64(1 << PROBABILITY_BITS)
    if bit:
        size = step * u64((1 << _PRECISION) - weight)
        target = np.int64(0)
    probability += (target - probability) * _RATES[count] >> 16
    if count < np.int64(coder[_LIMIT]):
        count += 1
    coder[_MODELS + index] = u64(probability << COUNT_BITS | count)
    coder[_SIZE] = size
    if size < u64(1 << 32):
        _renew(coder)
    return bit


@_kernel
def _bits(coder: Any, number: Any, value: Any) -> Any:
    """So many equiprobable bits, `number` <= 40, the highest first."""
    if number > _MOST_BITS:
        high = _bits_once(coder, number - _MOST_BITS, value >> _MOST_BITS)
        return high << _MOST_BITS | _bits_once(coder, _MOST_BITS, value & ((1 << _MOST_BITS) - 1))
    return _bits_once(coder, number, value)


@_kernel
def _bits_once(coder: Any, number: Any, value: Any) -> Any:
    if number == 0:
        return np.int64(0)
    step = coder[_SIZE] >> u64(_PRECISION) << u64(_PRECISION - number)
    low = coder[_LOW]
    if coder[_WRITING]:
        coder[_LOW] = low + step * u64(value)
        if coder[_LOW] < low:
            _carry(coder)
    else:
        value = min(np.int64(low // step), (np.int64(1) << number) - 1)
        coder[_LOW] = low - step * u64(value)
    coder[_SIZE] = step
    if step < u64(1 << 32):
        _renew(coder)
    return value


@_kernel
def _digits(value: Any) -> Any:
    """Binary digits of a positive number; others have none."""
    number = np.int64(0)
    while value > 0:
        value >>= 1
        number += 1
    return number


@_kernel
def _magnitude(coder: Any, lengths: Any, digits: Any, shift: Any, value: Any) -> Any:
    """A number that is not negative; `shift` says which models the second and third digit take."""
    length = _digits(value)
    number = np.int64(0)
    while number < _MOST_DIGITS and _bit(coder, lengths + min(number, _LENGTHS - 1), np.int64(length > number)):
        number += 1
    if number < 2:
        return number
    base = digits + 3 * min(max(number - 2 + shift, 0), _DIGITS - 1)
    rest = number - 1
    result = np.int64(1)
    node = np.int64(0)
    while rest and number - rest <= 2:
        rest -= 1
        digit = _bit(coder, base + node, value >> rest & 1)
        result = result << 1 | digit
        node = 1 + digit
    return result << rest | _bits(coder, rest, value & ((np.int64(1) << rest) - 1))


@_kernel
def code_bits(coder: Any, number: Any, value: Any) -> Any:
    """A header field of so many equiprobable bits; returns it."""
    return _bits(coder, np.int64(number), np.int64(value))


@_kernel
def code_cells(coder: Any, counts: Any, limit: Any) -> Any:
    """Numbers of splats of the cells [rows, columns]; returns their sum, -1 where it exceeds the limit."""
    rows, columns = counts.shape
    total = np.int64(0)
    for row in range(rows):
        for column in range(columns):
            near = np.int64(0)
            if column:
                near += 2 * min(counts[row, column - 1], 4)
            if row:
                near += 2 * min(counts[row - 1, column], 4)
                if column:
                    near += min(counts[row - 1, column - 1], 4)
                if column + 1 < columns:
                    near += min(counts[row - 1, column + 1], 4)
            base = CELLS + CELL_STEPS * cell_context(near)
            count = np.int64(counts[row, column])
            number = np.int64(0)
            while _bit(coder, base + min(number, CELL_STEPS - 1), np.int64(count > number)):
                number += 1
                if total + number > limit:
                    return np.int64(-1)
            counts[row, column] = number
            total += number
    return total


@_kernel
def cell_context(near: Any) -> Any:
    """Of 2 W + 2 N + NW + NE, each count at most 4."""
    if near < 6:
        return near
    return min(6 + (near - 6) // 3, CELL_CONTEXTS - 1)


@_kernel
def class_of(energy: Any) -> Any:
    """The class of a splat from the sum of its squared symbols (`state.classes_of`)."""
    result = np.int64(0)
    while result < MAX_CLASS and 2 * energy >= np.int64(1) << 2 * (result + 1):
        result += 1
    return result


@_kernel
def _octave(coder: Any, tree: Any, value: Any) -> Any:
    node = np.int64(1)
    for index in range(3, -1, -1):
        node = node << 1 | _bit(coder, tree + node, value >> index & 1)
    return node - _TREE


@_kernel
def _log_length(coder: Any, axis: Any, tree: Any, level: Any, value: Any) -> Any:
    """A log length of a splat of class `level`, from a quarter of a pixel on."""
    octave = min(_octave(coder, tree, value >> level), OCTAVES - 1)
    base = FRACTIONS + (axis * OCTAVES + octave) * _FRACTIONS
    rest = level
    node = np.int64(1)
    for _ in range(min(level, 2)):
        rest -= 1
        node = node << 1 | _bit(coder, base + node, value >> rest & 1)
    result = node - (np.int64(1) << (level - rest)) | octave << (level - rest)
    return result << rest | _bits(coder, rest, value & ((np.int64(1) << rest) - 1))


@_kernel
def code_whole(coder: Any, firsts: Any, amplitudes: Any, shapes: Any, places: Any) -> None:
    """Splats coded whole.

    Args:
        coder: of the payload.
        firsts: bool [N], whether a splat is the first of its cell.
        amplitudes: int32 [N, C] multiples of D.
        shapes: int32 [N, 3] multiples of their steps, lengths from a quarter of a pixel on.
        places: int32 [N, 2] multiples of their steps within the cell.
    """
    channels = amplitudes.shape[1]
    before: Any = np.int64(0)
    for n in range(len(amplitudes)):
        energy = np.int64(0)
        last: Any = np.int64(0)  # what the next component's context comes from
        sign = np.int64(0)
        for channel in range(channels):
            if channel == 0:
                context: Any = np.int64(0)
                if not firsts[n]:
                    context = min(1 + before, COLOR_CONTEXTS - 1)
            else:
                context = min(_digits(last), COLOR_CONTEXTS - 1)
            symbol = np.int64(amplitudes[n, channel])
            value = _magnitude(
                coder,
                COLORS + (channel * COLOR_CONTEXTS + context) * _LENGTHS,
                COLOR_DIGITS + channel * _DIGIT_MODELS,
                np.int64(0),
                abs(symbol),
            )
            if channel == 0:
                before = _digits(value)
            negative = np.int64(0)
            if value:
                negative = _bit(coder, COLOR_SIGNS + channel * SIGN_CONTEXTS + sign, np.int64(symbol < 0))
                sign = 1 + negative
            else:
                sign = np.int64(0)
            amplitudes[n, channel] = -value if negative else value
            energy += value * value
            last = value + (last >> 2)
        level = class_of(energy)

        first = _log_length(
            coder, 0, LENGTHS_1 + min(level, LENGTH_CONTEXTS - 1) * _TREE, level, np.int64(shapes[n, 0])
        )
        shapes[n, 0] = first
        third = _log_length(coder, 1, LENGTHS_3 + (first >> level) * _TREE, level, np.int64(shapes[n, 2]))
        shapes[n, 2] = third
        shear = np.int64(shapes[n, 1])
        value = _magnitude(coder, SHEARS + level * _LENGTHS, SHEAR_DIGITS, 3 - level, abs(shear))
        if value and _bit(coder, SHEAR_SIGN, np.int64(shear < 0)):
            value = -value
        shapes[n, 1] = value

        for axis in range(2):
            # The middle of the length's cell of its lattice, in octaves, rounded, as `state.position_shifts` has it.
            length = (first, third)[axis]
            middle = (length << (8 - level)) + (np.int64(1) << (8 - level) >> 1) - 512
            shift = min(max((middle + 128 >> 8) + 6 - level, 0), 9)
            places[n, axis] = _bits(coder, 9 - shift, np.int64(places[n, axis]))


@_kernel
def code_flag(coder: Any, index: Any, value: Any) -> Any:
    """A bit with a model of its own, one of the eight `FRAME_FLAGS`; returns it."""
    return _bit(coder, FRAME_FLAGS + index, np.int64(value))


@_kernel
def code_number(coder: Any, value: Any) -> Any:
    """How many there are of something rare; returns it."""
    return _magnitude(coder, NUMBERS, NUMBER_DIGITS, np.int64(0), np.int64(value))


@_kernel
def _signed(coder: Any, lengths: Any, digits: Any, sign: Any, value: Any) -> Any:
    """A number with a sign."""
    size = _magnitude(coder, lengths, digits, np.int64(0), abs(value))
    if size and _bit(coder, sign, np.int64(value < 0)):
        return -size
    return size


@_kernel
def code_gaps(coder: Any, cells: Any, total: Any) -> Any:
    """Cells [N] of a grid of `total` in rising order; returns 0, or -1 where one lies behind the last."""
    number = len(cells)
    bits = max(_digits(np.int64(total // max(number, 1))) - 2, 0)
    last = np.int64(0)
    for n in range(number):
        gap = np.int64(cells[n]) - last
        high = _magnitude(coder, GAPS, GAP_DIGITS, np.int64(0), gap >> bits)
        last += high << bits | _bits(coder, bits, gap & ((np.int64(1) << bits) - 1))
        if last >= total:
            return np.int64(-1)
        cells[n] = last
    return np.int64(0)


@_kernel
def _median(a: Any, b: Any, c: Any) -> Any:
    return max(min(a, b), min(max(a, b), c))


@_kernel
def code_vectors(coder: Any, vectors: Any, most: Any) -> Any:
    """Vectors [rows, columns, 2]; returns 0, or -1 where a component exceeds `most`."""
    rows, columns, _ = vectors.shape
    for row in range(rows):
        for column in range(columns):
            for axis in range(2):
                left = up = corner = np.int64(0)
                if column:
                    left = np.int64(vectors[row, column - 1, axis])
                if row:
                    up = np.int64(vectors[row - 1, column, axis])
                    corner = np.int64(vectors[row - 1, min(column + 1, columns - 1), axis])
                    if not column:
                        left = up
                else:
                    up = corner = left
                expected = _median(left, up, corner)
                context = min(_digits(abs(left - up)), _VECTOR_CONTEXTS - 1)
                value = expected + _signed(
                    coder,
                    VECTORS + (axis * _VECTOR_CONTEXTS + context) * _LENGTHS,
                    VECTOR_DIGITS,
                    VECTOR_SIGNS + axis,
                    np.int64(vectors[row, column, axis]) - expected,
                )
                if abs(value) > most:
                    return np.int64(-1)
                vectors[row, column, axis] = value
    return np.int64(0)


@_kernel
def code_slots(coder: Any, between: Any, classes: Any, places: Any, before: Any, flags: Any, deltas: Any) -> None:
    """What slots do: their flags, and the deltas of those that change.

    Args:
        coder: of the payload.
        between: 1 in B-frames, where slots are neither removed nor revived; 0 in P-frames.
        classes: int32 [N] of the predicted splats; -1 where there is none, the slot is dead.
        places: int32 [N, 2] predicted positions.
        before: int32 [N] flags of the slots in the payload of this kind before.
        flags: int32 [N].
        deltas: int32 [N, 5 + C] of position, shape and amplitude, in steps; 0 where the flag of their group is.
    """
    size = np.int64(1)
    for n in range(len(flags)):
        size = max(size, max(np.int64(places[n, 0]), np.int64(places[n, 1])))
    side = (size >> _NEIGHBOURHOOD) + 2
    active = np.full((side, side), 64, np.int64)  # how much slots nearby do, of 256; coded last counts most
    kind = np.int64(between)
    channels = deltas.shape[1] - 5
    for n in range(len(flags)):
        if classes[n] < 0:
            revived = np.int64(0)
            if not between:
                revived = _bit(coder, REVIVALS, np.int64((flags[n] & REVIVED) > 0))
            flags[n] = REVIVED * revived
            continue
        row: Any = max(np.int64(places[n, 1]) >> _NEIGHBOURHOOD, 0)
        column: Any = max(np.int64(places[n, 0]) >> _NEIGHBOURHOOD, 0)
        near = 2 * active[row, column]
        near += active[row, max(column - 1, 0)] + active[max(row - 1, 0), column]
        near = min(near >> 8, _NEAR_CONTEXTS - 1)
        done = np.int64(0)
        for group in range(3):
            context = (done * 2 + (np.int64(before[n]) >> group & 1)) * _NEAR_CONTEXTS + near
            index = FLAGS + (kind * 3 + group) * _FLAG_CONTEXTS + context
            done |= _bit(coder, index, np.int64(flags[n]) >> group & 1) << group
        start = np.int64(0)
        for group in range(3):
            width = channels if group == 2 else 2 + group
            if done >> group & 1:
                some = np.int64(0)
                for place in range(start, start + width):
                    delta = _signed(
                        coder,
                        DELTAS + ((kind * _MOST_DELTAS + place) * 2 + some) * _LENGTHS,
                        DELTA_DIGITS + (kind * 3 + group) * _DIGIT_MODELS,
                        DELTA_SIGNS + kind * _MOST_DELTAS + place,
                        np.int64(deltas[n, place]),
                    )
                    deltas[n, place] = delta
                    if delta:
                        some = np.int64(1)
            else:
                for place in range(start, start + width):
                    deltas[n, place] = 0
            start += width
        if not done and not between and _bit(coder, REMOVALS + near, np.int64((flags[n] & REMOVED) > 0)):
            done = np.int64(REMOVED)
            if _bit(coder, REVIVALS + 1, np.int64((flags[n] & REVIVED) > 0)):
                done |= REVIVED
        flags[n] = done
        active[row, column] += ((256 if done else 0) - active[row, column]) >> 1
