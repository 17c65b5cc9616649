"""Encoder and decoder together, through the library: closed loop, any planes, any part of a stream."""

from __future__ import annotations

import gc
import io
import threading
from functools import partial

import numpy as np
import pytest
from codec_clips import Clip, assert_same_frames, at_size, decibels_of, meter_of, stream_of, streams_by_threads
from level_sizes import with_level_sizes

from pgsvc_codec import Decoder, EncodeConfig, encode_monolithic
from pgsvc_codec.coding.gop import GopDecoder, decode_gop
from pgsvc_codec.config import STRATEGIES
from pgsvc_codec.errors import BackendError, ConfigError, InputError
from pgsvc_codec.metrics.psnr import PsnrMeter
from pgsvc_codec.picture import plane_grids, to_rgb
from pgsvc_codec.render.backend import load
from pgsvc_codec.render.frames import FramePainter
from pgsvc_codec.video import PIX_FMTS, Range

pytestmark = pytest.mark.usefixtures("one_thread")

baseline = partial(EncodeConfig, profile="baseline")
QUICK = baseline(splats=90, iterations=60, keyint=4, scenecut=0)


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_every_kind_of_planes_comes_back_as_the_encoder_says(pix_fmt):
    clip = Clip(pix_fmt)
    # a starved fit may end with a top layer that its quantisers spoil
    data, report = stream_of(clip, baseline(splats=120, iterations=150, keyint=4, scenecut=0))
    assert report.size_bytes == len(data)
    for level in report.levels:
        meter = meter_of(clip, data, level.layers)
        assert meter.combined == level.psnr, "the encoder measures what the decoder shows"
        assert meter.planes == level.psnr_planes
    assert [level.psnr for level in report.levels] == sorted(level.psnr for level in report.levels)
    assert report.levels[2].psnr > 22
    with Decoder(data) as decoder:
        assert decoder.info == clip.info


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (33, 17)])
def test_odd_sizes(size):
    clip = Clip(size=size, frames=2)
    data, report = stream_of(clip, baseline(splats=9, iterations=20))
    assert meter_of(clip, data, 3).combined == report.levels[2].psnr


@pytest.mark.parametrize("layers", [1, 2, 8])
def test_any_number_of_layers(layers):
    clip = Clip(frames=2)
    data, report = stream_of(clip, baseline(splats=96, iterations=60, layers=layers))
    assert [level.layers for level in report.levels] == list(range(1, layers + 1))
    assert meter_of(clip, data, layers).combined == report.levels[-1].psnr


def test_the_cycle_of_the_paper_trains_too():
    _, report = stream_of(Clip("rgb24"), baseline(splats=90, iterations=60, level_schedule="cyclic"))
    assert report.levels[0].psnr < report.levels[2].psnr > 22


@pytest.mark.parametrize("scalability", ["quality", "resolution"])
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "monolithic"])
@pytest.mark.parametrize("preset", ["medium", "paper"])
def test_every_way_of_training_closes_the_loop(scalability, strategy, preset):
    clip = Clip(frames=3)
    config = baseline(
        splats=60, iterations=12, preset=preset, strategy=strategy, scalability=scalability, scenecut=0, keyint=4
    )
    data, report = stream_of(clip, config)
    assert report.size_bytes == len(data)
    assert (report.gops, report.frames) == (1, 3)
    sizes = {"quality": [(52, 40)] * 3, "resolution": [(30, 24), (42, 32), (52, 40)]}[scalability]
    with Decoder(data) as decoder:
        assert [decoder.level_size(layers) for layers in (1, 2, 3)] == sizes
        assert [level.splats for level in decoder.reader.header.layers.levels] == [20, 40, 60]
    for level in report.levels:
        meter = meter_of(clip, data, level.layers)
        assert meter.combined == level.psnr, "the encoder measures what the decoder shows"
        assert meter.planes == level.psnr_planes


