"""Range coder with adaptive binary models, and payloads of the `main` profile in its terms (spec §7.2 to §7.8, numba).

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


def _inlined(function: _Function) -> _Function:
    """A part of a kernel too small to be called."""
    return cast(_Function, njit(inline="always", error_model="numpy")(function))


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
WEIGHT_BITS = 16
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


def probabilities(odds: NDArray[np.int64]) -> NDArray[np.int64]:
    """In 2^-22, of logarithms of odds in 1/256."""
    return _SQUASHED[odds + _DOMAIN] >> _PRECISION - PROBABILITY_BITS


# A coder is one array, which is what compiled functions pass on fastest: registers, models, weights of mixtures, words
# of the payload.  Reading, _LOW is the distance of the read point from the interval's lower end.
_LOW, _SIZE, _WORDS, _LENGTH, _FAULT, _WRITING, _LIMIT, _STATES = range(8)
Coder = NDArray[np.uint64]


# Magnitudes: the number of binary digits in unary, then the two digits behind the leading one; others are equiprobable.
_LENGTHS = 8  # models of the unary part; longer ones share the last
_MOST_DIGITS = 23
_DIGITS = 7  # lengths that have models for their digits; longer ones share the last
_DIGIT_MODELS = 3 * _DIGITS

# Limits of the state, see `state`.
MAX_CLASS = 8
MAX_AMPLITUDE = (1 << 24) - 1
MAX_SHEAR = (64 << 8) - 1
MIN_LOG_LENGTH, MAX_LOG_LENGTH = -2 << 8, (12 << 8) - 1
MIN_POSITION, MAX_POSITION = -256 << 6, (16384 + 256 << 6) - 1
CHANNELS = 3
OCTAVES = 14
_TREE = 16  # models of an octave: the first says on which side of the middle it lies
_MIDDLE = 4  # four pixels or more
_FRACTIONS = 4  # models of two bits, the first unused
_CELL_STEPS = 6  # models of a count in unary; further ones share the last
_NEAR, _WIDE, _PAIRS = 10, 12, 27  # contexts of counts
_DENSITIES = 10
_SIZES = 6  # of magnitudes, by their lengths
_CLASSES = 6  # where not all matter
_DISTANCES = 4
_HALVES = 10  # octaves of lengths, halved
_LEVELS = 7  # of what has a sign
_SPREADS = 6  # of neighbouring vectors
_SHIFTS = 6  # from the vector before, the last: there is none
_RESIDUALS = 25
_ACTIVITIES = 6
_SLOT_CLASSES = 7  # of predicted splats, where not all matter
_BEHIND = 5  # lengths of deltas before in the slot
_BESIDE = 6  # of the same delta of a slot nearby, the last: there is none
_MOST_DELTAS = 8

# Rows and columns to the cells up to two away that come before one in raster order, the nearest first.
_AROUND = np.array(
    [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1), (-2, -2), (-2, 2)],
    np.int64,
)
_ADJACENT = 4  # of them are one away

POSITION, SHAPE, COLOR, REMOVED, REVIVED = 1, 2, 4, 8, 16  # what a slot does, as bits of one number
_SLOTS_PER_SQUARE = 2  # of the squares in which slots know each other

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
VECTORS_SPREAD = GAP_DIGITS + _DIGIT_MODELS
VECTORS_SHIFT = VECTORS_SPREAD + 2 * _SPREADS * _LENGTHS
VECTORS_RESIDUAL = VECTORS_SHIFT + 2 * _SHIFTS * _LENGTHS
VECTOR_DIGITS = VECTORS_RESIDUAL + _RESIDUALS * _LENGTHS
VECTOR_SIGNS = VECTOR_DIGITS + _DIGIT_MODELS
FLAGS_BEFORE = VECTOR_SIGNS + (_LEVELS + 1) + 9 + 6
FLAGS_NEAR = FLAGS_BEFORE + 2 * 3 * 4 * 8
FLAGS_CLASS = FLAGS_NEAR + 2 * 3 * 4 * _ACTIVITIES
REMOVALS = FLAGS_CLASS + 2 * 3 * 4 * 2 * _SLOT_CLASSES
REVIVALS = REMOVALS + _SLOT_CLASSES + 8 + _ACTIVITIES
DELTAS_CLASS = REVIVALS + 2
DELTAS_BEHIND = DELTAS_CLASS + _MOST_DELTAS * 2 * _SLOT_CLASSES * _LENGTHS
DELTAS_BESIDE = DELTAS_BEHIND + 2 * _MOST_DELTAS * _BEHIND * _LENGTHS
DELTA_DIGITS = DELTAS_BESIDE + _MOST_DELTAS * _BESIDE * _LENGTHS
DELTA_SIGNS = DELTA_DIGITS + 2 * 3 * _DIGIT_MODELS
FRAME_FLAGS = DELTA_SIGNS + 7 * _MOST_DELTAS
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
VECTOR_MIX = SHEAR_SIGN_MIX + 1
VECTOR_SIGN_MIX = VECTOR_MIX + _LENGTHS
FLAG_MIX = VECTOR_SIGN_MIX + 1
REMOVAL_MIX = FLAG_MIX + 2 * 3
DELTA_MIX = REMOVAL_MIX + 1
DELTA_SIGN_MIX = DELTA_MIX + 3 * _LENGTHS
NUM_MIXTURES = DELTA_SIGN_MIX + 3
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
    while coder[np.uintp(place)] == u64(0xFFFFFFFF):
        coder[np.uintp(place)] = u64(0)
        place -= 1
    coder[np.uintp(place)] += u64(1)


@_inlined
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


@_inlined
def _adapt(coder: Any, index: Any, model: Any, bit: Any) -> None:
    """Let a model see a bit."""
    probability, count = model >> COUNT_BITS, model & ((1 << COUNT_BITS) - 1)
    target = np.int64(0 if bit else 1 << PROBABILITY_BITS)
    probability += (target - probability) * _RATES[np.uintp(count)] >> 16
    if count < np.int64(coder[_LIMIT]):
        count += 1
    coder[np.uintp(_STATES + index)] = u64(probability << COUNT_BITS | count)


@_kernel
def _bit(coder: Any, index: Any, bit: Any) -> Any:
    """One bit by an adaptive model."""
    model = np.int64(coder[np.uintp(_STATES + index)])
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
        np.int64(coder[np.uintp(_STATES + first)]),
        np.int64(coder[np.uintp(_STATES + second)]),
        np.int64(coder[np.uintp(_STATES + third)]),
    )
    shift = COUNT_BITS + PROBABILITY_BITS - 12
    x_1, x_2, x_3 = (
        _STRETCHED[np.uintp(model_1 >> shift)],
        _STRETCHED[np.uintp(model_2 >> shift)],
        _STRETCHED[np.uintp(model_3 >> shift)],
    )
    w_1, w_2, w_3 = (
        np.int64(coder[np.uintp(place)]),
        np.int64(coder[np.uintp(place + 1)]),
        np.int64(coder[np.uintp(place + 2)]),
    )
    x = (w_1 * x_1 + w_2 * x_2 + w_3 * x_3) >> WEIGHT_BITS
    weight = _SQUASHED[np.uintp(min(max(x, -_DOMAIN), _DOMAIN - 1) + _DOMAIN)]
    bit = _code(coder, weight, bit)
    error = ((0 if bit else 1 << _PRECISION) - weight) >> (_PRECISION - WEIGHT_BITS)
    coder[np.uintp(place)] = u64(w_1 + (x_1 * error >> _LEARNING_BITS))
    coder[np.uintp(place + 1)] = u64(w_2 + (x_2 * error >> _LEARNING_BITS))
    coder[np.uintp(place + 2)] = u64(w_3 + (x_3 * error >> _LEARNING_BITS))
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


@_inlined
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
        line, upper = capped[row + 4], capped[row + 3]
        for column in range(columns):
            window += above[column + 8]
            place = column + 4
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
def _class_of(energy: Any, square: Any) -> Any:
    """The class of a splat from the sum of its squared amplitudes and the square of D (`state.classes_of`)."""
    result = np.int64(0)
    while result < MAX_CLASS and 2 * energy >= square << 2 * (result + 1):
        result += 1
    return result


@_kernel
def _place_shift(log_length: Any, level: Any) -> Any:
    """log2 of the step of a splat's x or y (`state.position_shifts`)."""
    shift: Any = min(max((np.int64(log_length) + 128 >> 8) + 6 - level, 0), 9)
    return shift


