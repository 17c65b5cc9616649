"""The payloads of one GOP ↔ the splats of its frames, for as many layers as there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pgsvc_codec.coding.baseline.payload import LayerDecoder
from pgsvc_codec.errors import FormatError
from pgsvc_codec.splats import FloatArray, Splats


class DecodedSplats(NamedTuple):
    """One frame."""

    layers: list[Splats]  # base first
    background: FloatArray  # [C]


def decode_gop(
    payloads: Sequence[Sequence[bytes]], channels: int, on_loss: Callable[[int, FormatError], None]
) -> Iterator[DecodedSplats]:
    """The splats of each frame of a GOP, in coding order.

    Args:
        payloads: per layer, per frame; layers from the base on, all of the same number of frames.
        channels: C, 1 or 3.
        on_loss: told of a layer whose payloads contradict themselves; it and those above are left out from there
            on, and without the base there are no further frames.
    """
    decoders = [LayerDecoder(layer, channels) for layer in range(len(payloads))]
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