def test_levels_of_resolution_scalability_are_trained_at_their_size():
    """The base is a good small picture, and better at its size than a base that was trained for the full one."""
    clip = Clip(frames=1)
    options = {"splats": 150, "iterations": 200}
    growing, report = stream_of(clip, baseline(scalability="resolution", **options))
    level_sizes = [tuple(sides) for sides in report.plan.level_sizes]
    assert level_sizes == [(30, 24), (42, 32), (52, 40)]
    other = with_level_sizes(stream_of(clip, baseline(strategy="pruning", **options))[0], level_sizes)
    assert meter_of(clip, growing, 1).combined > meter_of(clip, other, 1).combined + 2
    assert all(level.psnr > 25 for level in report.levels)


@pytest.mark.parametrize("scalability", ["quality", "resolution"])
def test_monolithic_levels_are_streams_of_their_own(scalability):
    clip = Clip(frames=2)
    config = baseline(
        splats=90, iterations=40, strategy="monolithic", scalability=scalability, layer_split=(1, 2, 3), keyint=4
    )
    sinks = [io.BytesIO() for _ in range(3)]
    reports = encode_monolithic(clip, sinks, config)
    sizes = {"quality": [(52, 40)] * 3, "resolution": [(22, 16), (36, 28), (52, 40)]}[scalability]
    for sink, report, size, splats in zip(sinks, reports, sizes, (15, 45, 90), strict=True):
        data = sink.getvalue()
        assert (report.size_bytes, report.frames) == (len(data), 2)
        assert [level.splats for level in report.levels] == [2 * splats]
        with Decoder(data) as decoder:
            assert (decoder.info.width, decoder.info.height) == size
            meter = PsnrMeter(255, is_rgb=False)
            for source, shown in zip(clip, decoder.frames(), strict=True):
                meter.add(at_size(source, clip.info, size), shown.planes)
        assert meter.combined == report.levels[0].psnr
    if scalability == "quality":
        own = stream_of(clip, baseline(splats=45, layers=1, iterations=40, strategy="monolithic", keyint=4))[0]
        assert sinks[1].getvalue() == own


def test_a_monolithic_stream_has_one_layer():
    with pytest.raises(ConfigError, match="layers: got 3, allowed 1 in a stream of strategy monolithic"):
        stream_of(Clip(), baseline(strategy="monolithic"))


def test_p_frames_hold_their_quality():
    clip = Clip(frames=8)
    data, _ = stream_of(clip, baseline(splats=150, iterations=300, keyint=8))
    decibels = decibels_of(clip, data)
    assert decibels[-1] > decibels[0] - 1


def test_a_scene_cut_opens_a_gop():
    data, report = stream_of(Clip(frames=7, cut=4), baseline(splats=60, iterations=20, keyint=16))
    with Decoder(data) as decoder:
        assert [(gop.first_frame, gop.scene_cut) for gop in decoder.reader.gops] == [(0, False), (4, True)]
    assert report.gops == 2


def test_a_cut_that_may_not_open_a_gop_costs_little_quality():
    clip = Clip(frames=4, cut=2)
    with_cut, without = (
        stream_of(clip, baseline(splats=90, iterations=60, min_keyint=1, scenecut=scenecut))[1] for scenecut in (40, 0)
    )
    assert (with_cut.gops, without.gops) == (2, 1)
    assert without.levels[2].psnr > with_cut.levels[2].psnr - 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    clip = Clip()
    first, second = stream_of(clip, QUICK)[0], stream_of(clip, QUICK)[0]
    other = stream_of(clip, baseline(splats=90, iterations=60, keyint=4, scenecut=0, seed=1))[0]
    assert first == second != other


@pytest.mark.parametrize("preset", ["ultrafast", "paper"])
@pytest.mark.parametrize("scalability", ["quality", "resolution"])
def test_one_thread_gives_the_bytes_of_two(preset, scalability):
    clip = Clip(frames=2)
    config = baseline(splats=90, iterations=20, preset=preset, scalability=scalability, keyint=4, min_keyint=2)
    one, two = streams_by_threads(clip, config)
    assert one == two


