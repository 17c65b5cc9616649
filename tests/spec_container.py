"""A second reader of streams, written from bitstream_spec.md §3 to §5 and §9 alone, with the standard library.

It imports nothing of the package, so that the package and the text are held to each other.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import gcd

MARKER = bytes.fromhex("c5534547")


class StreamError(Exception):
    """The stream, or a part of it, is not what the spec allows."""


def require(condition):
    """Raise unless the spec's condition holds."""
    if not condition:
        raise StreamError


@dataclass
class SpecStream:
    """What a stream says of itself, and the payloads of its usable segments."""

    video: dict
    levels: list  # (width, height, splats)
    profile: int  # 0 baseline, 1 main
    gops: list = field(default_factory=list)  # (first frame, payloads per usable layer, base first)


class Block:
    """§1: the numbers of a block, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        require(self.at + count <= len(self.data))
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width):
        return int.from_bytes(self.bytes(width), "little")

    def varint(self):
        value = shift = 0
        while True:
            (byte,) = self.bytes(1)
            value |= (byte & 127) << shift
            if byte < 128:
                require(byte or not shift)
                return value
            shift += 7
            require(shift < 63)

    def end(self):
        require(self.at == len(self.data))


def unsealed(data):
    """§1, sealed."""
    require(len(data) >= 4)
    require(zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little"))
    return data[:-4]


def piece(data, start, length):
    """Bytes that must all be there."""
    require(start >= 0 and start + length <= len(data))
    return data[start : start + length]


def read_stream(data):
    """§3 to §5 and §9: a stream that may be cut or damaged; StreamError where nothing of it is of use."""
    require(data[:8] == bytes.fromhex("89504753 0d0a1a0a"))
    require(data[8:10] == bytes(2))
    head = unsealed(piece(data, 0, 32))
    flags, header_length, index_length, total = struct.unpack("<HIIQ", head[10:])
    require(flags < 4 and header_length <= 65536)
    behind = 32 + header_length
    stream = stream_header(unsealed(piece(data, 32, header_length)))
    if flags & 2:
        require(total >= behind + index_length)
        first = behind + index_length
        index = read_index(unsealed(piece(data, behind, index_length)), len(stream.levels), total - first)
        require(sum(gop["frames"] for gop in index) == stream.video["frame_count"])
    else:
        require(not (flags or index_length or total))
        first = behind
        index = trailing_index(data, behind, len(stream.levels))
    for number, gop in enumerate(index):
        layers = []
        for layer, (start, length, crc) in enumerate(gop["places"]):
            try:
                layers.append(segment(data, first + start, length, crc, (number, layer, gop["flags"], gop["frames"])))
            except StreamError:
                break
        stream.gops.append((gop["first_frame"], layers))
    require(any(layers for _, layers in stream.gops))
    return stream


def stream_header(block):
    """§4."""
    block, records = Block(block), {}
    while block.at < len(block.data):
        tag = block.bytes(4)
        require(tag.isalpha() and tag not in records)
        records[tag] = block.bytes(block.varint())
        require(tag in (b"VIDE", b"LAYR", b"PROF") or tag[:1].islower())
    require(records.keys() >= {b"VIDE", b"LAYR", b"PROF"})
    record = Block(records[b"PROF"])
    profile = record.number(1)
    record.end()
    require(profile < 2)
    record = Block(records[b"VIDE"])
    video = {"width": record.number(2), "height": record.number(2)}
    rate = record.varint(), record.varint()
    require(all(rate) and gcd(*rate) == 1 and max(rate) < 2**32)
    video["frame_count"] = record.varint()
    require(video["frame_count"] <= 2**30)
    for name in ["chroma", "depth", "matrix", "primaries", "transfer", "color_range", "siting"]:
        video[name] = record.number(1)
    record.end()
    video["rate"] = Fraction(*rate)
    require(video["chroma"] <= 4 and video["depth"] in (8, 10) and video["matrix"] in (0, 1, 6, 9))
    require((video["chroma"] == 4) == (video["matrix"] == 0) and (video["chroma"] < 4 or video["depth"] == 8))
    require(video["color_range"] < 2 and video["siting"] < 3)
    record = Block(records[b"LAYR"])
    scalability, count = record.number(1), record.number(1)
    require(scalability < 2 and 1 <= count <= 8)
    levels = [(record.varint(), record.varint(), record.varint()) for _ in range(count)]
    record.end()
    full = (video["width"], video["height"])
    require(all(1 <= side <= 16384 for side in full) and levels[-1][:2] == full)
    require(all(low <= high for a, b in pairwise(levels) for low, high in zip(a, b, strict=True)))
    require(scalability == 1 or all(level[:2] == full for level in levels))
    return SpecStream(video, levels, profile)


def read_index(block, num_layers, available):
    """§5.1: (start, length, crc) of every segment, from the first byte of the segments, which are `available` bytes."""
    block, gops, first_frame = Block(block), [], 0
    for _ in range(block.varint()):
        gop = {"first_frame": block.varint(), "frames": block.varint(), "flags": block.number(1), "places": []}
        require(gop["first_frame"] == first_frame and 1 <= gop["frames"] <= 1024 and gop["flags"] < 4)
        first_frame += gop["frames"]
        end = block.varint()
        require(block.number(1) == num_layers)
        for layer in range(num_layers):
            start = end + block.varint()
            require(layer or start == end)
            end = start + block.varint()
            gop["places"].append((start, end - start, block.number(4)))
            block.varint()  # splats
            require(block.varint() <= 20000)
        require(end <= available)
        gops.append(gop)
    block.end()
    require(gops)
    return gops


def segment(data, start, length, crc, expected):
    """§5.2: the payloads of a segment that is usable."""
    head = segment_header(data, start)
    require(head[:4] == expected and 20 + head[4] == length)
    body = Block(unsealed(piece(data, start + 20, head[4])))
    require(crc in (None, zlib.crc32(body.data)))
    lengths = [body.varint() for _ in range(expected[3])]
    payloads = [body.bytes(length) for length in lengths]
    body.end()
    return payloads


def segment_header(data, start):
    """(GOP, layer, flags, frames, body length)."""
    marker, gop, layer, flags, frames, length = struct.unpack("<4sIBBHI", unsealed(piece(data, start, 20)))
    require(marker == MARKER and gop < 2**20 and layer < 8 and flags < 4)
    require(1 <= frames <= 1024 and 5 <= length <= 2**30)
    return gop, layer, flags, frames, length


def trailing_index(data, behind, num_layers):
    """§3 and §9: the index of a streamed stream, or what a scan finds."""
    try:
        trailer = piece(data, len(data) - 8, 8)
        require(trailer[:4] == b"PGSX")
        length = int.from_bytes(trailer[4:], "little")
        start = len(data) - 8 - length
        require(start >= behind)
        return read_index(unsealed(piece(data, start, length)), num_layers, start - behind)
    except StreamError:
        return scan(data, behind, num_layers)


def scan(data, behind, num_layers):
    """§9: as an index, what markers show; segments that were not found lie beyond the end."""
    gops, at = {}, behind
    while (at := data.find(MARKER, at)) >= 0:
        try:
            number, layer, flags, frames, length = segment_header(data, at)
            require(layer < num_layers and at - behind >= number * num_layers * 25)
            gop = gops.setdefault(number, {"frames": frames, "flags": flags, "found": {}})
            require(gop["frames"] == frames)
        except StreamError:
            at += 1
            continue
        gop["found"].setdefault(layer, (at - behind, 20 + length, None))
        at += 20 + length
    index, first_frame = [], 0
    for number in range(max(gops, default=-1) + 1):
        gop = gops.get(number, {"frames": 0, "flags": 0, "found": {}})
        places = [gop["found"].get(layer, (len(data), 25, None)) for layer in range(num_layers)]
        index.append({"first_frame": first_frame, "frames": gop["frames"], "flags": gop["flags"], "places": places})
        first_frame += gop["frames"]
    return index
