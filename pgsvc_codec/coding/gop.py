"""The payloads of one GOP ↔ the splats of its frames, for as many layers as there are and whatever the profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pgsvc_codec.coding.baseline import payload as baseline
from pgsvc_codec.coding.main import layer as main
from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.errors import FormatError
from pgsvc_codec.format.constants import CHROMA_RGB, MAIN
from pgsvc_codec.format.header import StreamHeader
from pgsvc_codec.splats import FloatArray, Splats

Losses = Callable[[int, FormatError], None]
"""Told of a layer whose payloads contradict themselves; it and those above are left out from there on."""


class DecodedSplats(NamedTuple):
    """One frame."""

    layers: list[Splats]  # base first
    background: FloatArray  # [C]


def decode_gop(payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses) -> Iterator[DecodedSplats]:
    """The splats of each frame of a GOP, in display order.

    Args:
        payloads: per layer, per frame in coding order; layers from the base on, all of the same number of frames.
        header: of the stream.
        on_loss: see `Losses`; without the base there are no further frames.
    """
    decode = _decode_main if header.profile.profile == MAIN else _decode_baseline
    return decode(payloads, header, on_loss)


def _decode_baseline(
    payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses
) -> Iterator[DecodedSplats]:
    decoders = [baseline.LayerDecoder(layer, header.video.channels) for layer in range(len(payloads))]
    for position in range(len(payloads[0]) if payloads else 0):
        layers = []
        for layer, decoder in enumerate(decoders):
            decode = decoder.decode_inter if position else decoder.decode_intra  # the first frame of a GOP is an I
            try:
                layers.append(decode(payloads[layer][position]))
            except FormatError as error:  # checksums fit, so this is how the stream was written
                on_loss(layer, error)
                del decoders[layer:]
                break
        if not layers:
            return
        yield DecodedSplats(layers, decoders[0].background)


def _decode_main(payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses) -> Iterator[DecodedSplats]:
    video = header.video
    opponent = video.chroma == CHROMA_RGB
    decoders = [main.LayerDecoder(layer, video.channels, video.width, video.height) for layer in range(len(payloads))]
    layers = []
    for layer, decoder in enumerate(decoders):
        try:
            state = decoder.decode_intra(payloads[layer][0])
        except FormatError as error:
            on_loss(layer, error)
            break
        layers.append(splats_of(state, video.width, video.height, opponent=opponent))
    if layers:
        assert decoders[0].header is not None
        yield DecodedSplats(layers, np.array(decoders[0].header.background, np.float32) / np.float32(255))