@_kernel
def _log_length(coder: Any, axis: Any, first: Any, second: Any, third: Any, level: Any, value: Any) -> Any:
    """The octave and at most two fraction bits of a log length of a splat of class `level`."""
    octave: Any = value >> level
    mixture = LENGTH_MIX + 4 * axis
    if _mixed(coder, mixture, first, second, third, np.int64(octave >= _MIDDLE)):
        number: Any = np.int64(_MIDDLE)
        while number < OCTAVES - 1 and _mixed(
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
        while number > 0 and _mixed(
            coder, mixture + 3, first + number, second + number, third + number, np.int64(octave < number)
        ):
            number -= 1
    octave = number
    base = FRACTIONS + (axis * OCTAVES + octave) * _FRACTIONS
    rest = level
    node = np.int64(1)
    for _ in range(min(level, 2)):
        rest -= 1
        node = node << 1 | _bit(coder, base + node, value >> rest & 1)
    return octave << (level - rest) | node - (np.int64(1) << (level - rest))


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
                third = (_sign(theirs) + 1) * _SIZES + distance
                if channel:
                    third = (channel * 3 + _sign(theirs) * alike + 1) * _SIZES
                    third += min(size, _SIZES - 1)
                negative = _mixed(
                    coder,
                    SIGN_MIX + channel,
                    SIGNS_BELOW + channel * 3 + sign + 1,
                    SIGNS_NEAREST + channel * 9 + (sign + 1) * 3 + _sign(theirs) + 1,
                    SIGNS_ALIKE + third,
                    np.int64(symbol < 0),
                )
            sign = np.int64(value > 0) * (1 - 2 * negative)
            if channel == 0:
                alike = sign * _sign(theirs)
            symbols[n, channel] = sign * value
            fault |= value * step > MAX_AMPLITUDE
            energy += value * value
            last = value + (last >> 2)
        level = _class_of(energy, np.int64(1))

        few: Any = min(level, _CLASSES - 1)
        crowd = (few * _DENSITIES + density) * _TREE
        rest: Any = max(level - 2, 0)
        length_1 = _log_length(
            coder,
            np.int64(0),
            LENGTHS_CLASS + few * _TREE,
            LENGTHS_DENSITY + crowd,
            LENGTHS_NEAREST + _half(forms[other, 0]) * _TREE,
            level,
            np.int64(shapes[n, 0]),
        )
        length_3 = _log_length(
            coder,
            np.int64(1),
            LENGTHS_CLASS + (_CLASSES + (length_1 >> (level - rest))) * _TREE,
            LENGTHS_DENSITY + _CLASSES * _DENSITIES * _TREE + crowd,
            LENGTHS_NEAREST + (_HALVES + _half(forms[other, 2])) * _TREE,
            level,
            np.int64(shapes[n, 2]),
        )
        mask = (np.int64(1) << rest) - 1
        fine = _bits(coder, 2 * rest, (np.int64(shapes[n, 0]) & mask) << rest | np.int64(shapes[n, 2]) & mask)
        length_1 = (length_1 << rest | fine >> rest) << (8 - level)
        length_3 = (length_3 << rest | fine & mask) << (8 - level)

        aspect = _level(length_3 - length_1, 64, 256, 512)
        shear = np.int64(shapes[n, 1])
        value = _mixed_magnitude(
            coder,
            np.int64(SHEAR_MIX),
            SHEARS_CLASS + level * _LENGTHS,
            SHEARS_ASPECT + (level * _LEVELS + aspect) * _LENGTHS,
            SHEARS_LENGTH + _half(length_1) * _LENGTHS,
            np.int64(SHEAR_DIGITS),
            3 - level,
            abs(shear),
        )
        fault |= value << (8 - level) > MAX_SHEAR
        if value:
            theirs = _level(forms[other, 1], 1, 64, 256)
            if _mixed(
                coder,
                np.int64(SHEAR_SIGN_MIX),
                SHEAR_SIGNS + theirs,
                SHEAR_SIGNS + _LEVELS + aspect,
                SHEAR_SIGNS + 2 * _LEVELS + theirs * _LEVELS + aspect,
                np.int64(shear < 0),
            ):
                value = -value
        shear = value << (8 - level)
        forms[n, 0], forms[n, 1], forms[n, 2] = length_1, shear, length_3

        # Lengths lie in the middle of the cells of their lattice (`state.state_of`); steps of positions follow.
        middle = np.int64(1) << (8 - level) >> 1
        length_1, length_3 = length_1 + middle - 512, length_3 + middle - 512
        shift_x, shift_y = _place_shift(length_1, level), _place_shift(length_3, level)
        place = np.int64(positions[n, 0]) << (9 - shift_y) | np.int64(positions[n, 1])
        place = _bits(coder, 18 - shift_x - shift_y, place)
        if not coder[_WRITING] and not fault:
            for channel in range(channels):
                amplitudes[n, channel] = symbols[n, channel] * step
            shapes[n, 0], shapes[n, 1], shapes[n, 2] = length_1, shear, length_3
            x, y = place >> (9 - shift_y), place & ((np.int64(1) << (9 - shift_y)) - 1)
            positions[n, 0] = (column << 9) + (x << shift_x) + (np.int64(1) << shift_x >> 1)
            positions[n, 1] = (row << 9) + (y << shift_y) + (np.int64(1) << shift_y >> 1)
    return np.int64(-1 if fault else 0)


@_kernel
def code_flag(coder: Any, index: Any, value: Any) -> Any:
    """A bit with a model of its own, one of the eight `FRAME_FLAGS`; returns it."""
    return _bit(coder, FRAME_FLAGS + index, np.int64(value))


@_kernel
def code_number(coder: Any, value: Any) -> Any:
    """How many there are of something rare; returns it."""
    return _magnitude(coder, NUMBERS, NUMBER_DIGITS, np.int64(0), np.int64(value))


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
def code_vectors(coder: Any, vectors: Any, before: Any, known: Any, most: Any) -> Any:
    """Vectors [rows, columns, 2]; returns 0, or -1 where a component exceeds `most`.

    Args:
        coder: of the payload.
        vectors: int32.
        before: int32, those of the field before.
        known: whether there is one of the same spacing.
        most: greatest magnitude.
    """
    rows, columns, _ = vectors.shape
    residuals = np.zeros((rows + 1, columns + 1, 2), np.int64)
    for row in range(rows):
        for column in range(columns):
            across: Any = np.int64(0)  # of this vector's x, once that is known
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
                west, north = residuals[row + 1, column, axis], residuals[row, column + 1, axis]
                shift = np.int64(before[row, column, axis]) - expected
                spread: Any = min(_digits(abs(left - up)), _SPREADS - 1)
                turn: Any = np.int64(_SHIFTS - 1)
                bend: Any = np.int64(_LEVELS)
                if known:
                    turn = min(_digits(abs(shift)), _SHIFTS - 2)
                    bend = _level(shift, 1, 2, 4)
                rest: Any = 5 * min(_digits(abs(west) + abs(north)), 4)
                rest += min(_digits(abs(across)), 3) if axis else 4
                residual = np.int64(vectors[row, column, axis]) - expected
                size = _mixed_magnitude(
                    coder,
                    np.int64(VECTOR_MIX),
                    VECTORS_SPREAD + (axis * _SPREADS + spread) * _LENGTHS,
                    VECTORS_SHIFT + (axis * _SHIFTS + turn) * _LENGTHS,
                    VECTORS_RESIDUAL + rest * _LENGTHS,
                    np.int64(VECTOR_DIGITS),
                    np.int64(0),
                    abs(residual),
                )
                if size:
                    negative = _mixed(
                        coder,
                        np.int64(VECTOR_SIGN_MIX),
                        VECTOR_SIGNS + bend,
                        VECTOR_SIGNS + _LEVELS + 1 + 3 * (_sign(west) + 1) + _sign(north) + 1,
                        VECTOR_SIGNS + _LEVELS + 10 + 3 * axis + _sign(across) + 1,
                        np.int64(residual < 0),
                    )
                    size *= 1 - 2 * negative
                across = size
                if abs(expected + size) > most:
                    return np.int64(-1)
                vectors[row, column, axis] = expected + size
                residuals[row + 1, column + 1, axis] = size
    return np.int64(0)


@_kernel
def _sign(value: Any) -> Any:
    return np.int64(value > 0) - np.int64(value < 0)


@_kernel
def _activity(active: Any, group: Any, row: Any, column: Any) -> Any:
    """How much slots around a square do; squares begin at 1."""
    near = 2 * active[group, row, column] + active[group, row, column - 1] + active[group, row - 1, column]
    near += active[group, row - 1, column - 1] + active[group, row - 1, column + 1]
    context = np.int64(0)
    for bound in (32, 96, 224, 448, 800):
        context += near >= bound
    return context


@_kernel
def _beside(latest: Any, group: Any, row: Any, column: Any) -> Any:
    """The slot nearby that was the last to change; -1 where there is none."""
    other = latest[group, row, column]
    if other < 0:
        other = latest[group, row, column - 1]
    if other < 0:
        other = latest[group, row - 1, column]
    if other < 0:
        other = latest[group, row - 1, column + 1]
    return other


@_kernel
def code_slots(
    coder: Any,
    between: Any,
    size: Any,
    step: Any,
    amplitudes: Any,
    places: Any,
    before: Any,
    anchors: Any,
    flags: Any,
    deltas: Any,
) -> None:
    """What slots do: their flags, and the deltas of those that change.

    Args:
        coder: of the payload.
        between: 1 in B-frames, where slots are neither removed nor revived; 0 in P-frames.
        size: width and height of the frame.
        step: D.
        amplitudes: int32 [N, C] predicted; a slot without any is dead.
        places: int32 [N, 2] predicted positions.
        before: int32 [N] flags of the slots in the payload of this kind before.
        anchors: int32 [N] flags of the slots in the last P payload.
        flags: int32 [N].
        deltas: int32 [N, 5 + C] of position, shape and amplitude, in steps; 0 where the flag of their group is.
    """
    kind = np.int64(between)
    channels = deltas.shape[1] - 5
    width, height = np.int64(size[0]) << 6, np.int64(size[1]) << 6
    square = np.int64(9)
    while square < 14 and (width >> square) * (height >> square) * _SLOTS_PER_SQUARE > len(flags):
        square += 1
    columns, rows = (width >> square) + 1, (height >> square) + 1
    # With a margin of one square; how much slots do is in 1/256, and those coded last count most.
    active = np.full((4, rows + 2, columns + 2), 32, np.int64)
    latest = np.full((3, rows + 2, columns + 2), -1, np.int64)
    for n in range(len(flags)):
        energy = np.int64(0)
        for channel in range(channels):
            energy += np.int64(amplitudes[n, channel]) * np.int64(amplitudes[n, channel])
        if not energy:
            revived = np.int64(0)
            if not between:
                revived = _bit(coder, REVIVALS, np.int64((flags[n] & REVIVED) > 0))
            flags[n] = REVIVED * revived
            continue
        row: Any = min(max(np.int64(places[n, 1]) >> square, 0), rows - 1)
        column: Any = min(max(np.int64(places[n, 0]) >> square, 0), columns - 1)
        row += 1
        column += 1
        level: Any = min(_class_of(energy, np.int64(step) * np.int64(step)), _SLOT_CLASSES - 1)
        done: Any = np.int64(0)
        for group in range(3):
            base = (kind * 3 + group) * 4 + done
            anchor: Any = np.int64(anchors[n]) >> group & kind
            bit = _mixed(
                coder,
                FLAG_MIX + kind * 3 + group,
                FLAGS_BEFORE + base * 8 + (np.int64(before[n]) & 7),
                FLAGS_NEAR + base * _ACTIVITIES + _activity(active, group, row, column),
                FLAGS_CLASS + (base * 2 + anchor) * _SLOT_CLASSES + level,
                np.int64(flags[n]) >> group & 1,
            )
            done |= bit << group
            active[group, row, column] += ((256 if bit else 0) - active[group, row, column]) >> 1
        start = np.int64(0)
        for group in range(3):
            number = channels if group == 2 else 2 + group
            some = np.int64(0)
            behind: Any = np.int64(0)
            last = np.int64(0)
            other = _beside(latest, group, row, column)
            for place in range(start, start + number):
                if not done >> group & 1:
                    deltas[n, place] = 0
                    continue
                theirs = np.int64(deltas[other, place]) if other >= 0 else np.int64(0)
                beside: Any = min(_digits(abs(theirs)), _BESIDE - 2) if other >= 0 else np.int64(_BESIDE - 1)
                delta = np.int64(deltas[n, place])
                history = (kind * _MOST_DELTAS + place) * _BEHIND + min(_digits(behind), _BEHIND - 1)
                value = _mixed_magnitude(
                    coder,
                    DELTA_MIX + group * _LENGTHS,
                    DELTAS_CLASS + ((place * 2 + some) * _SLOT_CLASSES + level) * _LENGTHS,
                    DELTAS_BEHIND + history * _LENGTHS,
                    DELTAS_BESIDE + (place * _BESIDE + beside) * _LENGTHS,
                    DELTA_DIGITS + (kind * 3 + group) * _DIGIT_MODELS,
                    np.int64(0),
                    abs(delta),
                )
                behind += value
                if value:
                    some = np.int64(1)
                    negative = _mixed(
                        coder,
                        DELTA_SIGN_MIX + group,
                        DELTA_SIGNS + place,
                        DELTA_SIGNS + (1 + _sign(theirs) + 1) * _MOST_DELTAS + place,
                        DELTA_SIGNS + (4 + last + 1) * _MOST_DELTAS + place,
                        np.int64(delta < 0),
                    )
                    value *= 1 - 2 * negative
                last = _sign(value)
                deltas[n, place] = value
            if done >> group & 1:
                latest[group, row, column] = n
            start += number
        if not done and not between:
            gone = _mixed(
                coder,
                np.int64(REMOVAL_MIX),
                REMOVALS + level,
                REMOVALS + _SLOT_CLASSES + (np.int64(before[n]) & 7),
                REMOVALS + _SLOT_CLASSES + 8 + _activity(active, 3, row, column),
                np.int64((flags[n] & REMOVED) > 0),
            )
            active[3, row, column] += ((256 if gone else 0) - active[3, row, column]) >> 1
            if gone:
                done = np.int64(REMOVED)
                if _bit(coder, REVIVALS + 1, np.int64((flags[n] & REVIVED) > 0)):
                    done |= REVIVED
        flags[n] = done


@_kernel
def _shape_limits(part: Any) -> Any:
    return (-MAX_SHEAR, MAX_SHEAR) if part == 1 else (MIN_LOG_LENGTH, MAX_LOG_LENGTH)


@_kernel
def change_slots(positions: Any, shapes: Any, amplitudes: Any, flags: Any, deltas: Any, step: Any) -> None:
    """Make slots of their prediction: what `code_slots` said of those that are removed or change (`predict.changed`).

    Args:
        positions: int32 [N, 2], shapes: int32 [N, 3], amplitudes: int32 [N, C], predicted; changed in place.
        flags: int32 [N].
        deltas: int32 [N, 5 + C] of position, shape and amplitude, in steps.
        step: D.
    """
    channels = amplitudes.shape[1]
    for n in range(len(flags)):
        if flags[n] & REMOVED:
            amplitudes[n] = 0
        if not flags[n] & (POSITION | SHAPE | COLOR):
            continue
        energy = np.int64(0)
        for channel in range(channels):
            energy += np.int64(amplitudes[n, channel]) * np.int64(amplitudes[n, channel])
        level = _class_of(energy, np.int64(step) * np.int64(step))
        for axis in range(2):
            shift = _place_shift(shapes[n, 2 * axis], level)
            place = np.int64(positions[n, axis]) + (np.int64(deltas[n, axis]) << shift)
            positions[n, axis] = min(max(place, MIN_POSITION), MAX_POSITION)
        for part in range(3):
            least, most = _shape_limits(part)
            form = np.int64(shapes[n, part]) + (np.int64(deltas[n, 2 + part]) << (8 - level))
            shapes[n, part] = min(max(form, least), most)
        for channel in range(channels):
            amplitude = np.int64(amplitudes[n, channel]) + np.int64(deltas[n, 5 + channel]) * np.int64(step)
            amplitudes[n, channel] = min(max(amplitude, -MAX_AMPLITUDE), MAX_AMPLITUDE)


@_kernel
def find_changes(predicted: Any, state: Any, still: Any, step: Any, deltas: Any, flags: Any) -> Any:
    """What `change_slots` makes slots of their prediction with, in least magnitudes.

    Args:
        predicted: positions int32 [N, 2], shapes int32 [N, 3] and amplitudes int32 [N, C].
        state: likewise, what comes of them.
        still: bool [N] slots that are taken to be as predicted, whatever they are.
        step: D.
        deltas: int32 [N, 5 + C], filled.
        flags: int32 [N], filled.

    Returns:
        How many slots that do not lie a whole number of steps from their prediction.
    """
    channels = predicted[2].shape[1]
    faults = np.int64(0)
    for n in range(len(still)):
        deltas[n] = 0
        flags[n] = 0
        if still[n]:
            continue
        energy = np.int64(0)
        for channel in range(channels):
            energy += np.int64(predicted[2][n, channel]) * np.int64(predicted[2][n, channel])
        level = _class_of(energy, np.int64(step) * np.int64(step))
        met = True
        for axis in range(2):
            shift = _place_shift(predicted[1][n, 2 * axis], level)
            before, after = np.int64(predicted[0][n, axis]), np.int64(state[0][n, axis])
            delta = _steps_to(after - before, np.int64(1) << shift)
            deltas[n, axis] = delta
            flags[n] |= POSITION if delta else 0
            met &= after == min(max(before + (delta << shift), MIN_POSITION), MAX_POSITION)
        for part in range(3):
            least, most = _shape_limits(part)
            before, after = np.int64(predicted[1][n, part]), np.int64(state[1][n, part])
            delta = _steps_to(after - before, np.int64(1) << (8 - level))
            deltas[n, 2 + part] = delta
            flags[n] |= SHAPE if delta else 0
            met &= after == min(max(before + (delta << (8 - level)), least), most)
        for channel in range(channels):
            before, after = np.int64(predicted[2][n, channel]), np.int64(state[2][n, channel])
            delta = _steps_to(after - before, np.int64(step))
            deltas[n, 5 + channel] = delta
            flags[n] |= COLOR if delta else 0
            met &= after == min(max(before + delta * np.int64(step), -MAX_AMPLITUDE), MAX_AMPLITUDE)
        faults += not met
    return faults


@_kernel
def _steps_to(difference: Any, size: Any) -> Any:
    """Steps of a size, rounded away from 0: a limit may have cut the last one short."""
    steps = (abs(difference) + size - 1) // size
    return steps if difference >= 0 else -steps
