"""Frames painted in batches: each is what it is alone, whatever else is in its batch, and whatever room that takes."""

from __future__ import annotations

import numpy as np
import pytest

from pgsvc_codec.picture import PlaneGrid, PlaneGroup
from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda import frames as cuda_frames
from pgsvc_codec.render.cuda.device import Mark
from pgsvc_codec.render.cuda.frames import BatchPainter
from pgsvc_codec.render.cuda.raster import Raster
from pgsvc_codec.splats import Splats

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (24, 18)
LUMA = PlaneGroup(PlaneGrid(24, 18, 0.0, 0.0, 1.0, 1.0), slice(0, 1))
CHROMA = PlaneGroup(PlaneGrid(12, 9, 0.0, 0.5, 2.0, 2.0), slice(1, 3))


def random_splats(rng, count, scale=1):
    lengths = rng.uniform(0.5, 4, (count, 3)) * scale
    lengths[:, 1] -= 2 * scale
    values = rng.uniform(-0.9, 0.9, (count, 2)), lengths, rng.normal(0, 0.2, (count, 3))
    return Splats(*(part.astype(np.float32) for part in values))


def painted(frames, groups, max_code, size=SIZE):
    """On the CPU, one by one."""
    for tag, splats, under in frames:
        planes = [
            plane
            for grid, own in groups
            for plane in cpu.render(splats, *size, grid, own, under[own], [len(splats)], max_code)[0]
        ]
        yield tag, planes


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("most", [1, 3])
def test_cuda_batches_hold_the_frames_that_went_in(rng, cuda_device, monkeypatch, request, is_late, most):
    """Splats become more, so that new buffers are made; there is hardly any room for entries at first."""
    if is_late and most == 1:
        request.getfixturevalue("any_order")
    monkeypatch.setattr(cuda_frames, "_LEAST_ROWS", 1)
    monkeypatch.setattr(cuda_frames, "_ENTRIES_PER_ROW", 0)
    monkeypatch.setattr(cuda_frames, "_MOST_FRAMES", most)
    if is_late:
        monkeypatch.setattr(Mark, "is_done", False)  # as if the device had yet to come to it
    grown, grow = [], Raster.grow
    monkeypatch.setattr(Raster, "grow", lambda self, entries: (grown.append(entries), grow(self, entries))[1])
    counts = [0, 1, 0, 3, 9, 1, 2]
    frames = [
        (number, random_splats(rng, count), rng.uniform(0.2, 0.8, 3).astype(np.float32))
        for number, count in enumerate(counts)
    ]
    groups = [LUMA, CHROMA]
    painter = BatchPainter(cuda_device, SIZE, groups, 1023, len(frames))
    shown = list(painter.paint(frames))
    for (tag, planes), (expected, others) in zip(shown, painted(frames, groups, 1023), strict=True):
        assert tag == expected
        for plane, other in zip(planes, others, strict=True):
            assert (plane.dtype, plane.shape) == (np.uint16, other.shape)
            assert np.abs(plane.astype(int) - other).max() <= 1
    assert len([entries for entries in grown if entries]) >= 2, "for luma and for chroma"
    assert grown.count(0) >= 4, "buffers were made twice"


def test_cuda_shows_the_first_frame_before_it_asks_for_others(rng, cuda_device):
    asked = []

    def frames():
        for number in range(20):
            asked.append(number)
            yield number, random_splats(rng, 1), np.zeros(3, np.float32)

    shown = BatchPainter(cuda_device, SIZE, [LUMA, CHROMA], 255, 20).paint(frames())
    assert next(shown)[0] == 0
    assert asked == [0]
    assert next(shown)[0] == 1
    assert asked == list(range(9)), "the first batch"
    shown.close()


def test_cuda_planes_belong_to_their_frames_alone(rng, cuda_device):
    """Buffers are used again; what was handed out stays."""
    frames = [(number, random_splats(rng, 2), np.full(3, number / 9, np.float32)) for number in range(6)]
    painter = BatchPainter(cuda_device, SIZE, [LUMA, CHROMA], 255, 2)
    shown = list(painter.paint(frames))
    for (_, planes), (_, others) in zip(shown, painted(frames, [LUMA, CHROMA], 255), strict=True):
        for plane, other in zip(planes, others, strict=True):
            assert plane.flags.owndata
            assert np.abs(plane.astype(int) - other).max() <= 1


@pytest.mark.cuda
def test_many_large_batches_on_a_gpu_are_copied_while_others_are_painted(rng, cuda_device):
    size = (1280, 720)
    luma = PlaneGroup(PlaneGrid(*size, 0.0, 0.0, 1.0, 1.0), slice(0, 1))
    chroma = PlaneGroup(PlaneGrid(640, 360, 0.0, 0.5, 2.0, 2.0), slice(1, 3))
    frames = [
        (number, random_splats(rng, 200 + 150 * number, 8), rng.uniform(0.2, 0.8, 3).astype(np.float32))
        for number in range(44)
    ]
    shown = BatchPainter(cuda_device, size, [luma, chroma], 255, len(frames)).paint(frames)
    for (tag, planes), (expected, others) in zip(shown, painted(frames, [luma, chroma], 255, size), strict=True):
        assert tag == expected
        for plane, other in zip(planes, others, strict=True):
            assert np.abs(plane.astype(int) - other).max() <= 1
