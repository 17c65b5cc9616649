"""Streams made of other streams, without fitting anything."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from pgsvc_codec.format.constants import RESOLUTION
from pgsvc_codec.format.container import Gop, LayerSegment, StreamReader, StreamWriter
from pgsvc_codec.format.header import LayersRecord


def with_level_sizes(data: bytes, sizes: Sequence[tuple[int, int]]) -> bytes:
    """The same splats as levels of these native sizes (width, height), in resolution scalability."""
    sink = io.BytesIO()
    with StreamReader(data) as reader:
        levels = tuple(
            replace(level, width=width, height=height)
            for level, (width, height) in zip(reader.header.layers.levels, sizes, strict=True)
        )
        header = replace(reader.header, layers=LayersRecord(scalability=RESOLUTION, levels=levels))
        with StreamWriter(sink, header, progression="gop", seekable=True) as writer:
            for number, gop in enumerate(reader.gops):
                layers = [
                    LayerSegment(reader.read_segment(number, layer), entry.splats or 0, entry.psnr)
                    for layer, entry in enumerate(gop.segments)
                    if entry is not None
                ]
                writer.write_gop(Gop(gop.first_frame, layers, key=gop.key, scene_cut=gop.scene_cut))
    return sink.getvalue()
