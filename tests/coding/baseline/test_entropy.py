"""The range coder: golden words, round trips, and the program in the spec that must read the same words."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.coding.baseline.entropy import (
    DELTA_COUNTS,
    LADDER,
    RangeDecoder,
    RangeEncoder,
    choose_classes,
    class_bits,
    symbol_bits,
)
from pgsvc_codec.errors import CorruptError

SPEC = (Path(__file__).parents[3] / "bitstream_spec.md").read_text(encoding="utf-8")

# Changing these words is a change of the format.
GOLDEN_COUNTS = np.array([5, 0, 90, 1, 4])
GOLDEN_SYMBOLS = np.array([2, 2, 0, 2, 4, 3, 2, 2, 2, 0], np.int32)
GOLDEN_VALUES = [0, 6, 999, 65535, 2**20]
GOLDEN_SIZES = [1, 7, 1000, 65536, 2**20 + 1]
GOLDEN_PAYLOAD = bytes.fromhex("c9cf2622f9dde269")


def golden_encoder():
    coder = RangeEncoder()
    coder.table(GOLDEN_SYMBOLS, GOLDEN_COUNTS)
    coder.uniform(GOLDEN_VALUES, GOLDEN_SIZES)
    return coder


def spec_program():
    names = {}
    exec(re.search(r"### 6\.1.*?```python\n(.*?)```", SPEC, re.S)[1], names)
    return names


def test_golden_words():
    assert golden_encoder().finish() == GOLDEN_PAYLOAD
    coder = RangeDecoder(GOLDEN_PAYLOAD)
    assert coder.table(len(GOLDEN_SYMBOLS), GOLDEN_COUNTS).tolist() == GOLDEN_SYMBOLS.tolist()
    assert coder.uniform(GOLDEN_SIZES).tolist() == GOLDEN_VALUES


def test_program_of_the_spec_reads_golden_words():
    program = spec_program()
    coder = program["RangeDecoder"](GOLDEN_PAYLOAD)
    edges = program["table_edges"](GOLDEN_COUNTS.tolist())
    assert [coder.symbol(edges) for _ in GOLDEN_SYMBOLS] == GOLDEN_SYMBOLS.tolist()
    for value, size in zip(GOLDEN_VALUES[1:], GOLDEN_SIZES[1:], strict=True):
        if size <= 1000:  # the larger lists of edges are long to walk and follow the same rule
            assert coder.symbol(program["uniform_edges"](size)) == value


def test_constants_of_the_spec():
    assert [int(n) for n in re.search(r"ladder = ([\d ]+)", SPEC)[1].split()] == LADDER.tolist()
    delta = [int(n) for n in re.search(r"delta = ([\d ]+)", SPEC)[1].split()]
    assert delta[:0:-1] + delta == DELTA_COUNTS.tolist()


tables = st.lists(st.integers(0, 3000), min_size=2, max_size=70).filter(any).map(np.array)


@settings(max_examples=60, deadline=None)
@given(st.data(), tables)
def test_mixed_round_trip_and_program_of_the_spec(data, counts):
    used = np.flatnonzero(counts)
    symbols = np.array(data.draw(st.lists(st.sampled_from(used.tolist()), max_size=40)), np.int32)
    sizes = np.array(data.draw(st.lists(st.integers(1, 300), max_size=40)), np.int32)
    values = np.array([data.draw(st.integers(0, size - 1)) for size in sizes.tolist()], np.int32)
    encoder = RangeEncoder()
    encoder.table(symbols, counts)
    encoder.uniform(values, sizes)
    encoder.table(symbols, counts)
    payload = encoder.finish()

    decoder = RangeDecoder(payload)
    assert decoder.table(len(symbols), counts).tolist() == symbols.tolist()
    assert decoder.uniform(sizes).tolist() == values.tolist()
    assert decoder.table(len(symbols), counts).tolist() == symbols.tolist()

    program = spec_program()
    coder = program["RangeDecoder"](payload)
    edges = program["table_edges"](counts.tolist())
    assert [coder.symbol(edges) for _ in symbols] == symbols.tolist()
    assert [coder.symbol(program["uniform_edges"](n)) if n > 1 else 0 for n in sizes.tolist()] == values.tolist()
    assert [coder.symbol(edges) for _ in symbols] == symbols.tolist()


def test_nothing_and_one_symbol_alphabets_take_no_words():
    coder = RangeEncoder()
    coder.table(np.zeros(0, np.int32), np.array([1, 2]))
    coder.table(np.zeros(9, np.int32), np.array([7]))
    coder.uniform(np.zeros(9), 1)
    coder.uniform([], [])
    assert coder.finish() == b""
    decoder = RangeDecoder(b"")
    assert decoder.table(9, np.array([7])).tolist() == [0] * 9
    assert decoder.uniform([1, 1]).tolist() == [0, 0]


def test_encoder_refuses_symbols_without_a_code():
    coder = RangeEncoder()
    with pytest.raises(ValueError, match="no count in the table of 3"):
        coder.table(np.array([1], np.int32), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="no count in the table of 3"):
        coder.table(np.array([3], np.int32), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match=r"outside 0\.\.size - 1"):
        coder.uniform([4], [4])


def test_decoder_refuses_odd_lengths_and_impossible_words():
    with pytest.raises(CorruptError, match="got 7 bytes, allowed a multiple of 4"):
        RangeDecoder(b"1234567")
    with pytest.raises(CorruptError, match="no sequence of symbols"):
        RangeDecoder(b"\xff" * 8).uniform([9])


def test_decoder_refuses_symbols_of_count_zero():
    with pytest.raises(CorruptError, match="count 0"):
        RangeDecoder(b"\x00\x00\x00\x00").table(1, np.array([0, 1, 1]))


@pytest.mark.parametrize("differences", [[-1, 1, 0], [23, 1, 0], [0, 0, 0]])
def test_decoder_refuses_impossible_frequency_tables(differences):
    encoder = RangeEncoder()
    encoder.table(np.array(differences, np.int32) + 23, DELTA_COUNTS)
    with pytest.raises(CorruptError, match="frequency table: got classes"):
        RangeDecoder(encoder.finish()).classes(3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=2, max_size=73).filter(any).map(np.array))
def test_chosen_classes_cover_what_occurs_and_survive_the_stream(histogram):
    classes = choose_classes(histogram)
    assert (classes[histogram > 0] > 0).all()
    encoder = RangeEncoder()
    encoder.classes(classes)
    assert RangeDecoder(encoder.finish()).classes(len(histogram)).tolist() == classes.tolist()


@pytest.mark.parametrize("occurrences", [30, 400, 1667, 20000])
def test_smooth_histograms_cost_little_more_than_their_entropy(occurrences):
    bins = np.arange(64)
    for shape in (np.exp(-(((bins - 20) / 9) ** 2)), np.exp(-bins / 40), 1 / (1 + np.abs(bins - 31.5)) ** 2):
        histogram = np.random.default_rng(3).multinomial(occurrences, shape / shape.sum())
        classes = choose_classes(histogram)
        assert class_bits(classes) <= 2.2 * len(bins)
        ideal = symbol_bits(histogram, histogram)
        total = class_bits(classes) + symbol_bits(histogram, LADDER[classes])
        assert total <= 1.02 * ideal + 2.2 * len(bins)
