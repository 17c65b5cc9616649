"""Streams: what is written is found again, and whatever is cut or damaged is told apart from what is whole."""

from __future__ import annotations

import io
import random
from fractions import Fraction

import pytest

from pgsvc_codec.format.container import Gop, LayerSegment, StreamReader, StreamWriter
from pgsvc_codec.format.header import (
    EncoderRecord,
    LayersRecord,
    LevelRecord,
    StreamHeader,
    VideoRecord,
)

LAYERS = 3


def make_header(**changes: object) -> StreamHeader:
    video = VideoRecord(
        width=64, height=48, rate=Fraction(30000, 1001), chroma=1, depth=8,
        matrix=1, primaries=2, transfer=2, color_range=0, siting=0,
    )  # fmt: skip
    levels = tuple(LevelRecord(width=64, height=48, splats=100 * level) for level in range(1, LAYERS + 1))
    layers = LayersRecord(scalability=0, levels=levels)
    members = {"video": video, "layers": layers, "encoder": EncoderRecord(text="test")} | changes
    return StreamHeader(**members)  # type: ignore[arg-type]


def make_gops(count: int = 5, seed: int = 0) -> list[Gop]:
    rng = random.Random(seed)
    gops, first = [], 0
    for number in range(count):
        frames = rng.randint(1, 6)
        layers = [
            LayerSegment(
                [rng.randbytes(rng.choice([0, 1, 40, 200])) for _ in range(frames)],
                splats=100 * frames,
                psnr=None if number == 1 else 30.0 + layer,
            )
            for layer in range(LAYERS)
        ]
        gops.append(Gop(first, layers, scene_cut=number == 2))
        first += frames
    return gops


def write(
    gops: list[Gop], *, progression: str = "gop", seekable: bool = True, header: StreamHeader | None = None
) -> bytes:
    sink = io.BytesIO()
    with StreamWriter(sink, header or make_header(), progression=progression, seekable=seekable) as writer:  # type: ignore[arg-type]
        for gop in gops:
            writer.write_gop(gop)
    return sink.getvalue()


SHAPES = [("gop", True), ("layer", True), ("gop", False)]
shapes = pytest.mark.parametrize(("progression", "seekable"), SHAPES)


@shapes
def test_what_is_written_is_read(progression: str, seekable: bool) -> None:
    gops = make_gops()
    data = write(gops, progression=progression, seekable=seekable)
    reader = StreamReader(data)
    assert reader.header.video.width == 64
    assert reader.header.encoder == EncoderRecord(text="test")
    assert reader.header.video.frame_count == (reader.frame_count if seekable else 0)
    assert reader.index_place == ("front" if seekable else "end")
    assert reader.total_length == len(data)
    assert reader.truncation_report() is None
    for number, gop in enumerate(gops):
        entry = reader.gops[number]
        assert (entry.first_frame, entry.frames) == (gop.first_frame, len(gop.layers[0].frame_payloads))
        assert (entry.key, entry.scene_cut) == (True, number == 2)
        assert reader.available_layers(number) == LAYERS
        for layer, segment in enumerate(gop.layers):
            assert reader.read_segment(number, layer) == segment.frame_payloads
            place = entry.segments[layer]
            assert place is not None
            assert (place.splats, place.psnr) == (segment.splats, segment.psnr)
