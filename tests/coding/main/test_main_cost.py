"""Prices of splats: close to the bytes that are written, and what the tables' documentation says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.coding.main.cost import IntraCosts, intra_bits, intra_costs, payload_bits
from pgsvc_codec.coding.main.layer import LayerEncoder
from pgsvc_codec.coding.main.state import STEPS, IntraSymbols, classes_of, position_shifts, state_of, symbols_of
from pgsvc_codec.splats import SplatState

WIDTH, HEIGHT = 768, 512


def crowded_state(seed: int, number: int, step: int, channels: int = 3) -> SplatState:
    """Splats like those of a picture: small ones in crowds, few large ones."""
    rng = np.random.default_rng(seed)
    k = np.rint(rng.laplace(size=(number, channels)) * [4, 1.5, 1][:channels]).astype(np.int32)
    k[(k == 0).all(axis=1), 0] = 1
    classes = classes_of(k * np.int32(step), step)
    scale = (1 << classes).astype(np.float64)
    octaves = np.clip(rng.normal(2, 1, number) + rng.normal(0, 0.5, (2, number)), -1.5, 9)
    lengths = np.rint(octaves * scale)
    shapes = np.stack([lengths[0], np.rint(rng.normal(0, 0.7, number) * scale), lengths[1]], axis=1).astype(np.int32)
    shifts = position_shifts(state_of(IntraSymbols(k, shapes, np.zeros((number, 2), np.int32)), step).shapes, classes)
    size = np.array([WIDTH, HEIGHT])
    points = np.clip(rng.normal(0.5, 0.2, (number, 2)), 0, 0.999) * size * 64
    return state_of(IntraSymbols(k, shapes, points.astype(np.int32) >> shifts), step)


@pytest.mark.parametrize("number", [1500, 6000])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_estimate_is_close_to_the_bytes(number: int, channels: int) -> None:
    step = STEPS[40]
    state = crowded_state(number, number, step, channels)
    payload = LayerEncoder(1, channels, WIDTH, HEIGHT).encode_intra(state, 40)
    estimate = payload_bits(state, step, intra_costs(state, step, WIDTH, HEIGHT))
    assert estimate == pytest.approx(8 * len(payload), rel=0.03)


def documented_bits(costs: IntraCosts, state: SplatState, step: int, n: int) -> float:
    """One splat, by the words of the module."""
    symbols = symbols_of(state, step)
    k = [int(number) for number in symbols.amplitudes[n]]
    v1, v2, v3 = (int(number) for number in symbols.shapes[n])
    e = int(classes_of(state.amplitudes, step)[n])
    contexts = [0, min(abs(k[0]).bit_length(), 5), min((abs(k[1]) + (abs(k[0]) >> 2)).bit_length(), 5)]
    signs = [0, *((0, 1, 2)[(number > 0) - (number < 0)] for number in k[:-1])]
    bits = 0.0
    for c, number in enumerate(k):
        bits += costs.colors[c, contexts[c], min(abs(number), 1023)]
        bits += costs.color_signs[c, signs[c], int(number < 0)] if number else 0
    fine = min(e, 2)
    bits += costs.lengths_1[e, (v1 >> e) + 2] + costs.lengths_3[e, (v1 >> e) + 2, (v3 >> e) + 2]
    for axis, v in enumerate((v1, v3)):
        bits += costs.fractions[axis, fine, (v >> e) + 2, (v >> max(e - 2, 0)) & (2**fine - 1)]
    bits += 2 * max(e - 2, 0) + costs.shears[e, min(abs(v2), 2047)]
    hx, hy = (int(shift) for shift in position_shifts(state.shapes, np.array([e] * len(state), np.int32))[n])
    return float(bits + (9 - hx) + (9 - hy))


def test_the_tables_mean_what_they_say() -> None:
    step = STEPS[24]
    state = crowded_state(5, 300, step)
    costs = intra_costs(state, step, WIDTH, HEIGHT)
    bits = intra_bits(state, step, costs)
    assert bits == pytest.approx([documented_bits(costs, state, step, n) for n in range(300)], rel=1e-6)


@given(seed=st.integers(0, 50), number=st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_all_prices_are_finite_and_not_negative(seed: int, number: int) -> None:
    costs = intra_costs(crowded_state(seed, number, STEPS[30]), STEPS[30], WIDTH, HEIGHT)
    for name in ("colors", "color_signs", "lengths_1", "lengths_3", "fractions", "shears"):
        table = getattr(costs, name)
        assert table.dtype == np.float32
        assert np.isfinite(table).all()
        assert (table >= 0).all()
    assert np.isfinite(costs.cells_more).all()
    assert (costs.cells_fewer == 0).sum() >= (64 * 96 - number)


def test_a_splat_in_a_crowd_is_cheaper_than_one_alone() -> None:
    step = STEPS[40]
    state = crowded_state(1, 3000, step)
    costs = intra_costs(state, step, WIDTH, HEIGHT)
    middle, corner = costs.cells_more[28:36, 44:52].mean(), costs.cells_more[:6, :6].mean()
    assert 0 < middle < corner - 2
