"""Quantisers against NumPy's own fp16, brute force, and numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.coding.baseline.quant import (
    Codebooks,
    QuantTables,
    ScalarQuantizer,
    cholesky_levels,
    float12_codes,
    float12_values,
    float16_codes,
    float16_values,
    position_fraction_bits,
    position_keys,
    position_values,
    raise_lengths,
)

ALL_FLOAT12 = np.array([code for code in range(4096) if (code >> 6) & 31 < 31], np.uint16)


def test_every_finite_float12_returns_to_its_code():
    codes = float12_codes(float12_values(ALL_FLOAT12))
    assert codes.tolist() == [0 if code == 0x800 else code for code in ALL_FLOAT12.tolist()]


def test_float12_is_fp16_with_the_mantissa_cut():
    assert np.array_equal(float12_values(ALL_FLOAT12), (ALL_FLOAT12 << 4).view(np.float16).astype(np.float32))


@settings(deadline=None)
@given(st.floats(-70000, 70000, width=32) | st.floats(-(2.0**-13), 2.0**-13, width=32))
def test_float12_is_nearest_with_ties_to_even(value):
    got = int(float12_codes([value])[0])
    positive = float12_values(ALL_FLOAT12[ALL_FLOAT12 < 0x800]).astype(np.float64)
    distance = np.abs(positive - abs(value))
    nearest = np.flatnonzero(distance == distance.min())
    expected = nearest[0] if len(nearest) == 1 else next(code for code in nearest if code % 2 == 0)
    assert got & 0x7FF == expected
    assert bool(got & 0x800) == (value < 0 and expected > 0)


def test_float16_clamps_to_finite_and_keeps_subnormals():
    assert float16_values(float16_codes([1e9, -1e9, 2.0**-24, 0])).tolist() == [65504, -65504, 2.0**-24, 0]


@pytest.mark.parametrize("fraction_bits", [1, 3, 10, 11, 12, 17, 24])
def test_positions_keep_order_range_and_grid(fraction_bits):
    positions = np.sort(np.random.default_rng(0).uniform(-1.2, 1.2, 4000)).astype(np.float32)
    keys = position_keys(positions, fraction_bits)
    values = position_values(keys, fraction_bits)
    assert (np.diff(keys) >= 0).all()
    assert values.min() == -1
    assert values.max() < 1
    assert np.array_equal(position_keys(values, fraction_bits), keys)
    assert np.array_equal(values.astype(np.float16), values)
    assert np.array_equal(np.ldexp(values, fraction_bits), np.rint(np.ldexp(values, fraction_bits)))
    inside = np.abs(positions) < 1 - 2.0**-fraction_bits
    step = max(2.0**-fraction_bits, 2.0**-11)
    assert np.abs(values - positions)[inside].max() <= step / 2


def test_whole_positions_are_plain_fp16():
    positions = np.random.default_rng(1).uniform(-1, 0.999, 500).astype(np.float32)
    assert np.array_equal(position_values(position_keys(positions, 24), 24), positions.astype(np.float16))


@pytest.mark.parametrize(("size", "bits"), [((768, 512), 11), ((480, 270), 10), ((1080, 1920), 12), ((1, 1), 1)])
def test_step_of_positions_is_an_eighth_to_a_quarter_pixel(size, bits):
    assert position_fraction_bits(*size) == bits
    assert 1 / 8 < max(size) / 2 * 2.0**-bits <= 1 / 4


def test_levels_of_the_paper():
    assert cholesky_levels(0, inter=False) == (0, 63)
    assert cholesky_levels(2, inter=False) == (-32, 31)
    assert cholesky_levels(0, inter=True) == cholesky_levels(1, inter=True) == (-16, 15)


def quantizer(low=0, high=63):
    return ScalarQuantizer(np.array([0.25, 0.5, 1], np.float32), np.array([1, -2, 0.125], np.float32), low, high)


def test_scalar_quantizer_by_hand():
    levels = quantizer().encode(np.array([[1.3, -2.25, 1e9], [0, -0.25, -1e9]], np.float32))
    assert levels.tolist() == [[1, 0, 63], [0, 4, 0]]  # -2.25 and -0.25: ties to even, the first clamped
    assert quantizer().decode(levels).tolist() == [[1.25, -2, 63.125], [1, 0, 0.125]]


@given(st.lists(st.tuples(*[st.integers(-32, 31)] * 3), min_size=1))
def test_levels_survive_dequantisation(levels):
    array = np.array(levels, np.int32)
    assert np.array_equal(quantizer(-32, 31).encode(quantizer(-32, 31).decode(array)), array)


def test_scalar_quantizer_refuses():
    ones = np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"scale: got .* allowed > 0"):
        ScalarQuantizer(ones * 0, ones, 0, 63)
    with pytest.raises(ValueError, match=r"offset: got .* allowed 3 finite float32"):
        ScalarQuantizer(ones, ones * np.float32("inf"), 0, 63)
    with pytest.raises(ValueError, match=r"got levels 1\.\.0, allowed low <= high"):
        ScalarQuantizer(ones, ones, 1, 0)
    with pytest.raises(ValueError, match="beyond float32"):
        ScalarQuantizer(ones * np.float32(3e38), ones, 0, 63)


@pytest.mark.parametrize("channels", [1, 3])
def test_codebook_search_is_no_worse_than_greedy(channels):
    rng = np.random.default_rng(5)
    books = Codebooks.on_grid([rng.normal(0, 0.2, (40, channels)), rng.normal(0, 0.05, (64, channels))])
    colors = rng.normal(0, 0.2, (300, channels)).astype(np.float32)
    indices = books.encode(colors)
    assert indices.shape == (300, 2)
    first = ((colors[:, None] - books.stages[0]) ** 2).sum(2).argmin(1)
    residual = colors - books.stages[0][first]
    second = ((residual[:, None] - books.stages[1]) ** 2).sum(2).argmin(1)
    greedy = books.stages[0][first] + books.stages[1][second]
    errors = ((books.decode(indices) - colors) ** 2).sum(1)
    assert (errors <= ((greedy - colors) ** 2).sum(1) + 1e-7).all()
    assert np.array_equal(books.decode(indices), books.stages[0][indices[:, 0]] + books.stages[1][indices[:, 1]])


def test_codebook_sums_are_rounded_in_stage_order():
    books = Codebooks(tuple(np.array([[value]], np.float32) for value in (2.0**-24, 2048.0, -2048.0)))
    # 2^-24 is lost in the first sum; another order would keep it.
    assert books.decode(np.zeros((1, 3), np.int32)).tolist() == [[0.0]]


def test_codebooks_refuse():
    with pytest.raises(ValueError, match=r"got 0 stages, allowed 1\.\.4"):
        Codebooks(())
    with pytest.raises(ValueError, match=r"stage 0: got float32 \(65, 3\), allowed"):
        Codebooks((np.zeros((65, 3), np.float32),))
    with pytest.raises(ValueError, match="not an fp16"):
        Codebooks((np.full((2, 3), 0.1, np.float32),))
    with pytest.raises(ValueError, match="got 1 channels, allowed 1 or 3, all alike"):
        Codebooks((np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)))


def test_tables_match_by_value():
    books = Codebooks.on_grid([np.zeros((4, 3))])
    tables = QuantTables(quantizer(), books, 11)
    assert tables.matches(QuantTables(quantizer(), Codebooks.on_grid([np.zeros((4, 3))]), 11))
    assert not tables.matches(QuantTables(quantizer(), books, 12))
    assert not tables.matches(QuantTables(quantizer(), Codebooks.on_grid([np.ones((4, 3))]), 11))
    assert not tables.matches(QuantTables(quantizer(0, 31), books, 11))
    with pytest.raises(ValueError, match=r"fraction bits: got 25, allowed 1\.\.24"):
        QuantTables(quantizer(), books, 25)


def test_lengths_keep_their_sign():
    factors = np.array([[0, 0, -0.001], [0.01, -0.001, -5]], np.float32)
    assert raise_lengths(factors).tolist() == [[1 / 64, 0, -1 / 64], [1 / 64, np.float32(-0.001), -5]]
