"""The range coder of the main profile: constriction's, but for how words lie in bytes and where they end."""

from __future__ import annotations

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.coding.main import coded_splats, contexts, models, range_coder

BITS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=300)


def fresh() -> np.ndarray:
    return models.initial_models()


def padded_words(payload: bytes, number: int) -> np.ndarray:
    """A payload as constriction's words."""
    return np.frombuffer(payload.ljust(4 * number, b"\0"), ">u4").astype(np.uint32)


class Constriction:
    """The same bits by constriction, with models of ours followed in Python."""

    def __init__(self) -> None:
        self.coder = constriction.stream.queue.RangeEncoder()
        self.states = [(int(state) >> range_coder.COUNT_BITS, int(state) & 1023) for state in fresh()[:64]]

    def bit(self, index: int, bit: bool) -> None:
        probability, count = self.states[index]
        zero = min(max(probability << 2, 1 << 8), (1 << 24) - (1 << 8))
        # Its float model gives each symbol one unit before it shares out the rest.
        family = constriction.stream.model.Categorical(np.array([zero - 1.0, (1 << 24) - zero - 1.0]), perfect=False)
        self.coder.encode(np.array([int(bit)], np.int32), family)
        target = 0 if bit else 1 << 22
        probability += (target - probability) * ((1 << 17) // (2 * count + 3)) >> 16
        self.states[index] = probability, min(count + 1, range_coder.COUNT_LIMIT)

    def uniform(self, number: int, value: int) -> None:
        size = np.array([1 << number], np.int32)
        self.coder.encode(np.array([value], np.int32), constriction.stream.model.Uniform(), size)


@given(symbols=BITS, number=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_bits_are_those_of_constriction(symbols: list[tuple[int, bool]], number: int) -> None:
    ours, theirs = range_coder.writer(fresh(), 4000), Constriction()
    for index, bit in symbols:
        range_coder.code_flag(ours, index - contexts.FRAME_FLAGS, bit)
        theirs.bit(index, bit)
        if index % 7 == 0:
            value = index * 991 % (1 << number)
            range_coder.code_bits(ours, number, value)
            theirs.uniform(number, value)
    payload, words = range_coder.finished(ours), theirs.coder.get_compressed()
    assert len(payload) <= 4 * len(words)
    reader = range_coder.reader(fresh(), words.astype(">u4").tobytes())
    decoder = constriction.stream.queue.RangeDecoder(padded_words(payload, len(words) + 2))
    follow = Constriction()
    for index, bit in symbols:
        assert range_coder.code_flag(reader, index - contexts.FRAME_FLAGS, 0) == bit
        zero = min(max(follow.states[index][0] << 2, 1 << 8), (1 << 24) - (1 << 8))
        family = constriction.stream.model.Categorical(np.array([zero - 1.0, (1 << 24) - zero - 1.0]), perfect=False)
        assert decoder.decode(family) == bit
        follow.bit(index, bit)
        if index % 7 == 0:
            value = index * 991 % (1 << number)
            assert range_coder.code_bits(reader, number, 0) == value
            assert decoder.decode(constriction.stream.model.Uniform(1 << number)) == value
            follow.uniform(number, value)


@given(values=st.lists(st.tuples(st.integers(0, 40), st.integers(0, (1 << 40) - 1)), max_size=60))
@settings(deadline=None)
def test_equiprobable_bits_return(values: list[tuple[int, int]]) -> None:
    values = [(number, value & ((1 << number) - 1)) for number, value in values]
    writer = range_coder.writer(fresh(), 8 * len(values))
    for number, value in values:
        assert range_coder.code_bits(writer, number, value) == value
    payload = range_coder.finished(writer)
    assert len(payload) <= sum(number for number, _ in values) / 8 + 1
    reader = range_coder.reader(fresh(), payload)
    assert [range_coder.code_bits(reader, number, 0) for number, _ in values] == [value for _, value in values]
    assert not range_coder.left_over(reader, payload)


@pytest.mark.parametrize("value", [0, 1, 255, (1 << 32) - 1])
def test_carries_reach_back(value: int) -> None:
    writer = range_coder.writer(fresh(), 400)
    for _ in range(30):
        range_coder.code_bits(writer, 20, (1 << 20) - 1)
    for _ in range(30):
        range_coder.code_flag(writer, 0, 1)
    range_coder.code_bits(writer, 32, value)
    reader = range_coder.reader(fresh(), range_coder.finished(writer))
    assert [range_coder.code_bits(reader, 20, 0) for _ in range(30)] == [(1 << 20) - 1] * 30
    assert all(range_coder.code_flag(reader, 0, 0) for _ in range(30))
    assert range_coder.code_bits(reader, 32, 0) == value


@given(data=st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_can_be_read(data: bytes) -> None:
    reader = range_coder.reader(fresh(), data)
    counts = np.zeros((40, 40), np.int32)
    assert coded_splats.code_cells(reader, counts, 3000) in (-1, counts.sum())
    assert counts.sum() <= 3000


def test_the_logistic_tables() -> None:
    squashed, stretched = range_coder._logistic()
    x = np.arange(-2048, 2048) / 256
    assert np.abs(squashed - (1 << 24) / (1 + np.exp(-x))).max() <= 1
    p = (np.arange(4096) + 0.5) / 4096
    assert np.abs(stretched[4:-4] - 256 * np.log(p / (1 - p))[4:-4]).max() <= 1
