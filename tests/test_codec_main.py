"""Encoder and decoder together in the `main` profile: closed loop, any planes, layers, levels and kinds of frames."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
from codec_clips import Clip, assert_same_frames, decibels_of, meter_of, stream_of, streams_by_threads

from pgsvc_codec import Decoder, EncodeConfig, encode_monolithic
from pgsvc_codec.config import MAIN_STRATEGIES
from pgsvc_codec.video import PIX_FMTS

pytestmark = pytest.mark.usefixtures("one_thread")

main = partial(EncodeConfig, profile="main", iterations=40, keyint=16, scenecut=0)
QUICK = main(quality=60)


def assert_closed(clip, data, report):
    """The encoder measures what the decoder shows, to the last bit of the last frame."""
    assert report.size_bytes == len(data)
    for level in report.levels:
        meter = meter_of(clip, data, level.layers)
        assert meter.combined == level.psnr
        assert meter.planes == level.psnr_planes


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_every_kind_of_planes_comes_back_as_the_encoder_says(pix_fmt):
    clip = Clip(pix_fmt)
    data, report = stream_of(clip, main(quality=80))
    assert_closed(clip, data, report)
    assert [level.psnr for level in report.levels] == sorted(level.psnr for level in report.levels)
    assert report.levels[2].psnr > 22
    with Decoder(data) as decoder:
        assert decoder.info == clip.info
        assert decoder.reader.header.profile.profile == 1


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (33, 17)])
def test_odd_sizes(size):
    clip = Clip(size=size, frames=2)
    assert_closed(clip, *stream_of(clip, main(quality=50)))


@pytest.mark.parametrize("layers", [1, 2, 8])
def test_any_number_of_layers(layers):
    clip = Clip(frames=2)
    data, report = stream_of(clip, main(quality=90, layers=layers))
    assert [level.layers for level in report.levels] == list(range(1, layers + 1))
    assert_closed(clip, data, report)


@pytest.mark.parametrize("scalability", ["quality", "resolution"])
@pytest.mark.parametrize("strategy", [name for name in MAIN_STRATEGIES if name != "monolithic"])
def test_every_way_of_training_closes_the_loop(scalability, strategy):
    clip = Clip(frames=3)
    data, report = stream_of(clip, main(strategy=strategy, scalability=scalability, quality=60))
    sizes = {"quality": [(52, 40)] * 3, "resolution": [(30, 24), (42, 32), (52, 40)]}[scalability]
    with Decoder(data) as decoder:
        assert [decoder.level_size(layers) for layers in (1, 2, 3)] == sizes
    assert_closed(clip, data, report)


def test_monolithic_levels_are_streams_of_their_own():
    clip = Clip(frames=2)
    sinks = [io.BytesIO() for _ in range(3)]
    reports = encode_monolithic(clip, sinks, main(splats=90, strategy="monolithic"))
    for sink, report in zip(sinks, reports, strict=True):
        assert_closed(clip, sink.getvalue(), report)
    assert [report.levels[0].psnr for report in reports] == sorted(report.levels[0].psnr for report in reports)


def test_quality_is_monotone_in_bytes_and_decibels():
    clip = Clip(frames=1, size=(96, 64))
    reports = [stream_of(clip, main(quality=quality))[1] for quality in (0, 25, 50, 75, 100)]
    sizes = [report.size_bytes for report in reports]
    decibels = [report.levels[-1].psnr for report in reports]
    assert sizes == sorted(sizes)
    assert decibels == sorted(decibels)
    assert sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize("splats", [12, 60, 200])
def test_a_number_of_splats_is_kept(splats):
    _, report = stream_of(Clip(frames=1, size=(96, 64)), main(splats=splats))
    assert 0.8 * splats <= report.levels[-1].splats <= splats


def test_p_frames_hold_their_quality():
    clip = Clip(frames=9)
    data, _ = stream_of(clip, main(quality=70, iterations=600))
    decibels = decibels_of(clip, data)
    assert decibels[-1] > decibels[0] - 4.5  # what the I-frame has for nothing, others pay for
    assert decibels[-1] > decibels[1] - 1, "from there on nothing is lost"


def test_frames_of_a_clip_cost_less_than_stills():
    _, clip = stream_of(Clip(frames=9), main(quality=70))
    _, still = stream_of(Clip(frames=1), main(quality=70))
    assert clip.size_bytes < 5 * still.size_bytes


def test_a_scene_cut_opens_a_gop():
    clip = Clip(frames=7, cut=4)
    data, report = stream_of(clip, main(quality=50, scenecut=40.0, iterations=20))
    with Decoder(data) as decoder:
        assert [(gop.first_frame, gop.scene_cut) for gop in decoder.reader.gops] == [(0, False), (4, True)]
    assert report.gops == 2
    assert_closed(clip, data, report)


def test_a_cut_inside_a_gop_is_survived():
    clip = Clip(frames=6, cut=3)
    data, report = stream_of(clip, main(quality=60))
    assert report.gops == 1
    assert_closed(clip, data, report)
    alone = stream_of(Clip(frames=1), main(quality=60))[1]
    assert report.levels[-1].psnr > alone.levels[-1].psnr - 5


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    first, second = stream_of(Clip(), QUICK)[0], stream_of(Clip(), QUICK)[0]
    other = stream_of(Clip(), main(quality=60, seed=1))[0]
    assert first == second != other


@pytest.mark.parametrize("scalability", ["quality", "resolution"])
def test_one_thread_gives_the_bytes_of_two(scalability):
    clip = Clip(frames=3, size=(160, 96))
    config = main(quality=60, iterations=20, scalability=scalability)
    one, two = streams_by_threads(clip, config)
    assert one == two


def test_a_chain_of_two_hundred_frames_stays_together():
    """Not one bit apart: a P-frame that decoded otherwise than it was coded would show in all that follow."""
    clip = Clip(frames=200, size=(40, 32))
    data, report = stream_of(clip, main(quality=40, iterations=8, keyint=200))
    assert (report.gops, report.frames) == (1, 200)
    assert_closed(clip, data, report)


def test_streamed_and_indexed_outputs_hold_the_same_frames():
    clip = Clip(frames=6)
    assert_same_frames(stream_of(clip, QUICK)[0], stream_of(clip, QUICK, seekable=False)[0])


def test_frames_come_in_display_order_from_anywhere():
    clip = Clip(frames=11)
    data, _ = stream_of(clip, main(quality=95, keyint=8, iterations=80))
    with Decoder(data) as decoder:
        whole = list(decoder.frames())
        part = list(decoder.frames(start=3, stop=9))
    assert [frame.number for frame in whole] == list(range(11))
    for frame, again in zip(whole[3:9], part, strict=True):
        assert frame.number == again.number
        assert all(np.array_equal(a, b) for a, b in zip(frame.planes, again.planes, strict=True))
    for shown in whole:
        errors = [np.abs(shown.planes[0].astype(int) - source[0]).sum() for source in clip]
        assert int(np.argmin(errors)) == shown.number
