"""Streams: what is written is found again, and whatever is cut or damaged is told apart from what is whole."""

from __future__ import annotations

import io
import os
import random
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.errors import ConfigError, CorruptError, FormatError, OutputError, TruncatedError, UnsupportedError
from pgsvc_codec.format.container import Gop, LayerSegment, StreamReader, StreamWriter
from pgsvc_codec.format.fields import seal
from pgsvc_codec.format.header import (
    FILE_HEADER_BYTES,
    EncoderRecord,
    FileHeader,
    LayersRecord,
    LevelRecord,
    ProfileRecord,
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


@shapes
def test_any_cut_is_told_and_what_is_whole_is_read(progression: str, seekable: bool) -> None:
    """Cut at every byte: never more than typed errors, and exactly the segments that end before the cut."""
    gops = make_gops(3)
    data = write(gops, progression=progression, seekable=seekable)
    whole = StreamReader(data)
    ends = {(g, la): e.end for g, gop in enumerate(whole.gops) for la, e in enumerate(gop.segments) if e}
    starts = FILE_HEADER_BYTES + whole.file_header.stream_header_length + whole.file_header.index_length
    for cut in range(len(data)):
        complete = {key for key, end in ends.items() if end <= cut}
        if cut < starts or not any(layer == 0 for _, layer in complete):
            with pytest.raises(FormatError):
                StreamReader(data[:cut])
            continue
        reader = StreamReader(data[:cut])
        if cut < max(ends.values()) or not seekable:
            assert reader.truncation_report().startswith("truncated: ")  # type: ignore[union-attr]
        for number in range(len(reader.gops)):
            here = [layer for layer in range(LAYERS) if (number, layer) in complete]
            assert reader.available_layers(number) == reader.present_layers(number) == len(here)
            for layer in here:
                assert reader.read_segment(number, layer) == gops[number].layers[layer].frame_payloads
            if len(here) < LAYERS:
                with pytest.raises(TruncatedError, match=f"GOP {number} layer {len(here)}|segment header"):
                    reader.read_segment(number, len(here))


@shapes
def test_level_ends_are_the_least_cuts(progression: str, seekable: bool) -> None:
    data = write(make_gops(), progression=progression, seekable=seekable)
    reader = StreamReader(data)
    for level in range(1, LAYERS + 1):
        cut = StreamReader(data[: reader.level_end(level)])
        assert all(cut.available_layers(number) >= level for number in range(len(reader.gops)))
        shorter = StreamReader(data[: reader.level_end(level) - 1])
        counts = [shorter.available_layers(number) for number in range(len(reader.gops))]
        assert len(shorter.gops) < len(reader.gops) or min(counts[: len(shorter.gops)]) < level


def test_reports_name_what_is_missing() -> None:
    gops = [Gop(2 * n, [LayerSegment([b"abc", b"de"], 1)] * LAYERS) for n in range(19)]
    data = write(gops)
    reader = StreamReader(data)
    cut = reader.gops[7].segments[0].end  # type: ignore[union-attr]
    assert StreamReader(data[:cut]).truncation_report() == "truncated: GOP 7 has 1 of 3 layers, GOPs 8-18 missing"
    assert StreamReader(data[: cut - 1]).truncation_report() == "truncated: GOPs 7-18 missing"
    layered = write(gops, progression="layer")
    cut = StreamReader(layered).gops[4].segments[1].end  # type: ignore[union-attr]
    assert (
        StreamReader(layered[:cut]).truncation_report()
        == "truncated: GOPs 0-4 have 2 of 3 layers, GOPs 5-18 have 1 of 3 layers"
    )
    streamed = write(gops, seekable=False)
    cut = StreamReader(streamed).gops[7].segments[0].end  # type: ignore[union-attr]
    assert StreamReader(streamed[:cut]).truncation_report() == "truncated: GOP 7 has 1 of 3 layers, index missing"
    video = make_header().video
    known = make_header(video=VideoRecord(**{**vars(video), "frame_count": 38}))
    streamed = write(gops, seekable=False, header=known)
    assert StreamReader(streamed[:-1]).truncation_report() == "truncated: index missing"
    assert (
        StreamReader(streamed[:cut]).truncation_report() == "truncated: GOP 7 has 1 of 3 layers, frames 16-37 missing"
    )


def test_layer_order_puts_the_bases_first() -> None:
    reader = StreamReader(write(make_gops(), progression="layer"))
    places = [gop.segments[layer] for layer in range(LAYERS) for gop in reader.gops]
    for before, after in pairwise(places):
        assert before is not None
        assert after is not None
        assert before.end == after.offset


def test_a_pipe_is_read_too() -> None:
    gops = make_gops()
    data = write(gops)
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as sink:
        sink.write(data)  # small enough for the pipe's buffer
    with os.fdopen(read_end, "rb") as source, StreamReader(source) as reader:
        assert reader.read_segment(4, 2) == gops[4].layers[2].frame_payloads


def test_no_room_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = str(tmp_path / "nowhere")
    message = "temporary file in .*nowhere: cannot be written: No such file or directory"
    with pytest.raises(OutputError, match=message):
        StreamWriter(io.BytesIO(), make_header(), progression="gop", seekable=True, spool_dir=nowhere)
    read_end, write_end = os.pipe()
    os.close(write_end)
    monkeypatch.setattr(tempfile, "tempdir", nowhere)
    with os.fdopen(read_end, "rb") as source, pytest.raises(OutputError, match=message):
        StreamReader(source)


@shapes
def test_a_damaged_segment_is_told_from_the_others(progression: str, seekable: bool) -> None:
    gops = make_gops()
    data = bytearray(write(gops, progression=progression, seekable=seekable))
    entry = StreamReader(bytes(data)).gops[2].segments[1]
    assert entry is not None
    data[entry.end - 1] ^= 1
    reader = StreamReader(bytes(data))
    assert [reader.available_layers(number) for number in range(5)] == [3, 3, 1, 3, 3]
    with pytest.raises(CorruptError, match=f"GOP 2 layer 1 at byte {entry.offset + 20:#x}: CRC-32 is"):
        reader.read_segment(2, 1)
    assert reader.read_segment(2, 2) == gops[2].layers[2].frame_payloads
    assert reader.truncation_report() is None


def test_a_segment_of_another_stream_is_refused() -> None:
    """Its own checksums are right, so only header and index can tell."""
    gop = Gop(0, [LayerSegment([b"one"], 1)] * LAYERS)
    other = Gop(0, [LayerSegment([b"two"], 1)] * LAYERS)
    data, donor = write([gop]), write([other])
    entry = StreamReader(data).gops[0].segments[1]
    base = StreamReader(data).gops[0].segments[0]
    assert entry is not None
    assert base is not None
    swapped = data[: entry.offset] + donor[entry.offset : entry.end] + data[entry.end :]
    with pytest.raises(CorruptError, match=r"GOP 0 layer 1 .* index says"):
        StreamReader(swapped).read_segment(0, 1)
    doubled = data[: entry.offset] + data[base.offset : base.end] + data[entry.end :]
    with pytest.raises(CorruptError, match=r"segment header at byte 0x\w+ \(GOP, layer, frames, flags, length\): got"):
        StreamReader(doubled).read_segment(0, 1)


def test_a_scan_goes_on_behind_damage() -> None:
    gops = make_gops()
    data = bytearray(write(gops, seekable=False))
    entry = StreamReader(bytes(data)).gops[1].segments[0]
    assert entry is not None
    data[entry.offset + 5] ^= 0xFF  # the header of a base
    reader = StreamReader(bytes(data[:-1]))
    assert reader.index_place == "missing"
    assert [reader.available_layers(number) for number in range(5)] == [3, 0, 3, 3, 3]
    assert reader.truncation_report() == "truncated: GOP 1 missing, index missing"


def test_a_scan_takes_no_number_that_cannot_be() -> None:
    """GOP numbers are bounded by the bytes before, so a forged one costs no memory."""
    data = write(make_gops(1), seekable=False)
    entry = StreamReader(data).gops[0].segments[0]
    assert entry is not None
    forged = bytearray(data[entry.offset : entry.end])
    forged[4:8] = (1000).to_bytes(4, "little")
    forged[:20] = seal(bytes(forged[:16]))
    assert len(StreamReader(data[:-1] + bytes(forged)).gops) == 1


def test_numbers_outside_the_stream_are_refused() -> None:
    reader = StreamReader(write(make_gops()))
    with pytest.raises(ConfigError, match=r"GOP: got 5, allowed 0\.\.4"):
        reader.read_segment(5, 0)
    with pytest.raises(ConfigError, match=r"layer: got 3, allowed 0\.\.2"):
        reader.read_segment(0, 3)


def test_bytes_behind_the_stream_do_not_matter() -> None:
    reader = StreamReader(write(make_gops()) + b"more")
    assert reader.truncation_report() is None
    assert reader.available_layers(4) == LAYERS


@pytest.mark.parametrize(
    ("gop", "message"),
    [
        (Gop(0, [LayerSegment([b""], 0)] * 2), "GOP 0: got 2 layers, allowed 3"),
        (Gop(0, []), "GOP 0: got 0 layers, allowed 3"),
        (Gop(1, [LayerSegment([b""], 0)] * 3), "GOP 0: got first frame 1, allowed 0"),
        (
            Gop(0, [LayerSegment([b""], 0)] * 2 + [LayerSegment([], 0)]),
            "GOP 0: layers differ in their number of frames",
        ),
        (Gop(0, [LayerSegment([], 0)] * 3), r"segment header field frames: got 0, allowed 1\.\.1024"),
        (Gop(0, [LayerSegment([b""] * 1025, 0)] * 3), r"frames: got 1025, allowed 1\.\.1024"),
        (Gop(0, [LayerSegment([b""], -1)] * 3), "index layer field splats: got -1"),
    ],
)
def test_writer_refuses_gops_that_do_not_fit(gop: Gop, message: str) -> None:
    sink = io.BytesIO()
    with (
        pytest.raises(ConfigError, match=message),
        StreamWriter(sink, make_header(), progression="gop", seekable=True) as writer,
    ):
        writer.write_gop(gop)
    assert sink.getvalue() == b""


def test_writer_refuses_layer_order_in_a_pipe_and_empty_streams() -> None:
    with pytest.raises(ConfigError, match="layer order cannot be streamed"):
        StreamWriter(io.BytesIO(), make_header(), progression="layer", seekable=False)
    with pytest.raises(ConfigError, match="got no GOP, allowed 1 or more"):
        write([])


@pytest.mark.parametrize(("psnr", "stored"), [(None, None), (0.0, 0.01), (31.416, 31.42), (float("inf"), 200.0)])
def test_psnr_is_kept_to_a_hundredth(psnr: float | None, stored: float | None) -> None:
    entry = StreamReader(write([Gop(0, [LayerSegment([b""], 0, psnr)] * 3)])).gops[0].segments[0]
    assert entry is not None
    assert entry.psnr == stored


def resealed(data: bytes, **changes: int) -> bytes:
    """The stream with other values in its file header, whose checksum is made right again."""
    fields = vars(StreamReader(data).file_header) | changes
    record = b"".join(declared.type.pack(fields[name]) for name, declared in FileHeader.wires())
    return seal(record) + data[FILE_HEADER_BYTES:]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"version": 1}, UnsupportedError, "field version at byte 0x8: got 1, allowed 0"),
        ({"flags": 4}, CorruptError, r"field flags at byte 0xa: got 4, allowed 0\.\.3"),
        ({"stream_header_length": 1 << 17}, CorruptError, r"stream_header_length at byte 0xc: got 131072"),
        ({"total_length": 60}, CorruptError, "total_length: got 60, allowed at least"),
        ({"flags": 1}, CorruptError, "must be 0 where the index is at the end"),
        ({"total_length": 300}, CorruptError, r"index GOP \d: ends at byte 0x\w+, allowed up to 0x12c|at least"),
    ],
)
def test_bad_file_headers(changes: dict[str, int], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        StreamReader(resealed(write(make_gops()), **changes))


@pytest.mark.parametrize("data", [b"", b"\x89PG", b"\x89PGS\r\n\x1a\n" + bytes(20)])
def test_a_short_header_is_truncated(data: bytes) -> None:
    with pytest.raises(TruncatedError, match=f"file header at byte 0x0: needs 32 bytes, got {len(data)}"):
        StreamReader(data)


@pytest.mark.parametrize("data", [b"YUV4MPEG2 W64 H48\n" * 9, b"\0" * 100, b"GIF"])
def test_other_files_are_no_streams(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"not a PGS stream: magic at byte 0x0: got .*, allowed 89 50 47 53"):
        StreamReader(data)


@shapes
@settings(max_examples=150)
@given(data=st.data())
def test_any_mutation_gives_a_result_or_a_format_error(progression: str, seekable: bool, data: st.DataObject) -> None:
    stream = bytearray(write(make_gops(3), progression=progression, seekable=seekable))
    for position in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=4)):
        stream[position] = data.draw(st.integers(0, 255))
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream)))))
    if data.draw(st.booleans()):
        del stream[start:end]
    read_everything(bytes(stream))


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_a_result_or_a_format_error(noise: bytes, behind_header: bool) -> None:
    start = write(make_gops(1), seekable=False)[:147] if behind_header else b""
    read_everything(start + noise)


