"""P- and B-payloads: chains that both sides follow to the last bit, whatever slots do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from main_chains import HEIGHT, INDEX, WIDTH, next_frame, whole_state

from pgsvc_codec.coding.main.gop import ANCHOR_DISTANCES, FrameStep, coding_order
from pgsvc_codec.coding.main.layer import FrameHeader, LayerDecoder, LayerEncoder
from pgsvc_codec.coding.main.predict import MotionField, Slots, field_shape
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.splats import SplatState


@given(
    seed=st.integers(0, 999),
    frames=st.integers(1, 9),
    distance=st.sampled_from(ANCHOR_DISTANCES),
    layer=st.integers(0, 1),
    channels=st.sampled_from([1, 3]),
    share=st.sampled_from([0.0, 0.1, 0.9]),
)
@settings(max_examples=40, deadline=None)
def test_chains_of_frames_round_trip(
    seed: int, frames: int, distance: int, layer: int, channels: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    encoder, decoder = (kind(layer, channels, WIDTH, HEIGHT) for kind in (LayerEncoder, LayerDecoder))
    assert isinstance(encoder, LayerEncoder)
    assert isinstance(decoder, LayerDecoder)
    header = FrameHeader((7, 200, 31)[:channels], distance) if layer == 0 else None
    decoder.decode_intra(encoder.encode_intra(whole_state(rng, 40, channels), INDEX, header))
    for step in coding_order(frames, distance)[1:]:
        field = background = None
        if step.future is None:
            vectors = rng.integers(-9, 10, (*field_shape(WIDTH, HEIGHT, 64), 2)).astype(np.int16)
            field = MotionField(64, vectors) if seed % 2 else None
            background = (1, 2, 3)[:channels] if layer == 0 and seed % 3 else None
        targets, reborn = next_frame(rng, encoder, step, field, share)
        payload = encoder.encode_inter(step, targets, INDEX, reborn=reborn, field=field, background=background)
        state = decoder.decode_inter(payload, step, field if layer else None)
        assert state.equals(encoder.state)
        assert sorted(encoder.order) == list(range(len(targets)))
        assert state.amplitudes.tolist() == targets[encoder.order].amplitudes.tolist()
        alive = state.amplitudes.any(axis=1)
        assert state[alive].equals(targets[encoder.order][alive])
        assert np.array_equal(encoder.frames[step.display].births, decoder.frames[step.display].births)
        assert encoder.backgrounds == decoder.backgrounds
        assert np.array_equal(encoder._models, decoder._models)
        if layer == 0 and field is not None:
            assert decoder.field is not None
            assert np.array_equal(decoder.field.vectors, field.vectors)
    assert len(encoder.frames) <= 2 + distance
    assert encoder.frames.keys() == decoder.frames.keys()


def started(layer: int = 1, number: int = 60) -> tuple[LayerEncoder, LayerDecoder]:
    encoder, decoder = LayerEncoder(layer, 3, WIDTH, HEIGHT), LayerDecoder(layer, 3, WIDTH, HEIGHT)
    header = FrameHeader((1, 2, 3), 2) if layer == 0 else None
    decoder.decode_intra(encoder.encode_intra(whole_state(np.random.default_rng(5), number), INDEX, header))
    return encoder, decoder


@pytest.mark.parametrize("layer", [0, 1])
def test_frames_as_predicted_are_empty(layer: int) -> None:
    encoder, decoder = started(layer)
    for step in coding_order(9, 4)[1:]:
        payload = encoder.encode_inter(step, encoder.predicted(step, None).state, INDEX)
        assert payload == b""
        assert decoder.decode_inter(payload, step).equals(encoder.state)


def test_reborn_slots_are_not_mixed_and_added_ones_fade_in() -> None:
    encoder, _ = started()
    anchor, middle = coding_order(3, 2)[1:]
    before = encoder.state
    rng = np.random.default_rng(8)
    targets = SplatState.concatenate([before, whole_state(rng, 1)])
    targets.positions[7], targets.shapes[7], targets.amplitudes[7] = (
        part[0] for part in vars(whole_state(rng, 1)).values()
    )
    reborn = np.zeros(61, np.bool_)
    reborn[[7, 60]] = True
    encoder.encode_inter(anchor, targets, INDEX, reborn=reborn)
    after = encoder.state
    slots = encoder.predicted(middle, None)
    assert slots.births[60] == 2
    assert slots.births[7] == 0
    assert slots.state[[7]].equals(before[[7]])
    assert np.array_equal(slots.state.amplitudes[60], after.amplitudes[60] >> 1)


def test_targets_that_do_not_fit_are_refused_and_change_nothing() -> None:
    encoder, _ = started()
    (step,) = coding_order(2, 1)[1:]
    models, state = encoder._models.copy(), encoder.state
    new = whole_state(np.random.default_rng(1), 1)
    longer = SplatState.concatenate([state, new])
    with pytest.raises(ValueError, match="not said to be reborn"):
        encoder.encode_inter(step, longer, INDEX)
    with pytest.raises(ValueError, match="got 59 targets for 60"):
        encoder.encode_inter(step, state[:59], INDEX)
    with pytest.raises(ValueError, match="whole number of steps"):
        encoder.encode_inter(step, SplatState(state.positions, state.shapes, state.amplitudes + np.int32(1)), INDEX)
    with pytest.raises(ValueError, match="background"):
        encoder.encode_inter(step, state, INDEX, background=(1, 2, 3))
    with pytest.raises(ValueError, match="nodes"):
        encoder.encode_inter(step, state, INDEX, field=MotionField(64, np.zeros((1, 1, 2), np.int16)))
    with pytest.raises(ValueError, match="allowed in P payloads"):
        encoder.encode_inter(FrameStep(0, 0, 0, False, 1), state, INDEX, reborn=np.zeros(60, np.bool_))
    assert np.array_equal(models, encoder._models)
    assert list(encoder.frames) == [0]


@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), tail=st.binary(max_size=9))
@settings(max_examples=150, deadline=None)
def test_damaged_payloads_are_corrupt_or_within_limits(places: list[tuple[int, int]], tail: bytes) -> None:
    encoder, decoder = started(0)
    rng = np.random.default_rng(1)
    (step,) = coding_order(2, 1)[1:]
    field = MotionField(32, rng.integers(-20, 20, (*field_shape(WIDTH, HEIGHT, 32), 2)).astype(np.int16))
    targets, reborn = next_frame(rng, encoder, step, field, 0.3)
    payload = bytearray(encoder.encode_inter(step, targets, INDEX, reborn=reborn, field=field))
    for place, value in places:
        payload[place % len(payload)] = value
    try:
        state = decoder.decode_inter(bytes(payload) + tail, step)
    except CorruptError:
        return
    assert (np.abs(state.amplitudes) < 1 << 24).all()
    assert (state.shapes[:, ::2] >= -512).all()
    assert len(Slots(state, decoder.frames[1].births).births) == len(state)


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9, 12, 17, 33])
@pytest.mark.parametrize("distance", ANCHOR_DISTANCES)
def test_every_frame_is_coded_once_behind_its_references(frames: int, distance: int) -> None:
    steps = coding_order(frames, distance)
    assert sorted(step.display for step in steps) == list(range(frames))
    seen: set[int] = set()
    for step in steps:
        if step.past is not None:
            assert step.past in seen
            assert step.past < step.display
        if step.future is not None:
            assert step.future in seen
            assert step.display < step.future
            anchor = step.display // distance * distance
            behind = min(anchor + distance, frames - 1)
            assert step.late == (step.display - anchor > behind - step.display)
        seen.add(step.display)
    anchors = [step.display for step in steps if step.future is None]
    assert anchors == sorted({*range(0, frames, distance), frames - 1})
