"""The payloads of one GOP ↔ the splats of its frames, for as many layers as there are and whatever the profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pgsvc_codec.coding.baseline import payload as baseline
from pgsvc_codec.coding.main import layer as main
from pgsvc_codec.coding.main.gop import INTRA, FrameStep, coding_order
from pgsvc_codec.coding.main.predict import MotionField
from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.errors import FormatError
from pgsvc_codec.format.constants import CHROMA_RGB, MAIN
from pgsvc_codec.format.header import StreamHeader
from pgsvc_codec.splats import FloatArray, Splats, SplatState

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
    size, opponent = (video.width, video.height), video.chroma == CHROMA_RGB
    decoders = [main.LayerDecoder(layer, video.channels, *size) for layer in range(len(payloads))]
    waiting: dict[int, DecodedSplats] = {}
    shown = 0
    order = [INTRA]  # until the I-frame has said what follows
    position = 0
    while position < len(order):
        step = order[position]
        layers = []
        for layer, decoder in enumerate(decoders):
            try:
                state = _decode_frame(decoder, payloads[layer][position], step, decoders[0].field)
            except FormatError as error:
                on_loss(layer, error)
                del decoders[layer:]
                break
            layers.append(splats_of(state, *size, opponent=opponent))
        if not layers:
            return
        base = decoders[0]
        if position == 0:
            assert base.header is not None
            order = coding_order(len(payloads[0]), base.header.anchor_distance)
        waiting[step.display] = DecodedSplats(layers, main.background_of(base.backgrounds[step.display]))
        while shown in waiting:
            yield waiting.pop(shown)
            shown += 1
        position += 1


def _decode_frame(decoder: main.LayerDecoder, payload: bytes, step: FrameStep, field: MotionField | None) -> SplatState:
    if step.past is None:
        return decoder.decode_intra(payload)
    return decoder.decode_inter(payload, step, None if step.future is not None else field)
