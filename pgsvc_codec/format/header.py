"""What a stream says about itself before any pixel: file and stream header (bitstream_spec.md, sections 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Self

from pgsvc_codec.errors import ConfigError, CorruptError, FormatError, UnsupportedError
from pgsvc_codec.format.constants import (
    BASELINE,
    CHROMA_NAMES,
    CHROMA_RGB,
    DEPTH_SUFFIXES,
    FLAG_INDEX_IN_FRONT,
    FLAG_LAYER_ORDER,
    MAGIC,
    MATRIX_NAMES,
    MATRIX_RGB,
    MAX_GOP_FRAMES,
    MAX_GOPS,
    MAX_INDEX_BYTES,
    MAX_LAYERS,
    MAX_SIDE,
    MAX_SPLATS,
    MAX_STREAM_HEADER_BYTES,
    PROFILE_NAMES,
    QUALITY,
    RANGE_NAMES,
    SCALABILITY_NAMES,
    SITING_NAMES,
    TAG_ENCODER,
    TAG_LAYERS,
    TAG_PROFILE,
    TAG_VIDEO,
    VERSION,
)
from pgsvc_codec.format.fields import (
    CRC_BYTES,
    U8,
    U16,
    U32,
    U64,
    VARINT,
    Bytes,
    Cursor,
    Many,
    Rate,
    Record,
    Text,
    seal,
    unseal,
    wire,
)


@dataclass(frozen=True, kw_only=True)
class FileHeader(Record):
    """The first 28 bytes of a stream; sealed, 32."""

    NAME: ClassVar[str] = "file header"

    magic: bytes = field(default=MAGIC, metadata=wire(Bytes(8), (MAGIC,)))
    version: int = field(default=VERSION, metadata=wire(U16, (VERSION,)))
    flags: int = field(metadata=wire(U16, range((FLAG_LAYER_ORDER | FLAG_INDEX_IN_FRONT) + 1)))
    stream_header_length: int = field(metadata=wire(U32, range(MAX_STREAM_HEADER_BYTES + 1)))
    index_length: int = field(metadata=wire(U32, range(MAX_INDEX_BYTES + 1)))
    total_length: int = field(metadata=wire(U64))

    @property
    def layer_order(self) -> bool:
        """Segments lie layer by layer, not GOP by GOP."""
        return bool(self.flags & FLAG_LAYER_ORDER)

    @property
    def index_in_front(self) -> bool:
        """The index follows the stream header; it is at the end otherwise."""
        return bool(self.flags & FLAG_INDEX_IN_FRONT)

    @classmethod
    def unpack(cls, sealed: bytes) -> Self:
        """The header from the first FILE_HEADER_BYTES of a stream.

        Raises:
            FormatError: this is no PGS stream.
            UnsupportedError: it has another version.
            CorruptError: checksum or a field is wrong.
        """
        magic = sealed[: len(MAGIC)]
        if magic != MAGIC:
            raise FormatError(f"not a PGS stream: magic at byte 0x0: got {magic.hex(' ')}, allowed {MAGIC.hex(' ')}")
        # Before the checksum: a later version may place it elsewhere.
        version = int.from_bytes(sealed[len(MAGIC) : len(MAGIC) + 2], "little")
        if version != VERSION:
            raise UnsupportedError(
                f"file header field version at byte {len(MAGIC):#x}: got {version}, allowed {VERSION}"
            )
        header = cls.parse(Cursor(unseal(sealed, where=cls.NAME, base=0), where=cls.NAME, base=0))
        behind = FILE_HEADER_BYTES + header.stream_header_length
        if header.index_in_front and header.total_length < behind + header.index_length:
            raise CorruptError(
                f"file header field total_length: got {header.total_length}, "
                f"allowed at least {behind + header.index_length}, the end of the index"
            )
        if not header.index_in_front and (header.index_length or header.total_length or header.layer_order):
            raise CorruptError(
                "file header: index_length, total_length and flags must be 0 where the index is at the end: "
                f"got {header.index_length}, {header.total_length}, {header.flags}"
            )
        return header


FILE_HEADER_BYTES = FileHeader.min_bytes() + CRC_BYTES


@dataclass(frozen=True, kw_only=True)
class RecordHead(Record):
    """Before each record of the stream header."""

    NAME: ClassVar[str] = "record head"

    tag: bytes = field(metadata=wire(Bytes(4)))
    length: int = field(metadata=wire(VARINT, range(MAX_STREAM_HEADER_BYTES + 1)))


@dataclass(frozen=True, kw_only=True)
class VideoRecord(Record):
    """Geometry, rate and colour of the frames; the numbers are those of `pgsvc_codec.video`."""

    NAME: ClassVar[str] = "video"

    width: int = field(metadata=wire(U16, range(1, MAX_SIDE + 1)))  # samples of the first plane
    height: int = field(metadata=wire(U16, range(1, MAX_SIDE + 1)))
    rate: Fraction = field(metadata=wire(Rate()))  # frames per second
    frame_count: int = field(default=0, metadata=wire(VARINT, range(MAX_GOPS * MAX_GOP_FRAMES + 1)))  # 0 = unknown
    chroma: int = field(metadata=wire(U8, tuple(CHROMA_NAMES)))
    depth: int = field(metadata=wire(U8, tuple(DEPTH_SUFFIXES)))  # bits per sample
    matrix: int = field(metadata=wire(U8, tuple(MATRIX_NAMES)))
    primaries: int = field(metadata=wire(U8))
    transfer: int = field(metadata=wire(U8))
    color_range: int = field(metadata=wire(U8, tuple(RANGE_NAMES)))
    siting: int = field(metadata=wire(U8, tuple(SITING_NAMES)))

    @property
    def channels(self) -> int:
        """Planes of a frame, which are the channels of a splat's colour: 1 or 3."""
        return 1 if CHROMA_NAMES[self.chroma] == "gray" else 3

    def contradiction(self) -> str | None:
        """Which fields do not go together, None if all do."""
        if (self.chroma == CHROMA_RGB) != (self.matrix == MATRIX_RGB):
            return f"field matrix: {MATRIX_NAMES[self.matrix]} does not go with chroma {CHROMA_NAMES[self.chroma]}"
        if self.chroma == CHROMA_RGB and self.depth != 8:
            return f"field depth: got {self.depth}, allowed 8 with chroma {CHROMA_NAMES[self.chroma]}"
        return None


