"""The payloads of one GOP ↔ the splats of its frames, for as many layers as there are and whatever the profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pgsvc_codec.coding.baseline import payload as baseline
from pgsvc_codec.coding.main import layer as main
from pgsvc_codec.coding.main.gop import INTRA, coding_order
from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.errors import FormatError
from pgsvc_codec.format.constants import CHROMA_RGB, MAIN
from pgsvc_codec.format.header import StreamHeader
from pgsvc_codec.splats import FloatArray, Splats

Losses = Callable[[int, FormatError], None]
"""Told of a layer whose payloads contradict themselves; it and those above are left out from there on."""


_Decoder = TypeVar("_Decoder", baseline.LayerDecoder, main.LayerDecoder)


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


def _decode_layers(
    decoders: list[_Decoder], decode: Callable[[int, _Decoder], Splats], on_loss: Losses
) -> list[Splats]:
    """One frame of all layers up to the first that cannot be decoded; its decoder and those above are dropped."""
    layers = []
    for layer, decoder in enumerate(decoders):
        try:
            layers.append(decode(layer, decoder))
        except FormatError as error:  # checksums fit, so this is how the stream was written
            on_loss(layer, error)
            del decoders[layer:]
            break
    return layers


def _decode_baseline(
    payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses
) -> Iterator[DecodedSplats]:
    decoders = [baseline.LayerDecoder(layer, header.video.channels) for layer in range(len(payloads))]
    position = 0

    def decode(layer: int, decoder: baseline.LayerDecoder) -> Splats:
        payload = payloads[layer][position]
        # the first frame of a GOP is an I
        return decoder.decode_inter(payload) if position else decoder.decode_intra(payload)

    while payloads and position < len(payloads[0]):
        layers = _decode_layers(decoders, decode, on_loss)
        if not layers:
            return
        yield DecodedSplats(layers, decoders[0].background)
        position += 1


def _decode_main(payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses) -> Iterator[DecodedSplats]:
    video = header.video
    size, opponent = (video.width, video.height), video.chroma == CHROMA_RGB
    decoders = [main.LayerDecoder(layer, video.channels, *size) for layer in range(len(payloads))]
    waiting: dict[int, DecodedSplats] = {}
    shown = 0
    order = [INTRA]  # until the I-frame has said what follows
    position = 0

    def decode(layer: int, decoder: main.LayerDecoder) -> Splats:
        payload, step = payloads[layer][position], order[position]
        if step.past is None:
            state = decoder.decode_intra(payload)
        else:
            state = decoder.decode_inter(payload, step, None if step.future is not None else decoders[0].field)
        return splats_of(state, *size, opponent=opponent)

    while position < len(order):
        display = order[position].display
        layers = _decode_layers(decoders, decode, on_loss)
        if not layers:
            return
        base = decoders[0]
        if position == 0:
            assert base.header is not None
            order = coding_order(len(payloads[0]), base.header.anchor_distance)
        waiting[display] = DecodedSplats(layers, main.background_of(base.backgrounds[display]))
        while shown in waiting:
            yield waiting.pop(shown)
            shown += 1
        position += 1
