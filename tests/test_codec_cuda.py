"""Frames of the CUDA rasteriser out of a decoder beside those of the CPU's: any stream, any output, in batches."""

from __future__ import annotations

import numpy as np
import pytest
from codec_clips import Clip, stream_of

from pgsvc_codec import Decoder, EncodeConfig
from pgsvc_codec.render.cuda import frames as cuda_frames
from pgsvc_codec.render.cuda.device import Mark

pytestmark = pytest.mark.usefixtures("one_thread", "cuda_device")

# The interpreter takes milliseconds for each splat.
CLIPS = {
    "baseline": (Clip(size=(26, 20), frames=5), EncodeConfig(profile="baseline", splats=12, iterations=20, keyint=3)),
    "main": (Clip(size=(26, 20), frames=7), EncodeConfig(profile="main", quality=55, iterations=20, keyint=5)),
}


@pytest.fixture(scope="module", params=CLIPS)
def stream(request):
    if request.param == "baseline":
        pytest.importorskip("constriction")
    return stream_of(*CLIPS[request.param])[0]


@pytest.fixture(scope="module")
def main_stream():
    return stream_of(*CLIPS["main"])[0]


def assert_alike(data, **options):
    """Both rasterisers show the same frames, to within one code value; returns how many, and the warnings."""
    with Decoder(data, device="cpu") as cpu, Decoder(data, device="cuda") as cuda:
        told = []
        for one, other in zip(cpu.frames(**options), cuda.frames(**options), strict=True):
            assert one[:2] == other[:2]
            for plane, same in zip(one.planes, other.planes, strict=True):
                assert (same.dtype, same.shape) == (plane.dtype, plane.shape)
                assert np.abs(same.astype(int) - plane.astype(int)).max() <= 1
            assert cpu.warnings == cuda.warnings
            told.append(len(cuda.warnings))
        return told, cuda.warnings


def test_cuda_decodes_all_frames_as_the_cpu_does(stream):
    with Decoder(stream) as decoder:
        assert assert_alike(stream) == ([0] * decoder.frame_count, [])


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "gray", "rgb24"])
def test_cuda_writes_the_planes_of_the_output(main_stream, pix_fmt):
    assert_alike(main_stream, pix_fmt=pix_fmt, stop=1)


@pytest.mark.parametrize("options", [{"size": (13, 9)}, {"layers": 1, "start": 2, "stop": 4}], ids=str)
def test_cuda_decodes_parts_of_a_stream(stream, options):
    assert_alike(stream, **options)


def test_cuda_says_what_is_lost_with_the_frame_that_lacks_it(main_stream):
    damaged = bytearray(main_stream)
    with Decoder(main_stream) as decoder:
        first, second = decoder.reader.gops
        damaged[first.segments[2].offset + 40] ^= 1
        damaged[second.segments[0].offset + 40] ^= 1
    told, warnings = assert_alike(bytes(damaged), stop=6)
    assert told == [1] * 5
    assert [line.split(":")[0] for line in warnings] == ["GOP 0 is decoded from 2 of its layers", "GOP 1 is left out"]


def test_cuda_ends_early_and_with_errors_in_their_place(main_stream, monkeypatch):
    monkeypatch.setattr(Mark, "is_done", False)  # as if the device had yet to come to it
    monkeypatch.setattr(cuda_frames, "_MOST_FRAMES", 2)
    with Decoder(main_stream, device="cuda") as decoder:
        frames = decoder.frames(layers=1)
        assert [next(frames).number for _ in range(2)] == [0, 1]
        frames.close()

        def open_gop(self, number, *arguments):
            if number:
                raise MemoryError("no room for another GOP")
            return payloads(self, number, *arguments)

        payloads = Decoder._payloads
        monkeypatch.setattr(Decoder, "_payloads", open_gop)
        shown = []
        with pytest.raises(MemoryError, match="no room for another GOP"):
            shown.extend(frame.number for frame in decoder.frames(layers=1))
        assert shown == [0, 1, 2, 3, 4]
