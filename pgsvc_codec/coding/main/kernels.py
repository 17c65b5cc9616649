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

# Mixtures: probabilities p of three models become ln(p / (1 - p)) in 1/256, are weighed, and become one again.
_DOMAIN = 2048
_ROOT = 18518942588666869715  # e^(1/256) in 2^-64, rounded
_WEIGHT_BITS = 16
_LEARNING_BITS = 14


def _logistic() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """2^24 / (1 + e^(-x / 256)) at x = -2048..2047, and for each 1/4096 of a probability the x that it belongs to."""
    power = 1 << 64
    upper = []
    for _ in range(_DOMAIN + 1):
        upper.append((power << _PRECISION) // (power + (1 << 64)))
        power = power * _ROOT >> 64
    squashed = np.array([(1 << _PRECISION) - value for value in upper[:0:-1]] + upper[:-1], np.int64)
    middles = (2 * np.arange(1 << 12, dtype=np.int64) + 1) << _PRECISION - 13
    return squashed, np.searchsorted(squashed, middles, side="right") - 1 - _DOMAIN


_SQUASHED, _STRETCHED = _logistic()

# A coder is one array, which is what compiled functions pass on fastest: registers, models, weights of mixtures, words
# of the payload.  Reading, _LOW is the distance of the read point from the interval's lower end.
_LOW, _SIZE, _WORDS, _LENGTH, _FAULT, _WRITING, _LIMIT, _STATES = range(8)
Coder = NDArray[np.uint64]


# Magnitudes: the number of binary digits in unary, then the two digits behind the leading one; others are equiprobable.
_LENGTHS = 12  # models of the unary part; longer ones share the last
_MOST_DIGITS = 23
_DIGITS = 7  # lengths that have models for their digits; longer ones share the last
_DIGIT_MODELS = 3 * _DIGITS

MAX_CLASS = 8
CHANNELS = 3
OCTAVES = 14
_TREE = 16  # of four bits, the first of its nodes unused
_FRACTIONS = 4  # two bits, likewise
_CELL_STEPS = 6  # models of a count in unary; further ones share the last
_NEAR, _WIDE, _PAIRS = 10, 12, 27  # contexts of counts
_DENSITIES = 10
_SIZES = 6  # of magnitudes, by their lengths
_CLASSES = 6  # where not all matter
_DISTANCES = 4
_HALVES = 10  # octaves of lengths, halved
_LEVELS = 7  # of what has a sign
_VECTOR_CONTEXTS = 4
_NEAR_CONTEXTS = 4
_FLAG_CONTEXTS = 4 * 2 * _NEAR_CONTEXTS  # flags before it, the same flag in the frame coded before, neighbours
_MOST_DELTAS = 8

# Rows and columns to the cells up to two away that come before one in raster order, the nearest first.
_AROUND = np.array(
    [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1), (-2, -2), (-2, 2)],
    np.int64,
)
_ADJACENT = 4  # of them are one away

POSITION, SHAPE, COLOR, REMOVED, REVIVED = 1, 2, 4, 8, 16  # what a slot does, as bits of one number
_NEIGHBOURHOOD = 10  # log2 of 1/64 pixels per side of the squares in which neighbours are remembered

# Where the models of each kind of symbol begin.
CELLS_NEAR = 0
CELLS_WIDE = CELLS_NEAR + _NEAR * _CELL_STEPS
CELLS_PAIRS = CELLS_WIDE + _WIDE * _CELL_STEPS
LUMA_BEFORE = CELLS_PAIRS + _PAIRS * _CELL_STEPS
LUMA_DENSITY = LUMA_BEFORE + _SIZES * _LENGTHS
LUMA_NEAREST = LUMA_DENSITY + _DENSITIES * _LENGTHS
CHROMA_BELOW = LUMA_NEAREST + _SIZES * _DISTANCES * _LENGTHS
CHROMA_DENSITY = CHROMA_BELOW + 2 * _SIZES * _LENGTHS
CHROMA_NEAREST = CHROMA_DENSITY + 2 * _DENSITIES * _LENGTHS
COLOR_DIGITS = CHROMA_NEAREST + 2 * _SIZES * _DISTANCES * _LENGTHS
SIGNS_BELOW = COLOR_DIGITS + CHANNELS * _DIGIT_MODELS
SIGNS_NEAREST = SIGNS_BELOW + CHANNELS * 3
SIGNS_ALIKE = SIGNS_NEAREST + CHANNELS * 9
LENGTHS_CLASS = SIGNS_ALIKE + CHANNELS * 3 * _SIZES
LENGTHS_DENSITY = LENGTHS_CLASS + (_CLASSES + OCTAVES) * _TREE
LENGTHS_NEAREST = LENGTHS_DENSITY + 2 * _CLASSES * _DENSITIES * _TREE
FRACTIONS = LENGTHS_NEAREST + 2 * _HALVES * _TREE
SHEARS_CLASS = FRACTIONS + 2 * OCTAVES * _FRACTIONS
SHEARS_ASPECT = SHEARS_CLASS + (MAX_CLASS + 1) * _LENGTHS
SHEARS_LENGTH = SHEARS_ASPECT + (MAX_CLASS + 1) * _LEVELS * _LENGTHS
SHEAR_DIGITS = SHEARS_LENGTH + _HALVES * _LENGTHS
SHEAR_SIGNS = SHEAR_DIGITS + _DIGIT_MODELS
GAPS = SHEAR_SIGNS + 2 * _LEVELS + _LEVELS * _LEVELS
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