@settings(max_examples=300)
@given(data=st.data())
def test_mutations_with_right_checksums(data: st.DataObject) -> None:
    """The same behind the checksums: parsers must not rely on them."""
    stream = write(make_gops(3))
    reader = StreamReader(stream)
    behind = FILE_HEADER_BYTES + reader.file_header.stream_header_length
    blocks = {
        "header": (FILE_HEADER_BYTES, behind),
        "index": (behind, behind + reader.file_header.index_length),
        "body": (reader.gops[0].segments[0].offset + 20, reader.gops[0].segments[0].end),  # type: ignore[union-attr]
    }
    start, end = blocks[data.draw(st.sampled_from(sorted(blocks)))]
    block = bytearray(stream[start : end - 4])
    for position in data.draw(st.lists(st.integers(0, len(block) - 1), min_size=1, max_size=3)):
        block[position] = data.draw(st.integers(0, 255))
    read_everything(stream[:start] + seal(bytes(block)) + stream[end:])


def read_everything(stream: bytes) -> None:
    """Do all that a reader can; only FormatError may come out, and no more payload bytes than the stream has."""
    try:
        reader = StreamReader(stream)
    except FormatError:
        return
    reader.truncation_report()
    total = 0
    for number in range(len(reader.gops)):
        available = reader.available_layers(number)
        for layer in range(reader.header.num_layers):
            try:
                total += sum(map(len, reader.read_segment(number, layer)))
            except FormatError:
                assert layer >= available
    assert total <= len(stream)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="stream header field profile: got 7, allowed 0"):
        make_header(profile=ProfileRecord(profile=7))
