"""A file of the encoder through decoders that know bitstream_spec.md alone: same splats, same pixels."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import spec_renderer
from level_sizes import with_level_sizes
from spec_container import StreamError, read_stream
from spec_decoder import SpecLayerDecoder

from pgsvc_codec.coding.gop import decode_gop
from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.decoder import Decoder
from pgsvc_codec.encoder import encode
from pgsvc_codec.errors import FormatError
from pgsvc_codec.picture import Frame
from pgsvc_codec.video import Chroma, Matrix, Range, Siting, VideoInfo

NUM_FRAMES = 4
INFOS = {
    "420": VideoInfo(33, 21, Fraction(30000, 1001), siting=Siting.LEFT),
    "422 deep": VideoInfo(31, 17, chroma=Chroma.YUV422, depth=10, siting=Siting.CENTER),
    "rgb": VideoInfo(20, 24, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL),
    "gray": VideoInfo(24, 20, chroma=Chroma.GRAY),
}


@dataclass
class Clip:
    """A source of frames."""

    info: VideoInfo
    frames: list[Frame]
    frame_count: int | None = None
    still: bool = False

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)


def moving_frame(info: VideoInfo, index: int) -> Frame:
    """A ramp over which a disc moves."""
    planes = []
    for plane, (rows, columns) in enumerate(info.plane_shapes):
        y, x = np.mgrid[:rows, :columns] / np.array([rows, columns]).reshape(2, 1, 1)
        value = 0.3 + 0.3 * x * (plane + 1) / 3 + 0.2 * y
        value[(x - 0.3 - 0.08 * index) ** 2 + (y - 0.5) ** 2 < 0.05] = 0.8 - 0.3 * plane
        planes.append(np.rint(value * info.max_code).astype(np.uint8 if info.depth == 8 else np.uint16))
    return tuple(planes)


def encoded(info: VideoInfo, *, seekable: bool = True, **options: object) -> bytes:
    """A stream of two GOPs, each with P-frames, in three layers."""
    source = Clip(info, [moving_frame(info, index) for index in range(NUM_FRAMES)])
    sink = io.BytesIO()
    # As many iterations as P-frames need to exchange splats.
    config = EncodeConfig(profile="baseline", splats=60, iterations=160, keyint=2, scenecut=0.0, **options)  # type: ignore[arg-type]
    encode(source, sink, config, seekable=seekable)
    return sink.getvalue()


def spec_frames(data: bytes) -> Iterator[tuple[list, np.ndarray]]:
    """For each frame, (means, cholesky, colors) of every usable layer and the background, by the spec."""
    stream = read_stream(data)
    channels = 1 if stream.video["chroma"] == 0 else 3
    for _, payloads in stream.gops:
        decoders = [SpecLayerDecoder(layer, channels) for layer in range(len(payloads))]
        for position in range(len(payloads[0]) if payloads else 0):
            decode = [decoder.inter if position else decoder.intra for decoder in decoders]
            layers = [one(payload[position]) for one, payload in zip(decode, payloads, strict=True)]
            yield layers, decoders[0].background


def package_splats(data: bytes) -> Iterator[tuple[list, np.ndarray]]:
    with Decoder(data) as decoder:
        for gop in range(len(decoder.reader.gops)):
            payloads = [decoder.reader.read_segment(gop, layer) for layer in range(decoder.num_layers)]
            for layers, background in decode_gop(payloads, decoder.reader.header, pytest.fail):
                yield [(splats.means, splats.cholesky, splats.colors) for splats in layers], background


@pytest.fixture(scope="module", params=INFOS)
def stream(request: pytest.FixtureRequest) -> bytes:
    return encoded(INFOS[request.param])


def test_the_header_says_what_was_encoded() -> None:
    for info in INFOS.values():
        said = read_stream(encoded(info)).video
        assert (said["width"], said["height"], said["rate"]) == (info.width, info.height, info.rate)
        assert (said["chroma"], said["depth"], said["matrix"]) == (info.chroma, info.depth, info.matrix)
        assert (said["siting"], said["color_range"]) == (info.siting, info.range is Range.FULL)
        assert said["frame_count"] == NUM_FRAMES


def test_splats_are_the_same_to_the_bit(stream: bytes) -> None:
    pairs = list(zip(spec_frames(stream), package_splats(stream), strict=True))
    assert len(pairs) == NUM_FRAMES
    for (spec_layers, spec_background), (layers, background) in pairs:
        assert len(spec_layers) == len(layers) == 3
        assert np.array_equal(spec_background, background)
        for spec_layer, layer in zip(spec_layers, layers, strict=True):
            for spec_array, array in zip(spec_layer, layer, strict=True):
                assert spec_array.dtype == array.dtype
                assert spec_array.tobytes() == array.tobytes()


def assert_pixels_agree(stream: bytes, level: int, size: tuple[int, int] | None) -> None:
    """Both decoders show a level within one code value."""
    said = read_stream(stream)
    with Decoder(stream) as decoder:
        frames = list(decoder.frames(layers=level, size=size))
    assert len(frames) == NUM_FRAMES
    for frame, (layers, background) in zip(frames, spec_frames(stream), strict=True):
        native = said.levels[level - 1][:2]
        expected = spec_renderer.render(said.video, layers[:level], background, native, size)
        assert [plane.shape for plane in frame.planes] == [plane.shape for plane in expected]
        assert max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(frame.planes, expected, strict=True)) <= 1


SIZES = [None, (13, 9), (50, 47)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [1, 3])
def test_pixels_are_within_one_code_value(stream: bytes, level: int, size: tuple[int, int] | None) -> None:
    assert_pixels_agree(stream, level, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels_of_several_sizes_are_within_one_code_value(
    stream: bytes, level: int, size: tuple[int, int] | None
) -> None:
    video = read_stream(stream).video
    width, height = video["width"], video["height"]
    sizes = [(width // 2, height // 2), (width - 5, height - 7), (width, height)]
    assert_pixels_agree(with_level_sizes(stream, sizes), level, size)


def test_a_level_in_a_gap_is_shown_as_the_one_asked_for() -> None:
    """Level 1 in place of level 2, smaller than both: averaged over what level 2 has fewer samples for."""
    info = INFOS["420"]
    data = with_level_sizes(encoded(info), [(12, 8), (24, 16), (info.width, info.height)])
    with Decoder(data) as decoder:
        lost = decoder.reader.gops[1].segments[1]
        assert lost is not None
        damaged = bytearray(data)
        damaged[lost.end - 1] ^= 1
    said = read_stream(bytes(damaged))
    assert [len(payloads) for _, payloads in said.gops] == [3, 1]
    for size in (None, (16, 10)):
        with Decoder(bytes(damaged)) as decoder:
            frames = list(decoder.frames(layers=2, size=size))
            assert decoder.output_info(size, layers=2).plane_shapes == tuple(p.shape for p in frames[3].planes)
        assert [frame.layers for frame in frames] == [2, 2, 1, 1]
        layers, background = list(spec_frames(bytes(damaged)))[3]
        expected, as_level_1 = (
            spec_renderer.render(said.video, layers, background, said.levels[level - 1][:2], size or (24, 16))
            for level in (2, 1)
        )
        for plane, of_spec in zip(frames[3].planes, expected, strict=True):
            assert np.abs(plane.astype(int) - of_spec).max() <= 1
        assert size is None or any(np.abs(a - b).max() > 1 for a, b in zip(expected, as_level_1, strict=True))


@pytest.mark.parametrize("order", ["gop", "layer", "streamed"])
def test_both_readers_find_the_same_in_what_is_left_of_a_stream(order: str) -> None:
    options = {"seekable": False} if order == "streamed" else {"progression": order}
    data = encoded(INFOS["gray"], **options)  # type: ignore[arg-type]
    rng = random.Random(0)
    cuts = [data[:length] for length in range(0, len(data), 29)]
    flips = []
    for _ in range(300):
        damaged = bytearray(data[: rng.choice([len(data), rng.randrange(1, len(data) + 1)])])
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        flips.append(bytes(damaged))
    outcomes = {found(part) is None for part in (data, *cuts, *flips)}
    assert outcomes == {True, False}


def found(data: bytes) -> list | None:
    """Payloads of the usable layers of each GOP, on which both readers agree; None where both refuse."""
    try:
        spec_gops = read_stream(data).gops
    except StreamError:
        spec_gops = None
    try:
        with Decoder(data) as decoder:
            reader = decoder.reader
            gops = [
                (entry.first_frame, [reader.read_segment(gop, layer) for layer in range(reader.available_layers(gop))])
                for gop, entry in enumerate(reader.gops)
            ]
    except FormatError:
        gops = None
    if gops is not None and not any(layers for _, layers in gops):
        gops = None  # the package finds damage in the last base only when it reads that
    assert gops == spec_gops
    return gops