def test_streamed_and_indexed_outputs_hold_the_same_frames():
    clip = Clip(frames=6)
    assert_same_frames(stream_of(clip, QUICK)[0], stream_of(clip, QUICK, seekable=False)[0])


@pytest.fixture(scope="module")
def six_frames():
    return stream_of(Clip(frames=6), QUICK)[0]


def test_a_range_of_frames_is_the_same_frames(six_frames):
    with Decoder(six_frames) as decoder:
        whole = list(decoder.frames())
        part = list(decoder.frames(start=3, stop=5))
        assert [frame.number for frame in part] == [3, 4]
        for frame in part:
            assert np.array_equal(frame.planes[0], whole[frame.number].planes[0])
        assert list(decoder.frames(start=6)) == []


def test_gops_outside_the_range_are_not_read(six_frames):
    with Decoder(six_frames) as decoder:
        first = decoder.reader.gops[0].segments[0]
        damaged = bytearray(six_frames)
        damaged[first.offset + 40] ^= 1
    with Decoder(bytes(damaged)) as decoder:
        assert [frame.number for frame in decoder.frames(start=4)] == [4, 5]
        assert decoder.warnings == []
        assert [frame.number for frame in decoder.frames()] == [4, 5], "the first GOP has lost its base"
        assert len(decoder.warnings) == 1
        assert "GOP 0 is left out" in decoder.warnings[0]


def test_a_stream_that_ends_early_gives_what_is_whole(six_frames):
    with Decoder(six_frames) as decoder:
        entry = decoder.reader.gops[1].segments[1]
        exact = [frame.planes for frame in decoder.frames(layers=1)]
    with Decoder(six_frames[: entry.offset + 3]) as decoder:
        frames = list(decoder.frames())
        assert [frame.layers for frame in frames] == [3, 3, 3, 3, 1, 1]
        assert np.array_equal(frames[5].planes[0], exact[5][0])
        assert decoder.warnings == ["truncated: GOP 1 has 1 of 3 layers"]


def splat_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pgsvc-splats")]


def test_splats_are_decoded_while_a_frame_is_painted(six_frames, monkeypatch):
    decoded, is_ahead = [], threading.Event()

    def decode_and_tell(*arguments):
        decoded.append(threading.current_thread())
        if len(decoded) == 9:
            is_ahead.set()
        return decode(*arguments)

    def paint_when_others_are_decoded(*arguments):
        assert is_ahead.wait(30), "no frame was decoded while the first was painted"
        return paint(*arguments)

    decode, paint = GopDecoder.decode, FramePainter.paint
    monkeypatch.setattr(GopDecoder, "decode", decode_and_tell)
    monkeypatch.setattr(FramePainter, "paint", paint_when_others_are_decoded)
    with Decoder(six_frames) as decoder:
        frames = decoder.frames()
        assert next(frames).number == 0
        assert threading.main_thread() not in decoded
        frames.close()


