"""Segments in a stream: writing them, finding them again, and saying what a damaged stream still holds.

Implements bitstream_spec.md, sections 3, 5 and 9.  A segment is the bytes of one (GOP, layer); what its payloads mean
is the business of `pgsvc_codec.coding`.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from types import TracebackType
from typing import BinaryIO, Literal, Self

from pgsvc_codec.errors import ConfigError, CorruptError, FormatError, OutputError, TruncatedError
from pgsvc_codec.format.constants import (
    FLAG_INDEX_IN_FRONT,
    FLAG_KEY,
    FLAG_LAYER_ORDER,
    FLAG_SCENE_CUT,
    MAGIC,
    MAX_GOPS,
    SEGMENT_MARKER,
)
from pgsvc_codec.format.fields import CRC_BYTES, Cursor, seal, unseal
from pgsvc_codec.format.header import FILE_HEADER_BYTES, FileHeader, StreamHeader
from pgsvc_codec.format.segments import (
    MIN_SEGMENT_BYTES,
    SEGMENT_HEADER_BYTES,
    Index,
    IndexGop,
    IndexLayer,
    SegmentHeader,
    Trailer,
    pack_psnr,
    pack_segment,
    split_body,
    unpack_psnr,
)

Progression = Literal["gop", "layer"]

_SCAN_BYTES = 1 << 20  # read at a time while looking for a marker


@dataclass(frozen=True)
class LayerSegment:
    """What a writer gets for one (GOP, layer)."""

    frame_payloads: Sequence[bytes]  # in coding order, one per frame of the GOP
    splats: int  # that the layer adds, summed over the frames
    psnr: float | None = None  # dB, of this and all lower layers together, mean over the frames


@dataclass(frozen=True)
class Gop:
    """What a writer gets for one GOP: its layers, the base first."""

    first_frame: int  # in display order
    layers: Sequence[LayerSegment]
    key: bool = True
    scene_cut: bool = False

    @property
    def flags(self) -> int:
        """As on the wire."""
        return FLAG_KEY * self.key | FLAG_SCENE_CUT * self.scene_cut


@dataclass(frozen=True)
class SegmentEntry:
    """Where a segment lies, and what the index says of it."""

    offset: int  # bytes from the start of the file
    length: int  # bytes, header and checksums included
    crc: int | None  # of the body; None without an index
    splats: int | None = None
    psnr: float | None = None

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.length


@dataclass(frozen=True)
class GopEntry:
    """A GOP of a stream; `segments` is one per layer, None where a stream without index shows no trace of it."""

    first_frame: int
    frames: int  # 0 where nothing of the GOP was found
    flags: int
    segments: tuple[SegmentEntry | None, ...]

    @property
    def key(self) -> bool:
        """It begins with an I-frame and needs nothing outside itself."""
        return bool(self.flags & FLAG_KEY)

    @property
    def scene_cut(self) -> bool:
        """It begins a new scene."""
        return bool(self.flags & FLAG_SCENE_CUT)


@contextmanager
def _spooling(folder: str | None) -> Iterator[None]:
    """Errors of the system as `OutputError`, for its messages do not name a file that has no name."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"temporary file in {folder or tempfile.gettempdir()}: cannot be written: {error.strerror or error}"
        ) from None


