"""The stream header: optional records are skipped, required ones refused, contradictions told."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from pgsvc_codec.errors import ConfigError, CorruptError, UnsupportedError
from pgsvc_codec.format import constants
from pgsvc_codec.format.fields import seal
from pgsvc_codec.format.header import (
    FILE_HEADER_BYTES,
    EncoderRecord,
    LayersRecord,
    LevelRecord,
    ProfileRecord,
    RecordHead,
    StreamHeader,
    VideoRecord,
)
from pgsvc_codec.video import MAX_SIDE, PIX_FMTS, Chroma, Matrix, Range, Siting

VIDEO: dict[str, Any] = {
    "width": 65, "height": 49, "rate": Fraction(24000, 1001), "frame_count": 7, "chroma": 1, "depth": 10,
    "matrix": 9, "primaries": 9, "transfer": 16, "color_range": 0, "siting": 2,
}  # fmt: skip


def make(*, sizes: list[tuple[int, int, int]] | None = None, scalability: int = 0, **video: Any) -> StreamHeader:
    levels = tuple(LevelRecord(width=w, height=h, splats=n) for w, h, n in sizes or [(65, 49, 10), (65, 49, 20)])
    return StreamHeader(
        video=VideoRecord(**VIDEO | video),
        layers=LayersRecord(scalability=scalability, levels=levels),
        encoder=EncoderRecord(text="somebody 1.0 ✓"),
    )


def block(header: StreamHeader) -> bytes:
    return header.pack()[:-4]


def record(tag: bytes, body: bytes) -> bytes:
    return RecordHead(tag=tag, length=len(body)).pack() + body


def test_unpack_inverts_pack() -> None:
    for header in (make(), make(chroma=4, depth=8, matrix=0), make(sizes=[(32, 24, 5), (65, 49, 9)], scalability=1)):
        assert StreamHeader.unpack(header.pack()) == header


def test_records_come_in_any_order_and_unknown_optional_ones_are_skipped() -> None:
    header = make()
    parts = [
        record(b"xtra", b"anything"),
        record(constants.TAG_PROFILE, ProfileRecord().pack()),
        record(constants.TAG_LAYERS, header.layers.pack()),
        record(constants.TAG_VIDEO, header.video.pack()),
    ]
    unpacked = StreamHeader.unpack(seal(b"".join(parts)))
    assert (unpacked.video, unpacked.layers, unpacked.encoder) == (header.video, header.layers, None)


@pytest.mark.parametrize(
    ("extra", "kind", "message"),
    [
        (record(b"ROTA", b"1"), UnsupportedError, r"got required record ROTA, allowed VIDE, LAYR, PROF, encd"),
        (record(b"\0\1\2\3", b""), CorruptError, "got 00 01 02 03, allowed four ASCII letters"),
        (record(constants.TAG_PROFILE, b"\0"), CorruptError, "record PROF comes twice, allowed once"),
        (record(b"xtra", b"1")[:-1], CorruptError, "needs 1 bytes, 0 are left"),
        (b"xt", CorruptError, "field tag at byte 0x.*: needs 4 bytes, 2 are left"),
    ],
)
def test_bad_records(extra: bytes, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        StreamHeader.unpack(seal(block(make()) + extra))


def test_errors_say_where() -> None:
    packed = bytearray(block(make()))
    at = packed.index(VIDEO["width"].to_bytes(2, "little"))
    packed[at : at + 2] = bytes(2)
    with pytest.raises(
        CorruptError, match=rf"stream header field width at byte {FILE_HEADER_BYTES + at:#x}: got 0, allowed 1\.\.16384"
    ):
        StreamHeader.unpack(seal(bytes(packed)), base=FILE_HEADER_BYTES)


def test_a_record_fills_its_length() -> None:
    parts = [
        record(constants.TAG_LAYERS, make().layers.pack()),
        record(constants.TAG_VIDEO, make().video.pack() + b"!"),
    ]
    with pytest.raises(CorruptError, match="1 bytes left over, allowed 0"):
        StreamHeader.unpack(seal(b"".join(parts)))


@pytest.mark.parametrize("tag", [constants.TAG_VIDEO, constants.TAG_LAYERS, constants.TAG_PROFILE])
def test_required_records_are_missed(tag: bytes) -> None:
    header = make()
    known = {
        constants.TAG_VIDEO: header.video,
        constants.TAG_LAYERS: header.layers,
        constants.TAG_PROFILE: header.profile,
    }
    parts = [record(name, kept.pack()) for name, kept in known.items() if name != tag]
    with pytest.raises(CorruptError, match=f"record {tag.decode()} is missing"):
        StreamHeader.unpack(seal(b"".join(parts)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix": 0}, "matrix: rgb does not go with chroma yuv420p"),
        ({"chroma": 4, "depth": 8}, "matrix: bt2020nc does not go with chroma rgb24"),
        ({"chroma": 4, "matrix": 0}, "depth: got 10, allowed 8 with chroma rgb24"),
        ({"sizes": [(65, 49, 10), (65, 49, 9)]}, "level 2 is smaller than level 1"),
        ({"sizes": [(64, 49, 10), (65, 49, 10)]}, "level 1 is 64x49, allowed 65x49"),
        ({"sizes": [(32, 24, 1), (64, 48, 2)], "scalability": 1}, "level 2 is 64x48, allowed 65x49"),
    ],
)
def test_contradictions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_contradictions_on_the_wire_are_corrupt() -> None:
    video = VideoRecord(**VIDEO | {"matrix": 0})
    parts = [
        record(constants.TAG_VIDEO, video.pack()),
        record(constants.TAG_LAYERS, make().layers.pack()),
        record(constants.TAG_PROFILE, b"\0"),
    ]
    with pytest.raises(CorruptError, match="rgb does not go with"):
        StreamHeader.unpack(seal(b"".join(parts)))


def test_wire_values_are_those_of_video() -> None:
    """The container may not import `video`, so a test holds the two together."""
    assert set(constants.CHROMA_NAMES) == set(Chroma)
    assert set(constants.MATRIX_NAMES) == set(Matrix)
    assert set(constants.SITING_NAMES) == set(Siting)
    assert {name.upper() for name in constants.MATRIX_NAMES.values()} == {matrix.name for matrix in Matrix}
    assert {name.upper() for name in constants.SITING_NAMES.values()} == {siting.name for siting in Siting}
    assert list(constants.RANGE_NAMES.values()) == [Range.LIMITED.value, Range.FULL.value]
    assert constants.MAX_SIDE == MAX_SIDE
    names = {
        chroma_name + suffix: (chroma, depth)
        for chroma, chroma_name in constants.CHROMA_NAMES.items()
        for depth, suffix in constants.DEPTH_SUFFIXES.items()
        if (chroma, depth) in PIX_FMTS.values()
    }
    assert names == PIX_FMTS
    assert (constants.CHROMA_RGB, constants.MATRIX_RGB) == (Chroma.RGB, Matrix.RGB)
