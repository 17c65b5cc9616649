"""Files of profile main through decoders that know bitstream_spec.md alone: same states, same pixels."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import spec_renderer
from codec_clips import Clip, stream_of
from spec_container import SpecStream, read_stream
from spec_main import Corrupt, anchor_distance, decode_gop, splats_of

from pgsvc_codec import Decoder, EncodeConfig
from pgsvc_codec.coding import gop
from pgsvc_codec.coding.main.state import parameters_of
from pgsvc_codec.errors import FormatError
from pgsvc_codec.splats import Splats

pytestmark = pytest.mark.usefixtures("one_thread")

main = partial(EncodeConfig, profile="main", iterations=20, scenecut=0)
STREAMS = {
    "still": (Clip("gray", frames=1), main(quality=60, layers=2)),
    "anchors": (Clip(frames=6, cut=3), main(quality=60, keyint=6)),
    "between": (Clip(size=(45, 39), frames=9), main(quality=70, keyint=6)),
    "rgb": (Clip("rgb24", frames=5), main(quality=70, keyint=5, layers=2)),
    "sizes": (Clip("yuv422p10le", frames=4), main(quality=60, keyint=4, scalability="resolution")),
}
NUM_DAMAGES = 40


@pytest.fixture(scope="module")
def streams() -> dict[str, bytes]:
    return {name: stream_of(clip, config)[0] for name, (clip, config) in STREAMS.items()}


@pytest.fixture(params=STREAMS)
def stream(request: pytest.FixtureRequest, streams: dict[str, bytes]) -> bytes:
    return streams[request.param]


def spec_frames(said: SpecStream) -> list[tuple[list[Any], list[int]]]:
    return [frame for _, payloads in said.gops for frame in decode_gop(payloads, said.video)]


def package_frames(data: bytes) -> Iterator[gop.DecodedSplats]:
    with Decoder(data) as decoder:
        reader = decoder.reader
        for number in range(len(reader.gops)):
            payloads = [reader.read_segment(number, layer) for layer in range(reader.available_layers(number))]
            yield from gop.decode_gop(payloads, reader.header, pytest.fail)


def assert_same(layers: list[Any], splats: list[Splats], video: dict[str, Any]) -> None:
    """The same integers in all layers, and floats that stand for them."""
    size, opponent = (video["width"], video["height"]), video["chroma"] == 4
    assert len(layers) == len(splats)
    for state, ours in zip(layers, splats, strict=True):
        for integers, floats in zip(state, parameters_of(ours, *size, opponent=opponent), strict=True):
            assert np.allclose(integers, floats, rtol=1e-6, atol=0.1)
        for exact, rounded in zip(splats_of(state, video), (ours.means, ours.cholesky, ours.colors), strict=True):
            np.testing.assert_array_max_ulp(exact.astype(np.float32), rounded, 1)


def test_the_streams_hold_what_the_text_is_about(streams: dict[str, bytes]) -> None:
    distances, payloads, states = set(), [], []
    for data in streams.values():
        said = read_stream(data)
        assert said.profile == 1
        distances |= {anchor_distance(layers, said.video) for _, layers in said.gops if len(layers[0]) > 1}
        payloads += [payload for _, layers in said.gops for layer in layers for payload in layer]
        states += [state for layers, _ in spec_frames(said) for state in layers]
    assert min(distances) == 1 < max(distances)
    assert b"" in payloads
    assert any((~amplitudes.any(axis=1)).any() for _, _, amplitudes in states), "dead slots"


def test_states_are_the_same_to_the_bit(stream: bytes) -> None:
    said = read_stream(stream)
    frames = spec_frames(said)
    assert len(frames) == said.video["frame_count"]
    for (layers, background), ours in zip(frames, package_frames(stream), strict=True):
        assert_same(layers, ours.layers, said.video)
        assert np.array_equal(np.float32(background) / np.float32(255), ours.background)


@pytest.mark.parametrize("size", [None, (21, 17), (70, 50)])
@pytest.mark.parametrize("level", [1, 2])
def test_pixels_are_within_one_code_value(stream: bytes, level: int, size: tuple[int, int] | None) -> None:
    assert_pixels_agree(stream, level, size)


@pytest.mark.parametrize("name", ["between", "sizes"])
def test_pixels_of_the_highest_level_are_within_one_code_value(streams: dict[str, bytes], name: str) -> None:
    assert_pixels_agree(streams[name], 3, None)


def assert_pixels_agree(stream: bytes, level: int, size: tuple[int, int] | None) -> None:
    said = read_stream(stream)
    with Decoder(stream) as decoder:
        frames = list(decoder.frames(layers=level, size=size))
    for frame, (layers, background) in zip(frames, spec_frames(said), strict=True):
        splats = [splats_of(state, said.video) for state in layers[:level]]
        native = said.levels[level - 1][:2]
        expected = spec_renderer.render(said.video, splats, np.array(background) / 255, native, size)
        for ours, theirs in zip(frame.planes, expected, strict=True):
            assert ours.shape == theirs.shape
            assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_a_cut_stream_goes_on_with_the_layers_that_are_left(streams: dict[str, bytes]) -> None:
    data = streams["between"]
    with Decoder(data) as decoder:
        entry = decoder.reader.gops[1].segments[1]
        assert entry is not None
        cut = data[: entry.end - 1]
    said = read_stream(cut)
    assert [len(payloads) for _, payloads in said.gops] == [3, 1]
    for (layers, _), ours in zip(spec_frames(said), package_frames(cut), strict=True):
        assert_same(layers, ours.layers, said.video)


@pytest.mark.parametrize("name", ["still", "anchors", "between", "rgb"])
def test_damaged_payloads_are_corrupt_to_both_or_the_same(streams: dict[str, bytes], name: str) -> None:
    said = read_stream(streams[name])
    with Decoder(streams[name]) as decoder:
        header = decoder.reader.header
    base = said.gops[0][1][0]
    rng = random.Random(0)
    refused = 0
    for _ in range(NUM_DAMAGES):
        damaged = list(base)
        where = rng.choice([i for i, payload in enumerate(base) if payload])
        payload = bytearray(base[where])
        payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        damaged[where] = bytes(payload[: rng.choice([len(payload), rng.randrange(len(payload) + 1)])])
        losses: list[FormatError] = []
        ours = list(gop.decode_gop([damaged], header, lambda _, error, losses=losses: losses.append(error)))
        try:
            frames = list(decode_gop([damaged], said.video))
        except Corrupt:
            assert losses
            refused += 1
            continue
        assert not losses
        for (layers, background), decoded in zip(frames, ours, strict=True):
            assert_same(layers, decoded.layers, said.video)
            assert np.array_equal(np.float32(background) / np.float32(255), decoded.background)
    assert 0 < refused < NUM_DAMAGES
