"""How segments, and the index that finds them, lie in bytes (bitstream_spec.md, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pgsvc_codec.format.constants import (
    FLAG_KEY,
    FLAG_SCENE_CUT,
    MAX_BODY_BYTES,
    MAX_GOP_FRAMES,
    MAX_GOPS,
    MAX_INDEX_BYTES,
    MAX_LAYERS,
    MAX_PSNR,
    MAX_SPLATS,
    SEGMENT_MARKER,
    TRAILER_MAGIC,
)
from pgsvc_codec.format.fields import CRC_BYTES, U8, U16, U32, VARINT, Bytes, Cursor, Many, Record, seal, wire

_GOP_FLAGS = FLAG_KEY | FLAG_SCENE_CUT


@dataclass(frozen=True, kw_only=True)
class SegmentHeader(Record):
    """Before each segment's body; sealed, 20 bytes."""

    NAME: ClassVar[str] = "segment header"

    marker: bytes = field(default=SEGMENT_MARKER, metadata=wire(Bytes(4), (SEGMENT_MARKER,)))
    gop: int = field(metadata=wire(U32, range(MAX_GOPS)))
    layer: int = field(metadata=wire(U8, range(MAX_LAYERS)))
    flags: int = field(metadata=wire(U8, range(_GOP_FLAGS + 1)))
    frames: int = field(metadata=wire(U16, range(1, MAX_GOP_FRAMES + 1)))
    body_length: int = field(metadata=wire(U32, range(CRC_BYTES + 1, MAX_BODY_BYTES + 1)))


SEGMENT_HEADER_BYTES = SegmentHeader.min_bytes() + CRC_BYTES
MIN_SEGMENT_BYTES = SEGMENT_HEADER_BYTES + CRC_BYTES + 1


@dataclass(frozen=True, kw_only=True)
class IndexLayer(Record):
    """One segment, in the index."""

    NAME: ClassVar[str] = "index layer"

    gap: int = field(metadata=wire(VARINT))  # bytes between the segment of the layer below and this one
    length: int = field(metadata=wire(VARINT, range(MIN_SEGMENT_BYTES, SEGMENT_HEADER_BYTES + MAX_BODY_BYTES + 1)))
    crc: int = field(metadata=wire(U32))  # CRC-32 of the body, as at its end
    splats: int = field(metadata=wire(VARINT, range(MAX_GOP_FRAMES * MAX_SPLATS + 1)))
    psnr: int = field(metadata=wire(VARINT, range(MAX_PSNR + 1)))  # 0.01 dB, 0 = not known


@dataclass(frozen=True, kw_only=True)
class IndexGop(Record):
    """One GOP, in the index."""

    NAME: ClassVar[str] = "index gop"

    first_frame: int = field(metadata=wire(VARINT, range(MAX_GOPS * MAX_GOP_FRAMES)))
    frames: int = field(metadata=wire(VARINT, range(1, MAX_GOP_FRAMES + 1)))
    flags: int = field(metadata=wire(U8, range(_GOP_FLAGS + 1)))
    offset: int = field(metadata=wire(VARINT))  # of the base segment, from the first byte of the segments
    layers: tuple[IndexLayer, ...] = field(metadata=wire(Many(IndexLayer, U8, range(1, MAX_LAYERS + 1))))


@dataclass(frozen=True, kw_only=True)
class Index(Record):
    """Where every segment lies."""

    NAME: ClassVar[str] = "index"

    gops: tuple[IndexGop, ...] = field(metadata=wire(Many(IndexGop, VARINT, range(1, MAX_GOPS + 1))))


@dataclass(frozen=True, kw_only=True)
class Trailer(Record):
    """The last bytes of a streamed stream, by which its index is found."""

    NAME: ClassVar[str] = "trailer"

    magic: bytes = field(default=TRAILER_MAGIC, metadata=wire(Bytes(4), (TRAILER_MAGIC,)))
    index_length: int = field(metadata=wire(U32, range(CRC_BYTES + Index.min_bytes(), MAX_INDEX_BYTES + 1)))


def pack_segment(gop: int, layer: int, flags: int, payloads: Sequence[bytes]) -> bytes:
    """A whole segment."""
    body = seal(b"".join(map(VARINT.pack, map(len, payloads))) + b"".join(payloads))
    header = SegmentHeader(gop=gop, layer=layer, flags=flags, frames=len(payloads), body_length=len(body))
    return seal(header.pack()) + body


def split_body(cursor: Cursor, frames: int) -> list[bytes]:
    """The payloads of a body, of which the cursor is at the start.

    Raises:
        CorruptError: a length is wrong, or the body ends early.
    """
    lengths = [VARINT.take(cursor, "frame length") for _ in range(frames)]
    return [cursor.take(length, "payload") for length in lengths]


def pack_psnr(psnr: float | None) -> int:
    """Hundredths of a dB; 0 is taken for "not known", and a lossless level is infinitely good."""
    return 0 if psnr is None else round(100 * min(max(psnr, 0.01), MAX_PSNR / 100))


def unpack_psnr(stored: int) -> float | None:
    """dB, None if not known."""
    return stored / 100 if stored else None
