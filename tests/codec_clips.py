"""A clip out of thin air, its streams and what they show: for tests of encoder and decoder together."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction

import numba
import numpy as np
import torch

from pgsvc_codec import Decoder, encode
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.picture import from_unit, plane_grids, resample, to_unit
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, VideoInfo


class Clip:
    """A source out of thin air: a disc that crosses waves, another picture from `cut` on."""

    still = False

    def __init__(self, pix_fmt="yuv420p", size=(52, 40), frames=3, cut=None):
        chroma, depth = PIX_FMTS[pix_fmt]
        is_rgb = chroma is Chroma.RGB
        matrix, span = (Matrix.RGB, Range.FULL) if is_rgb else (Matrix.BT709, Range.LIMITED)
        self.info = VideoInfo(*size, Fraction(25), chroma, depth, matrix, span)
        self.frame_count = frames
        self.cut = cut

    def __iter__(self):
        return (self.frame(number) for number in range(self.frame_count))

    def frame(self, number):
        new_scene = self.cut is not None and number >= self.cut
        planes = []
        for plane, grid in enumerate(plane_grids(self.info)):
            x, y = np.meshgrid(grid.x0 + grid.dx * np.arange(grid.width), grid.y0 + grid.dy * np.arange(grid.height))
            disc = np.hypot(x - 15 - 2 * number, y - 18) < 9
            waves = 0.45 + 0.15 * np.sin((x if not new_scene else y) / (5 if not new_scene else 2) + plane)
            planes.append(np.where(disc ^ new_scene, 0.9 - waves, waves).astype(np.float32))
        return from_unit(tuple(planes), self.info)


def stream_of(clip, config, **options):
    sink = io.BytesIO()
    report = encode(clip, sink, config, **options)
    return sink.getvalue(), report


def streams_by_threads(clip, config):
    """The streams that one thread and two make."""
    before, before_torch = numba.get_num_threads(), torch.get_num_threads()
    streams = []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            torch.set_num_threads(threads)
            streams.append(stream_of(clip, config)[0])
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(before_torch)
    return streams


def assert_same_frames(data, other):
    """Two streams show the same."""
    with Decoder(data) as one, Decoder(other) as two:
        for a, b in zip(one.frames(), two.frames(), strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


def at_size(frame, info, size):
    """The frame resampled, as whoever has only the source and the size of a level would do it."""
    if size == (info.width, info.height):
        return frame
    planes = resample(to_unit(frame, info), plane_grids(info), plane_grids(info, *size))
    return from_unit(planes, replace(info, width=size[0], height=size[1]))


def meter_of(clip, data, layers):
    meter = PsnrMeter(clip.info.max_code, is_rgb=clip.info.chroma is Chroma.RGB)
    with Decoder(data) as decoder:
        for source, shown in zip(clip, decoder.frames(layers=layers), strict=True):
            meter.add(at_size(source, clip.info, decoder.level_size(layers)), shown.planes)
    return meter


def decibels_of(clip, data):
    """PSNR of every frame at the top level."""
    decibels = []
    with Decoder(data) as decoder:
        for source, shown in zip(clip, decoder.frames(), strict=True):
            meter = PsnrMeter(clip.info.max_code, is_rgb=clip.info.chroma is Chroma.RGB)
            decibels.append(meter.add(source, shown.planes))
    return decibels
