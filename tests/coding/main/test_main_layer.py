"""Payloads of the main profile: what is written is read, and damage is an error, never a hang or a crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.coding.main import contexts
from pgsvc_codec.coding.main.layer import ANCHOR_DISTANCES, FrameHeader, LayerDecoder, LayerEncoder
from pgsvc_codec.coding.main.state import (
    MAX_LOG_LENGTH,
    MIN_LOG_LENGTH,
    SHAPE_BITS,
    STEPS,
    IntraSymbols,
    classes_of,
    position_shifts,
    state_of,
)
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.splats import SplatState

WIDTH, HEIGHT = 200, 120


def random_state(seed: int, number: int, step: int, channels: int = 3, spread: float = 3.0) -> SplatState:
    """Splats on their lattices, of all classes where the spread is wide."""
    rng = np.random.default_rng(seed)
    k = np.rint(rng.laplace(size=(number, channels)) * spread).astype(np.int32)
    k[(k == 0).all(axis=1), 0] = 1
    classes = classes_of(k * np.int32(step), step)
    scale = (1 << classes).astype(np.float64)
    lengths = np.clip(np.rint(rng.normal(2, 1, (2, number)) * scale), -2 * scale, 14 * scale - 1)
    shapes = np.stack([lengths[0], np.rint(rng.normal(0, 1, number) * scale), lengths[1]], axis=1).astype(np.int32)
    shifts = position_shifts(state_of(IntraSymbols(k, shapes, np.zeros((number, 2), np.int32)), step).shapes, classes)
    positions = rng.integers(0, [WIDTH << 6, HEIGHT << 6], (number, 2)).astype(np.int32) >> shifts
    return state_of(IntraSymbols(k, shapes, positions), step)


def codec(layer: int, channels: int = 3) -> tuple[LayerEncoder, LayerDecoder]:
    return LayerEncoder(layer, channels, WIDTH, HEIGHT), LayerDecoder(layer, channels, WIDTH, HEIGHT)


HEADER = FrameHeader((12, 0, 255), 8)


@given(
    seed=st.integers(0, 99),
    number=st.integers(0, 60),
    step_index=st.integers(0, len(STEPS) - 1),
    channels=st.sampled_from([1, 3]),
    layer=st.integers(0, 2),
    spread=st.sampled_from([0.5, 3.0, 300.0]),
)
@settings(max_examples=60, deadline=None)
def test_intra_round_trip(seed: int, number: int, step_index: int, channels: int, layer: int, spread: float) -> None:
    step = STEPS[step_index]
    if step * spread * 20 > 1 << 24:
        spread = 3.0
    state = random_state(seed, number, step, channels, spread)
    header = FrameHeader(HEADER.background[:channels], 16) if layer == 0 else None
    encoder, decoder = codec(layer, channels)
    payload = encoder.encode_intra(state, step_index, header)
    decoded = decoder.decode_intra(payload)
    assert len(encoder.order) == number
    assert decoded.equals(encoder.state)
    assert decoded.equals(state[encoder.order])
    assert decoder.header == header
    assert np.array_equal(encoder._models, decoder._models)
    assert not payload.endswith(b"\0")


def test_a_layer_of_nothing_takes_nothing() -> None:
    encoder, decoder = codec(1)
    assert encoder.encode_intra(SplatState.empty(3), 50) == b""
    assert len(decoder.decode_intra(b"")) == 0
    encoder, decoder = codec(0)
    assert encoder.encode_intra(SplatState.empty(3), 50, FrameHeader((0, 0, 0), 1)) == b""
    decoder.decode_intra(b"")
    assert decoder.header == FrameHeader((0, 0, 0), 1)


@pytest.mark.parametrize("distance", ANCHOR_DISTANCES)
def test_every_anchor_distance_arrives(distance: int) -> None:
    encoder, decoder = codec(0)
    decoder.decode_intra(encoder.encode_intra(SplatState.empty(3), 0, FrameHeader((1, 2, 3), distance)))
    assert decoder.header == FrameHeader((1, 2, 3), distance)


def test_order_within_the_input_does_not_matter() -> None:
    state = random_state(3, 80, STEPS[30])
    shuffled = state[np.random.default_rng(0).permutation(80)]
    first, second = (codec(1)[1].decode_intra(codec(1)[0].encode_intra(one, 30)) for one in (state, shuffled))
    for name in ("positions", "shapes", "amplitudes"):
        rows = (sorted(map(tuple, getattr(one, name).tolist())) for one in (first, second))
        assert next(rows) == next(rows)


@given(
    seed=st.integers(0, 5),
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
    tail=st.binary(max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_damaged_payloads_are_corrupt_or_within_limits(
    seed: int, places: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    payload = bytearray(codec(0)[0].encode_intra(random_state(seed, 40, STEPS[20]), 20, HEADER))
    for place, value in places:
        payload[place % len(payload)] = value
    damaged = bytes(payload[: len(payload) - cut % len(payload)]) + tail
    try:
        state = codec(0)[1].decode_intra(damaged)
    except CorruptError:
        return
    assert (state.positions >= 0).all()
    assert (state.positions >> 9 < [-(-WIDTH // 8), -(-HEIGHT // 8)]).all()
    assert (np.abs(state.amplitudes) < 1 << 24).all()


def test_octaves_are_those_of_lengths() -> None:
    assert contexts.OCTAVES << SHAPE_BITS == MAX_LOG_LENGTH + 1 - MIN_LOG_LENGTH


def test_bytes_that_nobody_reads_are_corrupt() -> None:
    payload = codec(1)[0].encode_intra(random_state(0, 20, STEPS[30]), 30)
    with pytest.raises(CorruptError, match="bytes belong to no splats"):
        codec(1)[1].decode_intra(payload + bytes(9) + b"\1")
    with pytest.raises(CorruptError, match="bytes belong to no splats"):
        codec(1)[1].decode_intra(payload + b"\0")


def test_a_frame_that_does_not_fit_is_refused_and_leaves_the_models_alone() -> None:
    encoder, _ = codec(1)
    state = random_state(0, 20, STEPS[30])
    models = encoder._models.copy()
    off = SplatState(state.positions + np.int32(1), state.shapes, state.amplitudes)
    outside = SplatState(state.positions + np.int32(512 * 64), state.shapes, state.amplitudes)
    for bad, words in ((off, "lattice"), (outside, "outside the grid")):
        with pytest.raises(ValueError, match=words):
            encoder.encode_intra(bad, 30)
    with pytest.raises(ValueError, match="frame header"):
        encoder.encode_intra(state, 30, HEADER)
    with pytest.raises(ValueError, match="frame header"):
        codec(0)[0].encode_intra(state, 30)
    with pytest.raises(ValueError, match="background"):
        codec(0)[0].encode_intra(state, 30, FrameHeader((1, 2), 1))
    with pytest.raises(ValueError, match="anchor distance"):
        codec(0)[0].encode_intra(state, 30, FrameHeader((1, 2, 3), 3))
    with pytest.raises(ValueError, match="channels"):
        codec(1, 1)[0].encode_intra(state, 30)
    assert np.array_equal(models, encoder._models)