def test_the_thread_ends_with_the_iterator(six_frames, monkeypatch):
    with Decoder(six_frames) as decoder:
        list(decoder.frames())
        assert splat_threads() == []
        frames = decoder.frames()
        assert splat_threads() == [], "none before the first frame"
        next(frames)
        assert len(splat_threads()) == 1
        frames.close()
        assert splat_threads() == []

        def fail(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(FramePainter, "paint", fail)
        with pytest.raises(KeyboardInterrupt):
            next(decoder.frames())
        assert splat_threads() == []


def test_what_is_lost_is_told_with_the_first_frame_that_lacks_it(six_frames):
    with Decoder(six_frames) as decoder:
        damaged = bytearray(six_frames)
        damaged[decoder.reader.gops[1].segments[2].offset + 40] ^= 1
    with Decoder(bytes(damaged)) as decoder:
        told = [(frame.layers, len(decoder.warnings)) for frame in decoder.frames()]
        assert told == [(3, 0)] * 4 + [(2, 1)] * 2
        assert "GOP 1 is decoded from 2 of its layers" in decoder.warnings[0]


def test_iterators_of_one_decoder_do_not_disturb_each_other(six_frames, tmp_path):
    path = tmp_path / "six.pgs"
    path.write_bytes(six_frames)
    with Decoder(path) as decoder:
        alone = [list(decoder.frames(layers=level)) for level in (1, 3)]
        together = zip(decoder.frames(layers=1), decoder.frames(layers=3), strict=True)
        for number, pair in enumerate(together):
            for frame, frames in zip(pair, alone, strict=True):
                assert np.array_equal(frame.planes[0], frames[number].planes[0])


def test_decoding_leaves_no_reference_cycles(six_frames):
    """Any cycle of its own would come with every frame; others' threads may leave one now and then."""
    left = []
    with Decoder(six_frames) as decoder:
        list(decoder.frames())
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                list(decoder.frames())
                left.append(gc.collect())
        finally:
            gc.enable()
    assert min(left) == 0


@pytest.mark.parametrize("size", [(26, 20), (104, 80), (31, 57), (1, 1)])
def test_any_output_size(six_frames, size):
    with Decoder(six_frames) as decoder:
        frame = next(decoder.frames(size=size))
        assert tuple(plane.shape for plane in frame.planes) == decoder.output_info(size).plane_shapes
        native = next(decoder.frames())
        for plane, other in zip(frame.planes, native.planes, strict=True):
            assert abs(plane.mean() - other.mean()) < 12, "the same picture, coarser or finer"


def test_a_smaller_output_is_the_average_of_the_picture(six_frames):
    """Fine splats count by their area, not by whether a sample happens to hit them."""
    with Decoder(six_frames) as decoder:
        native = next(decoder.frames()).planes[0].astype(float)
        quarter = next(decoder.frames(size=(13, 10))).planes[0].astype(float)
    assert np.abs(quarter - native.reshape(10, 4, 13, 4).mean(axis=(1, 3))).mean() < 3


def test_twice_the_size_and_back_is_the_same_picture(six_frames):
    with Decoder(six_frames) as decoder:
        double = next(decoder.frames(size=(104, 80))).planes[0].astype(float)
        native = next(decoder.frames()).planes[0].astype(float)
    halved = double.reshape(40, 2, 52, 2).mean(axis=(1, 3))
    assert np.abs(halved - native).mean() < 2


def test_colours_are_converted_as_pixels_would_be(six_frames):
    with Decoder(six_frames) as decoder:
        rgb = np.stack(next(decoder.frames(pix_fmt="rgb24")).planes, axis=2).astype(int)
        native = to_rgb(next(decoder.frames(pix_fmt="yuv444p")).planes, decoder.output_info(None, "yuv444p"))
    assert np.abs(rgb - native).max() <= 3, "rounding of three planes"


LEVEL_SIZES = [(26, 20), (40, 30), (52, 40)]


@pytest.fixture(scope="module")
def growing(six_frames):
    """The same splats, in levels that grow."""
    return with_level_sizes(six_frames, LEVEL_SIZES)


def test_levels_are_shown_at_their_native_size(growing):
    with Decoder(growing) as decoder:
        assert [decoder.level_size(layers) for layers in (1, 2, 3, None)] == [*LEVEL_SIZES, LEVEL_SIZES[-1]]
        for layers, (width, height) in enumerate(LEVEL_SIZES, start=1):
            output = decoder.output_info(layers=layers)
            assert (output.width, output.height, output.pix_fmt) == (width, height, "yuv420p")
            shown = next(decoder.frames(layers=layers)).planes
            named = next(decoder.frames(layers=layers, size=(width, height))).planes
            assert tuple(plane.shape for plane in shown) == output.plane_shapes
            assert all(np.array_equal(a, b) for a, b in zip(shown, named, strict=True))
        rgb = decoder.output_info(pix_fmt="rgb24", layers=1)
        assert (rgb.width, rgb.height, rgb.range) == (26, 20, Range.FULL)
        assert next(decoder.frames(layers=1, pix_fmt="rgb24")).planes[2].shape == (20, 26)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_decoder_shows_what_was_fitted_to_a_level(growing, layers):
    """At its native size a level is the plain sum, on grids that know nothing of levels."""
    rasterizer = load("cpu")
    with Decoder(growing) as decoder:
        grids = plane_grids(decoder.info, *decoder.level_size(layers))
        painter = FramePainter(rasterizer, (decoder.info.width, decoder.info.height), grids, decoder.info.max_code)
        payloads = [decoder.reader.read_segment(0, layer) for layer in range(layers)]
        splats, background = next(decode_gop(payloads, decoder.reader.header, pytest.fail))
        (expected,) = painter.paint(splats, background, [layers])
        for plane, other in zip(next(decoder.frames(layers=layers)).planes, expected, strict=True):
            np.testing.assert_array_equal(plane, other)


def test_the_size_of_levels_changes_nothing_where_samples_are_dense(six_frames, growing):
    with Decoder(six_frames) as one, Decoder(growing) as other:
        for layers in (1, 2, 3):
            for size in ((52, 40), (60, 71)):
                full, enlarged = (next(decoder.frames(layers=layers, size=size)).planes for decoder in (one, other))
                assert all(np.array_equal(a, b) for a, b in zip(full, enlarged, strict=True))
        averaged = next(one.frames(layers=1, size=(26, 20))).planes
        native = next(other.frames(layers=1)).planes
        assert any(not np.array_equal(a, b) for a, b in zip(averaged, native, strict=True))


def test_a_gap_keeps_the_size_of_the_level_asked_for(growing):
    with Decoder(growing) as decoder:
        entry = decoder.reader.gops[1].segments[1]
    with Decoder(growing[: entry.offset + 3]) as decoder:
        frames = list(decoder.frames())
        assert [frame.layers for frame in frames] == [3, 3, 3, 3, 1, 1]
        assert {frame.planes[0].shape for frame in frames} == {(40, 52)}
        assert {frame.planes[0].shape for frame in decoder.frames(layers=2)} == {(30, 40)}


@pytest.mark.parametrize("layers", [0, 4])
def test_levels_that_are_not_there_have_no_size(growing, layers):
    with Decoder(growing) as decoder:
        for ask in (decoder.level_size, lambda layers: decoder.output_info((3, 3), "gray", layers=layers)):
            with pytest.raises(ConfigError, match=rf"layers: got {layers}, allowed 1\.\.3"):
                ask(layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, r"layers: got 0, allowed 1\.\.3"),
        ({"layers": 4}, r"layers: got 4, allowed 1\.\.3"),
        ({"start": 7}, r"start: got frame 7, allowed 0\.\.6"),
        ({"size": (0, 5)}, "width"),
        ({"pix_fmt": "nv12"}, "nv12"),
    ],
)
def test_arguments_out_of_range(six_frames, arguments, message):
    with Decoder(six_frames) as decoder, pytest.raises(ConfigError, match=message):
        decoder.frames(**arguments)


def test_a_frame_of_another_size_is_refused():
    class Changing(Clip):
        def frame(self, number):
            return super().frame(number) if number < 1 else tuple(plane[:-1] for plane in super().frame(number))

    with pytest.raises(InputError):
        stream_of(Changing(), QUICK)


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigError, match="device: got abacus, allowed auto, cpu, cuda, cuda:N"):
        stream_of(Clip(), baseline(device="abacus"))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(BackendError, match="device cuda:99: "):
        stream_of(Clip(), baseline(device="cuda:99"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.pgs: cannot be read"):
        Decoder(tmp_path / "none.pgs")


def test_progress_counts_frames():
    seen = []
    _, report = stream_of(Clip(frames=3), QUICK, progress=seen.append)
    assert [(step.frames, step.frame_count) for step in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1].psnr == report.levels[-1].psnr
    assert 0 < seen[0].size_bytes < seen[2].size_bytes < report.size_bytes