@dataclass(frozen=True, kw_only=True)
class LevelRecord(Record):
    """One level: all layers up to its own, together."""

    NAME: ClassVar[str] = "level"

    width: int = field(metadata=wire(VARINT, range(1, MAX_SIDE + 1)))
    height: int = field(metadata=wire(VARINT, range(1, MAX_SIDE + 1)))
    splats: int = field(metadata=wire(VARINT, range(MAX_LAYERS * MAX_SPLATS + 1)))  # budget per frame


@dataclass(frozen=True, kw_only=True)
class LayersRecord(Record):
    """How many layers there are and what their levels look like."""

    NAME: ClassVar[str] = "layers"

    scalability: int = field(metadata=wire(U8, tuple(SCALABILITY_NAMES)))
    levels: tuple[LevelRecord, ...] = field(metadata=wire(Many(LevelRecord, U8, range(1, MAX_LAYERS + 1))))


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(Record):
    """Which quantisation and entropy tools the payloads use."""

    NAME: ClassVar[str] = "profile"

    profile: int = field(default=BASELINE, metadata=wire(U8))


@dataclass(frozen=True, kw_only=True)
class EncoderRecord(Record):
    """Who wrote the stream, for people."""

    NAME: ClassVar[str] = "encoder"

    text: str = field(metadata=wire(Text()))


_RECORDS: dict[bytes, type[Record]] = {
    TAG_VIDEO: VideoRecord,
    TAG_LAYERS: LayersRecord,
    TAG_PROFILE: ProfileRecord,
    TAG_ENCODER: EncoderRecord,
}


