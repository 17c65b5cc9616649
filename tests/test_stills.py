"""Pictures encoded side by side come out as one by one."""

from __future__ import annotations

import io

import pytest
from codec_clips import Clip, stream_of

from pgsvc_codec import Decoder, EncodeConfig, encode_stills
from pgsvc_codec.errors import ConfigError, InputError


def still(pix_fmt="rgb24", size=(40, 32), frames=1):
    clip = Clip(pix_fmt, size, frames)
    clip.still = True
    return clip


def streams_of(sources, config):
    sinks = [io.BytesIO() for _ in sources]
    reports = encode_stills(sources, sinks, config)
    return [sink.getvalue() for sink in sinks], reports


@pytest.mark.parametrize("profile", ["main", "baseline"])
def test_streams_are_those_of_each_picture_alone(profile):
    config = EncodeConfig(profile=profile, layers=2, splats=40, iterations=20, device="cpu")
    sources = [still(), still("yuv420p", (52, 30)), still(size=(24, 36))]
    together, reports = streams_of(sources, config)
    for data, report, source in zip(together, reports, sources, strict=True):
        alone, own = stream_of(source, config)
        assert data == alone
        assert report.levels == own.levels


def test_cuda_has_pictures_of_all_sizes_in_one_batch():
    config = EncodeConfig(layers=2, quality=10.0, iterations=3, device="cuda")
    sources = [still(size=(24, 16)), still(size=(16, 20))]
    streams, reports = streams_of(sources, config)
    for data, report, source in zip(streams, reports, sources, strict=True):
        with Decoder(data, device="cpu") as decoder:
            [frame] = decoder.frames()
        assert [plane.shape for plane in frame.planes] == [plane.shape for plane in source.frame(0)]
        assert report.size_bytes == len(data)
        assert report.levels[-1].psnr > 10


def test_sources_of_no_picture_or_several_are_told():
    config = EncodeConfig(splats=20, iterations=1, device="cpu")
    with pytest.raises(InputError, match="source 1: got more than one, allowed 1 frame"):
        streams_of([still(), still(frames=2)], config)
    with pytest.raises(InputError, match="source 0: got no frame, allowed 1 frame"):
        streams_of([still(frames=0)], config)
    with pytest.raises(ConfigError, match="sinks: got 0, allowed 1, one per source"):
        encode_stills([still()], [], config)