class StreamWriter:
    """Writes a stream, GOP by GOP.

    With a `seekable` target the index stands in front: segments wait in an anonymous temporary file until `close`, so
    that memory does not grow with the clip.  Otherwise each GOP goes out at once, and the index follows at the end.
    As a context manager it closes the stream, or, after an exception, leaves the sink as it is.

    Raises:
        ConfigError: layer order without a seekable target, or a GOP that does not fit the stream.
        OutputError: the temporary file cannot be written.
    """

    def __init__(
        self,
        sink: BinaryIO,
        header: StreamHeader,
        *,
        progression: Progression,
        seekable: bool,
        spool_dir: str | None = None,
    ) -> None:
        """`spool_dir` is where the temporary file goes, None for the system's choice."""
        if progression == "layer" and not seekable:
            raise ConfigError("progression: layer order cannot be streamed, allowed gop where the output cannot seek")
        self._sink = sink
        self._header = header
        self._progression = progression
        self._seekable = seekable
        self._gops: list[IndexGop] = []
        self._overhead = 0  # bytes written outside the segments
        self._frame_count = 0
        self._position = 0  # of the next segment, from the first byte of the segments
        self._spool: BinaryIO = sink
        self._spool_dir = spool_dir
        if seekable:
            with _spooling(spool_dir):
                self._spool = tempfile.TemporaryFile(dir=spool_dir)  # noqa: SIM115
        else:
            stream_header = header.pack()
            file_header = FileHeader(flags=0, stream_header_length=len(stream_header), index_length=0, total_length=0)
            sink.write(seal(file_header.pack()) + stream_header)
            self._overhead = FILE_HEADER_BYTES + len(stream_header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write_gop(self, gop: Gop) -> None:
        """Append a GOP; its first frame is the next one."""
        number = len(self._gops)
        frames = len(gop.layers[0].frame_payloads) if gop.layers else 0
        if len(gop.layers) != self._header.num_layers:
            raise ConfigError(f"GOP {number}: got {len(gop.layers)} layers, allowed {self._header.num_layers}")
        if any(len(layer.frame_payloads) != frames for layer in gop.layers):
            raise ConfigError(f"GOP {number}: layers differ in their number of frames")
        if gop.first_frame != self._frame_count:
            raise ConfigError(f"GOP {number}: got first frame {gop.first_frame}, allowed {self._frame_count}")
        if number == MAX_GOPS:
            raise ConfigError(f"GOP {number}: allowed at most {MAX_GOPS} GOPs")
        entries, segments = [], []
        for index, layer in enumerate(gop.layers):
            segment = pack_segment(number, index, gop.flags, layer.frame_payloads)
            crc = int.from_bytes(segment[-CRC_BYTES:], "little")
            entries.append(
                IndexLayer(gap=0, length=len(segment), crc=crc, splats=layer.splats, psnr=pack_psnr(layer.psnr))
            )
            segments.append(segment)
        entry = IndexGop(
            first_frame=gop.first_frame,
            frames=frames,
            flags=gop.flags,
            offset=self._position,
            layers=tuple(entries),
        )
        if self._seekable:
            with _spooling(self._spool_dir):
                self._spool.write(b"".join(segments))
                self._spool.flush()
        else:
            self._sink.write(b"".join(segments))
        self._gops.append(entry)
        self._frame_count += frames
        self._position += sum(map(len, segments))

    def close(self) -> None:
        """Write what is still to be written; the sink stays open."""
        try:
            if not self._gops:
                raise ConfigError("stream: got no GOP, allowed 1 or more")
            if self._seekable:
                self._write_indexed()
            else:
                index = seal(Index(gops=tuple(self._gops)).pack())
                trailer = Trailer(index_length=len(index)).pack()
                self._sink.write(index + trailer)
                self._overhead += len(index) + len(trailer)
        finally:
            self.discard()

    def level_bytes(self, level: int) -> int:
        """Bytes of headers, index and the segments of the first `level` layers, once closed; all layers: the stream."""
        return self._overhead + sum(entry.length for gop in self._gops for entry in gop.layers[:level])

    def discard(self) -> None:
        """Drop the temporary file, without writing any more."""
        if self._spool is not self._sink:
            with suppress(OSError):  # what is still buffered after an error is not wanted
                self._spool.close()

    def _write_indexed(self) -> None:
        video = replace(self._header.video, frame_count=self._frame_count)
        stream_header = replace(self._header, video=video).pack()
        layer_order = self._progression == "layer"
        index = seal(Index(gops=tuple(self._layer_order() if layer_order else self._gops)).pack())
        index_at = FILE_HEADER_BYTES + len(stream_header)
        file_header = FileHeader(
            flags=FLAG_INDEX_IN_FRONT | FLAG_LAYER_ORDER * layer_order,
            stream_header_length=len(stream_header),
            index_length=len(index),
            total_length=index_at + len(index) + self._position,
        )
        self._overhead = index_at + len(index)
        self._sink.write(seal(file_header.pack()) + stream_header + index)
        self._spool.seek(0)
        if layer_order:
            for layer in range(self._header.num_layers):
                for gop in self._gops:
                    self._spool.seek(gop.offset + sum(entry.length for entry in gop.layers[:layer]))
                    self._sink.write(self._spool.read(gop.layers[layer].length))
        else:
            shutil.copyfileobj(self._spool, self._sink, _SCAN_BYTES)

    def _layer_order(self) -> Iterator[IndexGop]:
        """The index entries as they must be when the base layers of all GOPs lie first, and so on."""
        num_layers = self._header.num_layers
        totals = [sum(gop.layers[layer].length for gop in self._gops) for layer in range(num_layers)]
        position = [sum(totals[:layer]) for layer in range(num_layers)]  # of each layer's next segment
        for gop in self._gops:
            starts = list(position)
            entries = []
            for layer, entry in enumerate(gop.layers):
                gap = starts[layer] - starts[layer - 1] - gop.layers[layer - 1].length if layer else 0
                entries.append(replace(entry, gap=gap))
                position[layer] += entry.length
            yield replace(gop, offset=starts[0], layers=tuple(entries))


def _copy(source: BinaryIO) -> BinaryIO:
    """An anonymous temporary file with all bytes of a source."""
    with _spooling(None):
        copy = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        while data := source.read(_SCAN_BYTES):
            with _spooling(None):
                copy.write(data)
                copy.flush()
    except BaseException:
        with suppress(OSError):
            copy.close()
        raise
    return copy


class StreamReader:
    """Finds the segments of a stream that may be cut anywhere or damaged.

    A source that cannot seek is copied to an anonymous temporary file first; `close` (or a `with` block) drops that.
    The source itself is left open.

    Raises:
        FormatError: this is no PGS stream, or another version.
        TruncatedError: it ends before headers and index are whole, or holds no complete base segment.
        CorruptError: headers or index are damaged.
        OutputError: there is no room for the copy.
    """

    header: StreamHeader
    gops: list[GopEntry]

    def __init__(self, source: BinaryIO | bytes) -> None:
        self._copy: BinaryIO | None = None
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        elif not source.seekable():
            self._copy = source = _copy(source)
        self._source = source
        self.size = source.seek(0, io.SEEK_END)  # bytes at hand
        self._problems: dict[tuple[int, int], FormatError | None] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the copy of a source that cannot seek."""
        if self._copy is not None:
            self._copy.close()

    def _read(self, offset: int, length: int, where: str) -> bytes:
        if offset + length <= self.size:  # nothing is allocated for bytes that are not there
            self._source.seek(offset)
            data = self._source.read(length)
            if len(data) == length:
                return data
        raise TruncatedError(
            f"{where} at byte {offset:#x}: needs {length} bytes, {max(self.size - offset, 0)} are left of the stream"
        )

    def _open(self) -> None:
        start = self._read(0, min(self.size, FILE_HEADER_BYTES), "file header")
        if len(start) < FILE_HEADER_BYTES and MAGIC.startswith(start[: len(MAGIC)]):
            raise TruncatedError(f"file header at byte 0x0: needs {FILE_HEADER_BYTES} bytes, got {len(start)}")
        self.file_header = FileHeader.unpack(start)
        length = self.file_header.stream_header_length
        self.header = StreamHeader.unpack(self._read(FILE_HEADER_BYTES, length, "stream header"))
        behind = FILE_HEADER_BYTES + length
        if self.file_header.index_in_front:
            self.index_place: Literal["front", "end", "missing"] = "front"
            index = self._read(behind, self.file_header.index_length, "index")
            behind += self.file_header.index_length
            self.gops = self._entries(index, behind - len(index), behind, self.file_header.total_length)
            if self.frame_count != self.header.video.frame_count:
                raise CorruptError(f"index: holds {self.frame_count} frames, allowed {self.header.video.frame_count}")
        else:
            self.index_place = "end"
            try:
                self.gops = self._trailing_entries(behind)
            except FormatError:  # lost or damaged; the segments speak for themselves
                self.index_place = "missing"
                self.gops = self._scan(behind)
        if not any(self.present_layers(number) for number in range(len(self.gops))):
            raise TruncatedError(f"stream of {self.size} bytes: no base segment is complete, allowed 1 or more")

    def _trailing_entries(self, behind: int) -> list[GopEntry]:
        trailer_at = self.size - Trailer.min_bytes()
        trailer = self._read(max(trailer_at, behind), Trailer.min_bytes(), Trailer.NAME)
        length = Trailer.parse(Cursor(trailer, where=Trailer.NAME, base=trailer_at)).index_length
        index_at = trailer_at - length
        return self._entries(self._read(max(index_at, behind), length, Index.NAME), index_at, behind, index_at)

    def _entries(self, sealed: bytes, index_at: int, first_segment: int, limit: int) -> list[GopEntry]:
        """The GOPs of the index at `index_at`; all segments lie in first_segment..limit."""
        cursor = Cursor(unseal(sealed, where=Index.NAME, base=index_at), where=Index.NAME, base=index_at)
        index = Index.parse(cursor)
        cursor.finish()
        gops: list[GopEntry] = []
        first_frame = 0
        for number, gop in enumerate(index.gops):
            if gop.first_frame != first_frame or len(gop.layers) != self.header.num_layers or gop.layers[0].gap:
                raise CorruptError(
                    f"index GOP {number}: got first frame {gop.first_frame}, {len(gop.layers)} layers, "
                    f"base gap {gop.layers[0].gap}, allowed {first_frame}, {self.header.num_layers}, 0"
                )
            position = first_segment + gop.offset
            segments = []
            for layer in gop.layers:
                psnr = unpack_psnr(layer.psnr)
                entry = SegmentEntry(position + layer.gap, layer.length, layer.crc, layer.splats, psnr)
                position = entry.end
                segments.append(entry)
            if position > limit:
                raise CorruptError(f"index GOP {number}: ends at byte {position:#x}, allowed up to {limit:#x}")
            gops.append(GopEntry(first_frame, gop.frames, gop.flags, tuple(segments)))
            first_frame += gop.frames
        return gops

    def _scan(self, start: int) -> list[GopEntry]:
        """The GOPs of which segments are found by their markers, from byte `start` on."""
        found: dict[int, dict[int, SegmentEntry]] = {}
        heads: dict[int, SegmentHeader] = {}
        position = self._find_marker(start)
        while position is not None:
            head = self._plausible_head(position, start)
            if head is None or head.frames != heads.setdefault(head.gop, head).frames:
                position = self._find_marker(position + 1)
                continue
            entry = SegmentEntry(position, SEGMENT_HEADER_BYTES + head.body_length, None)
            found.setdefault(head.gop, {}).setdefault(head.layer, entry)
            position = self._find_marker(entry.end)
        gops = []
        first_frame = 0
        for number in range(max(found, default=-1) + 1):
            frames, flags = (heads[number].frames, heads[number].flags) if number in heads else (0, 0)
            segments = tuple(found.get(number, {}).get(layer) for layer in range(self.header.num_layers))
            gops.append(GopEntry(first_frame, frames, flags, segments))
            first_frame += frames
        return gops

    def _find_marker(self, position: int) -> int | None:
        """Offset of the next segment marker at or behind `position`."""
        # The chunks grow, so that neither long gaps nor many false markers cost more than a few passes over the file.
        chunk = 64
        while position + SEGMENT_HEADER_BYTES <= self.size:
            self._source.seek(position)
            data = self._source.read(chunk)
            at = data.find(SEGMENT_MARKER)
            if at >= 0:
                return position + at
            position += max(len(data) - len(SEGMENT_MARKER) + 1, 1)
            chunk = min(2 * chunk, _SCAN_BYTES)
        return None

    def _plausible_head(self, offset: int, start: int) -> SegmentHeader | None:
        """The segment header at `offset`, None if there cannot be one."""
        try:
            head = self._segment_header(offset)
        except FormatError:
            return None
        # GOPs come in order, so the bytes before bound the number: what a scan allocates stays in proportion.
        least = head.gop * self.header.num_layers * MIN_SEGMENT_BYTES
        return head if head.layer < self.header.num_layers and offset - start >= least else None

    def _segment_header(self, offset: int) -> SegmentHeader:
        sealed = self._read(offset, SEGMENT_HEADER_BYTES, SegmentHeader.NAME)
        block = unseal(sealed, where=SegmentHeader.NAME, base=offset)
        return SegmentHeader.parse(Cursor(block, where=SegmentHeader.NAME, base=offset))

    @property
    def frame_count(self) -> int:
        """Frames of the whole stream; without an index, of the GOPs that were found."""
        return sum(gop.frames for gop in self.gops)

    @property
    def total_length(self) -> int | None:
        """Bytes of the whole stream; None where the index that would tell is missing."""
        return {"front": self.file_header.total_length, "end": self.size, "missing": None}[self.index_place]

    def level_end(self, level: int) -> int:
        """Bytes from the start of the file up to where the level is complete in all GOPs (for ``head -c``)."""
        return max(entry.end for gop in self.gops for entry in gop.segments[:level] if entry is not None)

    def _entry(self, gop: int, layer: int) -> SegmentEntry | None:
        if gop not in range(len(self.gops)):
            raise ConfigError(f"GOP: got {gop}, allowed 0..{len(self.gops) - 1}")
        if layer not in range(self.header.num_layers):
            raise ConfigError(f"layer: got {layer}, allowed 0..{self.header.num_layers - 1}")
        return self.gops[gop].segments[layer]

    def _checked_header(self, gop: int, layer: int) -> tuple[SegmentEntry, SegmentHeader]:
        """Place and header of a segment, which agree."""
        entry = self._entry(gop, layer)
        if entry is None:
            raise TruncatedError(f"GOP {gop} layer {layer}: the segment is missing")
        head = self._segment_header(entry.offset)
        known = self.gops[gop]
        got = (head.gop, head.layer, head.frames, head.flags, SEGMENT_HEADER_BYTES + head.body_length)
        allowed = (gop, layer, known.frames, known.flags, entry.length)
        if got != allowed:
            raise CorruptError(
                f"segment header at byte {entry.offset:#x} (GOP, layer, frames, flags, length): got {got}, "
                f"allowed {allowed}"
            )
        return entry, head

    def read_segment(self, gop: int, layer: int) -> list[bytes]:
        """The payloads of one segment, one per frame, in coding order.

        Raises:
            ConfigError: the stream has no such GOP or layer.
            TruncatedError: the segment is not whole.
            CorruptError: a checksum, a length or the index contradicts it.
        """
        entry, head = self._checked_header(gop, layer)
        where = f"GOP {gop} layer {layer}"
        body_at = entry.offset + SEGMENT_HEADER_BYTES
        sealed = self._read(body_at, head.body_length, where)
        cursor = Cursor(unseal(sealed, where=where, base=body_at), where=where, base=body_at)
        crc = int.from_bytes(sealed[-CRC_BYTES:], "little")
        if entry.crc not in (None, crc):
            raise CorruptError(f"{where} at byte {body_at:#x}: CRC-32 is {crc:08x}, index says {entry.crc:08x}")
        payloads = split_body(cursor, head.frames)
        cursor.finish()
        return payloads

    def problem(self, gop: int, layer: int) -> FormatError | None:
        """Why `read_segment` would fail, None if it would not.  Reads the segment the first time it is asked."""
        key = (gop, layer)
        if key not in self._problems:
            try:
                self.read_segment(gop, layer)
                self._problems[key] = None
            except FormatError as error:
                self._problems[key] = error
        return self._problems[key]

    def problems(self) -> list[FormatError]:
        """Why segments fail their check, for each that does, in GOP order; reads all of them."""
        keys = [(gop, layer) for gop in range(len(self.gops)) for layer in range(self.header.num_layers)]
        return [problem for gop, layer in keys if (problem := self.problem(gop, layer)) is not None]

    @property
    def num_segments(self) -> int:
        """Segments that the stream should have."""
        return len(self.gops) * self.header.num_layers

    def available_layers(self, gop: int) -> int:
        """How many layers of a GOP, from the base on, are whole and pass their checks."""
        for layer in range(self.header.num_layers):
            if self.problem(gop, layer) is not None:
                return layer
        return self.header.num_layers

    def present_layers(self, gop: int) -> int:
        """How many layers of a GOP, from the base on, end before the file does; nothing is read."""
        for layer in range(self.header.num_layers):
            entry = self._entry(gop, layer)
            if entry is None or entry.end > self.size:
                return layer
        return self.header.num_layers

    def truncation_report(self) -> str | None:
        """What a stream that ends too early has lost, in one line; None if it is whole."""
        parts = []
        counts = [self.present_layers(number) for number in range(len(self.gops))]
        for count, run in groupby(range(len(counts)), key=counts.__getitem__):
            if count < self.header.num_layers:
                numbers = list(run)
                many = len(numbers) > 1
                name = f"GOPs {numbers[0]}-{numbers[-1]}" if many else f"GOP {numbers[0]}"
                held = f"{'have' if many else 'has'} {count} of {self.header.num_layers} layers" if count else "missing"
                parts.append(f"{name} {held}")
        if self.index_place == "missing":
            expected = self.header.video.frame_count
            lost = (
                f"frames {self.frame_count}-{expected - 1} missing" if expected > self.frame_count else "index missing"
            )
            parts.append(lost)
        return f"truncated: {', '.join(parts)}" if parts else None