# The same of mixtures: weights of three models each.
CELL_MIX = 0
COLOR_MIX = CELL_MIX + _CELL_STEPS
SIGN_MIX = COLOR_MIX + CHANNELS * _LENGTHS
LENGTH_MIX = SIGN_MIX + CHANNELS
SHEAR_MIX = LENGTH_MIX + 2 * 4
SHEAR_SIGN_MIX = SHEAR_MIX + _LENGTHS
NUM_MIXTURES = SHEAR_SIGN_MIX + 1
NUM_STATES = NUM_MODELS + 3 * NUM_MIXTURES


def _coder(models: NDArray[np.int64], registers: list[int], words: int) -> Coder:
    coder = np.empty(_STATES + NUM_STATES + words, np.uint64)
    coder[:_STATES] = registers
    coder[_STATES : _STATES + NUM_STATES] = models.view(np.uint64)
    return coder


def writer(models: NDArray[np.int64], capacity: int, count_limit: int = COUNT_LIMIT) -> Coder:
    """A coder that writes up to so many bytes, beginning with these models."""
    return _coder(models, [0, MASK, 0, 0, 0, 1, count_limit], capacity // 4 + 2)


def reader(models: NDArray[np.int64], payload: bytes) -> Coder:
    """A coder that reads a payload, beginning with these models."""
    words = np.frombuffer(payload + bytes(-len(payload) % 4 + 8), ">u4")
    coder = _coder(models, [int(words[0]) << 32 | int(words[1]), MASK, 2, len(words), 0, 0, COUNT_LIMIT], len(words))
    coder[_STATES + NUM_STATES :] = words
    return coder


def models_of(coder: Coder) -> NDArray[np.int64]:
    """The models as they are now."""
    return coder[_STATES : _STATES + NUM_STATES].view(np.int64).copy()


def finished(coder: Coder) -> bytes:
    """The bytes of a coder that has written everything: the shortest within its interval."""
    low, size, words = (int(register) for register in coder[: _WORDS + 1])
    data = coder[_STATES + NUM_STATES :][:words].astype(">u4").tobytes()
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
        coder[_STATES + NUM_STATES + place] = coder[_LOW] >> u64(32)
        coder[_LOW] <<= u64(32)
    else:
        if coder[_LOW] >= coder[_SIZE]:
            coder[_FAULT] = u64(1)
            coder[_LOW] = coder[_SIZE] - u64(1)
        coder[_LOW] <<= u64(32)
        if place < np.int64(coder[_LENGTH]):
            coder[_LOW] |= coder[_STATES + NUM_STATES + place]
    coder[_SIZE] <<= u64(32)
    coder[_WORDS] = u64(place + 1)


@_kernel
def _carry(coder: Any) -> None:
    """Into the words that are written."""
    place = _STATES + NUM_STATES + np.int64(coder[_WORDS]) - 1
    while coder[place] == u64(0xFFFFFFFF):
        coder[place] = u64(0)
        place -= 1
    coder[place] += u64(1)


@_kernel
def _code(coder: Any, weight: Any, bit: Any) -> Any:
    """One bit that is 0 with a probability of `weight` in 2^-24."""
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
    if bit:
        size = step * u64((1 << _PRECISION) - weight)
    coder[_SIZE] = size
    if size < u64(1 << 32):
        _renew(coder)
    return bit


@_kernel
def _adapt(coder: Any, index: Any, model: Any, bit: Any) -> None:
    """Let a model see a bit."""
    probability, count = model >> COUNT_BITS, model & ((1 << COUNT_BITS) - 1)
    target = np.int64(0 if bit else 1 << PROBABILITY_BITS)
    probability += (target - probability) * _RATES[count] >> 16
    if count < np.int64(coder[_LIMIT]):
        count += 1
    coder[_STATES + index] = u64(probability << COUNT_BITS | count)


@_kernel
def _bit(coder: Any, index: Any, bit: Any) -> Any:
    """One bit by an adaptive model."""
    model = np.int64(coder[_STATES + index])
    shift = _PRECISION - PROBABILITY_BITS
    weight: Any = min(max(model >> COUNT_BITS << shift, _LEAST), (1 << _PRECISION) - _LEAST)
    bit = _code(coder, weight, bit)
    _adapt(coder, index, model, bit)
    return bit


@_kernel
def _mixed(coder: Any, mixture: Any, first: Any, second: Any, third: Any, bit: Any) -> Any:
    """One bit by a mixture of three adaptive models."""
    place = _STATES + NUM_MODELS + 3 * mixture
    model_1, model_2, model_3 = (
        np.int64(coder[_STATES + first]),
        np.int64(coder[_STATES + second]),
        np.int64(coder[_STATES + third]),
    )
    shift = COUNT_BITS + PROBABILITY_BITS - 12
    x_1, x_2, x_3 = _STRETCHED[model_1 >> shift], _STRETCHED[model_2 >> shift], _STRETCHED[model_3 >> shift]
    w_1, w_2, w_3 = np.int64(coder[place]), np.int64(coder[place + 1]), np.int64(coder[place + 2])
    x = (w_1 * x_1 + w_2 * x_2 + w_3 * x_3) >> _WEIGHT_BITS
    weight = _SQUASHED[min(max(x, -_DOMAIN), _DOMAIN - 1) + _DOMAIN]
    bit = _code(coder, weight, bit)
    error = ((0 if bit else 1 << _PRECISION) - weight) >> (_PRECISION - _WEIGHT_BITS)
    coder[place] = u64(w_1 + (x_1 * error >> _LEARNING_BITS))
    coder[place + 1] = u64(w_2 + (x_2 * error >> _LEARNING_BITS))
    coder[place + 2] = u64(w_3 + (x_3 * error >> _LEARNING_BITS))
    _adapt(coder, first, model_1, bit)
    _adapt(coder, second, model_2, bit)
    _adapt(coder, third, model_3, bit)
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
    return _rest(coder, digits, shift, number, value)


@_kernel
def _mixed_magnitude(
    coder: Any, mixture: Any, first: Any, second: Any, third: Any, digits: Any, shift: Any, value: Any
) -> Any:
    """Likewise, its length by mixtures."""
    length = _digits(value)
    number = np.int64(0)
    step: Any = np.int64(0)
    while number < _MOST_DIGITS and _mixed(
        coder, mixture + step, first + step, second + step, third + step, np.int64(length > number)
    ):
        number += 1
        step = min(number, _LENGTHS - 1)
    return _rest(coder, digits, shift, number, value)


@_kernel
def _rest(coder: Any, digits: Any, shift: Any, number: Any, value: Any) -> Any:
    """A number of so many binary digits."""
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
        for column in range(columns):
            window += above[column + 8]
            line, upper, place = capped[row + 4], capped[row + 3], column + 4
            west, north, north_east = line[place - 1], upper[place], upper[place + 1]
            near = 2 * west + 2 * north + upper[place - 1] + north_east
            wide = window + west + line[place - 2] + line[place - 3] + line[place - 4]
            pair = 9 * min(west, 2) + 3 * min(north, 2) + min(north_east, 2)
            first = CELLS_NEAR + _CELL_STEPS * cell_context(near)
            second = CELLS_WIDE + _CELL_STEPS * _wide_context(wide)
            third = CELLS_PAIRS + _CELL_STEPS * pair
            count = np.int64(counts[row, column])
            number = np.int64(0)
            step: Any = np.int64(0)
            while _mixed(coder, CELL_MIX + step, first + step, second + step, third + step, np.int64(count > number)):
                number += 1
                step = min(number, _CELL_STEPS - 1)
                if total + number > limit:
                    return np.int64(-1)
            counts[row, column] = number
            line[place] = min(number, 4)
            total += number
            window -= above[column]
    return total


@_kernel
def cell_context(near: Any) -> Any:
    """Of 2 W + 2 N + NW + NE, each count at most 4."""
    if near < 6:
        return near
    return min(6 + (near - 6) // 3, _NEAR - 1)


@_kernel
def _wide_context(wide: Any) -> Any:
    """Of the four cells to the left and the 36 around and above them, each count at most 4."""
    context = np.int64(0)
    for bound in (1, 2, 3, 5, 7, 10, 14, 19, 25, 33, 45):
        context += wide >= bound
    return context


@_kernel
def _density(number: Any) -> Any:
    """Of the splats in the 25 cells around one."""
    context = np.int64(0)
    for bound in (2, 4, 5, 7, 9, 13, 19, 28, 45):
        context += number >= bound
    return context


@_kernel
def _level(value: Any, first: Any, second: Any, third: Any) -> Any:
    """Of a number with a sign, by three bounds."""
    size = abs(value)
    level = np.int64(size >= first) + np.int64(size >= second) + np.int64(size >= third)
    return 3 - level if value < 0 else 3 + level


@_kernel
def _half(length: Any) -> Any:
    """Of a log length in 1/256 from a quarter of a pixel on."""
    return min(max((length >> 7) - 3, 0), _HALVES - 1)


@_kernel
def class_of(energy: Any) -> Any:
    """The class of a splat from the sum of its squared symbols (`state.classes_of`)."""
    result = np.int64(0)
    while result < MAX_CLASS and 2 * energy >= np.int64(1) << 2 * (result + 1):
        result += 1
    return result


@_kernel
def _log_length(coder: Any, axis: Any, first: Any, second: Any, third: Any, level: Any, value: Any) -> Any:
    """A log length of a splat of class `level`, from a quarter of a pixel on."""
    node = np.int64(1)
    for index in range(4):
        bit = value >> (level + 3 - index) & 1
        mixture = LENGTH_MIX + 4 * axis + index
        node = node << 1 | _mixed(coder, mixture, first + node, second + node, third + node, bit)
    octave: Any = min(node - _TREE, OCTAVES - 1)
    base = FRACTIONS + (axis * OCTAVES + octave) * _FRACTIONS
    rest = level
    node = np.int64(1)
    for _ in range(min(level, 2)):
        rest -= 1
        node = node << 1 | _bit(coder, base + node, value >> rest & 1)
    result = node - (np.int64(1) << (level - rest)) | octave << (level - rest)
    return result << rest | _bits(coder, rest, value & ((np.int64(1) << rest) - 1))


@_kernel
def _nearest(latest: Any, row: Any, column: Any) -> Any:
    """The splat coded last in the nearest cell that has one, and how far away that is; -1 where there is none."""
    if latest[row, column] >= 0:
        return np.int64(latest[row, column]), np.int64(0)
    for index in range(len(_AROUND)):
        y, x = row + _AROUND[index, 0], column + _AROUND[index, 1]
        if y >= 0 and x >= 0 and x < latest.shape[1] and latest[y, x] >= 0:
            return np.int64(latest[y, x]), np.int64(1 if index < _ADJACENT else 2)
    return np.int64(-1), np.int64(3)


@_kernel
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


@_kernel
def code_whole(coder: Any, rows: Any, columns: Any, cells: Any, amplitudes: Any, shapes: Any, places: Any) -> None:
    """Splats coded whole.

    Args:
        coder: of the payload.
        rows: of the grid of cells.
        columns: likewise.
        cells: int32 [N] in raster order, rising.
        amplitudes: int32 [N, C] multiples of D.
        shapes: int32 [N, 3] multiples of their steps, lengths from a quarter of a pixel on.
        places: int32 [N, 2] multiples of their steps within the cell.
    """
    channels = amplitudes.shape[1]
    densities = _densities(cells, rows, columns)
    latest = np.full((rows, columns), -1, np.int32)
    forms = np.zeros((len(cells), 3), np.int64)  # shapes in 1/256, lengths from a quarter of a pixel on
    nothing = np.zeros(3, np.int64)
    before: Any = np.int64(0)
    for n in range(len(cells)):
        row, column = np.int64(cells[n]) // columns, np.int64(cells[n]) % columns
        density = densities[n]
        other, distance = _nearest(latest, row, column)
        if other < 0 and n:
            other = np.int64(n - 1)
        their_form = forms[other] if other >= 0 else nothing
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
            theirs = np.int64(amplitudes[other, channel]) if other >= 0 else np.int64(0)
            their_sign = np.int64(theirs > 0) - np.int64(theirs < 0)
            digits = COLOR_DIGITS + channel * _DIGIT_MODELS
            mixture = COLOR_MIX + channel * _LENGTHS
            near = min(_digits(abs(theirs)), _SIZES - 1) * _DISTANCES + distance
            if channel == 0:
                first = LUMA_BEFORE + min(before, _SIZES - 1) * _LENGTHS
                second = LUMA_DENSITY + density * _LENGTHS
                third = LUMA_NEAREST + near * _LENGTHS
            else:
                below = (channel - 1) * _SIZES + min(_digits(last), _SIZES - 1)
                first = CHROMA_BELOW + below * _LENGTHS
                second = CHROMA_DENSITY + ((channel - 1) * _DENSITIES + density) * _LENGTHS
                third = CHROMA_NEAREST + ((channel - 1) * _SIZES * _DISTANCES + near) * _LENGTHS
            value = _mixed_magnitude(coder, mixture, first, second, third, digits, np.int64(0), abs(symbol))
            if channel == 0:
                size = _digits(value)
                before = 1 + size
            negative = np.int64(0)
            if value:
                # Luma: how far away the sign comes from; chroma: whether luma went along with it, and how strongly.
                third = (their_sign + 1) * _SIZES + distance
                if channel:
                    third = (channel * 3 + their_sign * alike + 1) * _SIZES
                    third += min(size, _SIZES - 1)
                negative = _mixed(
                    coder,
                    SIGN_MIX + channel,
                    SIGNS_BELOW + channel * 3 + sign + 1,
                    SIGNS_NEAREST + channel * 9 + (sign + 1) * 3 + their_sign + 1,
                    SIGNS_ALIKE + third,
                    np.int64(symbol < 0),
                )
            sign = np.int64(value > 0) * (1 - 2 * negative)
            if channel == 0:
                alike = sign * their_sign
            amplitudes[n, channel] = sign * value
            energy += value * value
            last = value + (last >> 2)
        level = class_of(energy)

        few: Any = min(level, _CLASSES - 1)
        crowd = (few * _DENSITIES + density) * _TREE
        length_1 = _log_length(
            coder,
            np.int64(0),
            LENGTHS_CLASS + few * _TREE,
            LENGTHS_DENSITY + crowd,
            LENGTHS_NEAREST + _half(their_form[0]) * _TREE,
            level,
            np.int64(shapes[n, 0]),
        )
        shapes[n, 0] = length_1
        length_3 = _log_length(
            coder,
            np.int64(1),
            LENGTHS_CLASS + (_CLASSES + (length_1 >> level)) * _TREE,
            LENGTHS_DENSITY + _CLASSES * _DENSITIES * _TREE + crowd,
            LENGTHS_NEAREST + (_HALVES + _half(their_form[2])) * _TREE,
            level,
            np.int64(shapes[n, 2]),
        )
        shapes[n, 2] = length_3
        form = forms[n]
        form[0], form[2] = length_1 << (8 - level), length_3 << (8 - level)

        aspect = _level(form[2] - form[0], 64, 256, 512)
        shear = np.int64(shapes[n, 1])
        value = _mixed_magnitude(
            coder,
            np.int64(SHEAR_MIX),
            SHEARS_CLASS + level * _LENGTHS,
            SHEARS_ASPECT + (level * _LEVELS + aspect) * _LENGTHS,
            SHEARS_LENGTH + _half(form[0]) * _LENGTHS,
            np.int64(SHEAR_DIGITS),
            3 - level,
            abs(shear),
        )
        if value:
            theirs = _level(their_form[1], 1, 64, 256)
            if _mixed(
                coder,
                np.int64(SHEAR_SIGN_MIX),
                SHEAR_SIGNS + theirs,
                SHEAR_SIGNS + _LEVELS + aspect,
                SHEAR_SIGNS + 2 * _LEVELS + theirs * _LEVELS + aspect,
                np.int64(shear < 0),
            ):
                value = -value
        shapes[n, 1] = value
        form[1] = value << (8 - level)

        for axis in range(2):
            # The middle of the length's cell of its lattice, in octaves, rounded, as `state.position_shifts` has it.
            middle = form[2 * axis] + (np.int64(1) << (8 - level) >> 1) - 512
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