@dataclass(frozen=True, kw_only=True)
class StreamHeader:
    """Everything that a decoder knows before the first segment.

    Raises:
        ConfigError: the records contradict each other.
        UnsupportedError: the profile is unknown.
    """

    video: VideoRecord
    layers: LayersRecord
    profile: ProfileRecord = ProfileRecord()
    encoder: EncoderRecord | None = None

    def __post_init__(self) -> None:
        if self.profile.profile not in PROFILE_NAMES:
            raise UnsupportedError(
                f"stream header field profile: got {self.profile.profile}, allowed {', '.join(map(str, PROFILE_NAMES))}"
            )
        problem = self.video.contradiction() or self._level_problem()
        if problem:
            raise ConfigError(f"stream header {problem}")

    def _level_problem(self) -> str | None:
        """Levels must not shrink, end at the full size, and be of one size in quality scalability."""
        full = (self.video.width, self.video.height)
        levels = self.layers.levels
        for index, level in enumerate(levels):
            below = levels[max(index - 1, 0)]
            if level.width < below.width or level.height < below.height or level.splats < below.splats:
                return f"field levels: level {index + 1} is smaller than level {index}"
            size = (level.width, level.height)
            if size != full and (self.layers.scalability == QUALITY or index == len(levels) - 1):
                return f"field levels: level {index + 1} is {size[0]}x{size[1]}, allowed {full[0]}x{full[1]}"
        return None

    @property
    def num_layers(self) -> int:
        """Layers per frame, the base included."""
        return len(self.layers.levels)

    def pack(self) -> bytes:
        """The sealed stream header."""
        records: dict[bytes, Record | None] = {
            TAG_VIDEO: self.video,
            TAG_LAYERS: self.layers,
            TAG_PROFILE: self.profile,
            TAG_ENCODER: self.encoder,
        }
        parts = []
        for tag, record in records.items():
            if record is not None:
                body = record.pack()
                parts += [RecordHead(tag=tag, length=len(body)).pack(), body]
        return seal(b"".join(parts))

    @classmethod
    def unpack(cls, sealed: bytes, *, base: int = FILE_HEADER_BYTES) -> Self:
        """The header from its sealed block, which lies at `base` in the file.

        Raises:
            CorruptError: checksum, a record or a combination of records is wrong.
            UnsupportedError: a required record or the profile is unknown.
        """
        cursor = Cursor(unseal(sealed, where="stream header", base=base), where="stream header", base=base)
        found: dict[bytes, Record] = {}
        while cursor.remaining:
            start = cursor.position
            head = RecordHead.parse(cursor)
            body_at = base + cursor.position
            body = Cursor(cursor.take(head.length, "record"), where="stream header", base=body_at)
            kind = _RECORDS.get(head.tag)
            if not (head.tag.isalpha() and head.tag.isascii()):
                raise cursor.corrupt("tag", start, f"got {head.tag.hex(' ')}, allowed four ASCII letters")
            if head.tag in found:
                raise cursor.corrupt("tag", start, f"record {head.tag.decode()} comes twice, allowed once")
            if kind is not None:
                found[head.tag] = kind.parse(body)
                body.finish()
            elif head.tag[:1].isupper():
                raise UnsupportedError(
                    f"stream header field tag at byte {base + start:#x}: got required record {head.tag.decode()}, "
                    f"allowed {', '.join(tag.decode() for tag in _RECORDS)}"
                )
        for tag in (TAG_VIDEO, TAG_LAYERS, TAG_PROFILE):
            if tag not in found:
                raise CorruptError(f"stream header at byte {base:#x}: record {tag.decode()} is missing")
        members: dict[str, Any] = {_RECORDS[tag].NAME: record for tag, record in found.items()}
        try:
            return cls(**members)
        except ConfigError as error:
            raise CorruptError(str(error)) from None
