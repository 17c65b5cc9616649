"""Range coder with adaptive binary models, their mixtures, and magnitudes (spec §7.2, §7.3, numba).

Each kernel walks the syntax once, for both directions: a call of `code_bit` writes the bit that it is given, or
replaces it by the one that it reads, and returns it.  So writer and reader cannot differ.

The coder is constriction's queue coder of 64-bit state, 32-bit words and 24-bit probabilities, but that words lie in
the payload with the highest byte first, and that bytes past the end read as 0: what is 0 at the end is not stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.contexts import (
    DIGITS,
    FRAME_FLAGS,
    LENGTHS,
    MOST_DIGITS,
    NUM_MODELS,
    NUM_STATES,
    NUMBER_DIGITS,
    NUMBERS,
)
from pgsvc_codec.jit import kernel

compiled = kernel(nogil=True, error_model="numpy")
_inlined = kernel(inline="always", error_model="numpy")  # parts of a kernel too small to be called

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
_LOW, _SIZE, _WORDS, _LENGTH, _FAULT, WRITING, _LIMIT, _STATES = range(8)
Coder = NDArray[np.uint64]


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


@compiled
def _renew(coder: Any) -> None:
    """Move one word."""
    place = np.int64(coder[_WORDS])
    if coder[WRITING]:
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


@compiled
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
    if coder[WRITING]:
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


@compiled
def code_bit(coder: Any, index: Any, bit: Any) -> Any:
    """One bit by an adaptive model."""
    model = np.int64(coder[np.uintp(_STATES + index)])
    shift = _PRECISION - PROBABILITY_BITS
    weight: Any = min(max(model >> COUNT_BITS << shift, _LEAST), (1 << _PRECISION) - _LEAST)
    bit = _code(coder, weight, bit)
    _adapt(coder, index, model, bit)
    return bit


@compiled
def code_mixed(coder: Any, mixture: Any, first: Any, second: Any, third: Any, bit: Any) -> Any:
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


@compiled
def code_raw(coder: Any, number: Any, value: Any) -> Any:
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
    if coder[WRITING]:
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


@compiled
def digits_of(value: Any) -> Any:
    """Binary digits of a positive number; others have none."""
    number = np.int64(0)
    while value > 0:
        value >>= 1
        number += 1
    return number


@compiled
def code_magnitude(coder: Any, lengths: Any, digits: Any, shift: Any, value: Any) -> Any:
    """A number that is not negative; `shift` says which models the second and third digit take."""
    length = digits_of(value)
    number = np.int64(0)
    while number < MOST_DIGITS and code_bit(coder, lengths + min(number, LENGTHS - 1), np.int64(length > number)):
        number += 1
    return _rest(coder, digits, shift, number, value)


@compiled
def code_mixed_magnitude(
    coder: Any, mixture: Any, first: Any, second: Any, third: Any, digits: Any, shift: Any, value: Any
) -> Any:
    """Likewise, its length by mixtures."""
    length = digits_of(value)
    number = np.int64(0)
    step: Any = np.int64(0)
    while number < MOST_DIGITS and code_mixed(
        coder, mixture + step, first + step, second + step, third + step, np.int64(length > number)
    ):
        number += 1
        step = min(number, LENGTHS - 1)
    return _rest(coder, digits, shift, number, value)


@compiled
def _rest(coder: Any, digits: Any, shift: Any, number: Any, value: Any) -> Any:
    """A number of so many binary digits."""
    if number < 2:
        return number
    base = digits + 3 * min(max(number - 2 + shift, 0), DIGITS - 1)
    rest = number - 1
    result = np.int64(1)
    node = np.int64(0)
    while rest and number - rest <= 2:
        rest -= 1
        digit = code_bit(coder, base + node, value >> rest & 1)
        result = result << 1 | digit
        node = 1 + digit
    return result << rest | code_raw(coder, rest, value & ((np.int64(1) << rest) - 1))


@compiled
def code_bits(coder: Any, number: Any, value: Any) -> Any:
    """A header field of so many equiprobable bits; returns it."""
    return code_raw(coder, np.int64(number), np.int64(value))


@compiled
def code_flag(coder: Any, index: Any, value: Any) -> Any:
    """A bit with a model of its own, one of the eight `FRAME_FLAGS`; returns it."""
    return code_bit(coder, FRAME_FLAGS + index, np.int64(value))


@compiled
def code_number(coder: Any, value: Any) -> Any:
    """How many there are of something rare; returns it."""
    return code_magnitude(coder, NUMBERS, NUMBER_DIGITS, np.int64(0), np.int64(value))
