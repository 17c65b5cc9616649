"""The payloads of one GOP ↔ the splats of its frames, for as many layers as there are and whatever the profile.

Layers know next to nothing of each other, so that threads may decode them at the same time; what comes out are whole
frames in display order, and a layer that is damaged takes those above with it, whoever has decoded what by then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from pgsvc_codec.coding.baseline import payload as baseline
from pgsvc_codec.coding.main import layer as main
from pgsvc_codec.coding.main.gop import INTRA, coding_order
from pgsvc_codec.coding.main.predict import MotionField
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


class _Layers(Protocol):
    """What a profile decodes a GOP with.

    Attributes:
        displays: display numbers of the frames in coding order, as far as known and wanted.
    """

    displays: list[int]

    def is_ready(self, layer: int, position: int) -> bool:
        """Whether all is there that a frame needs of others than its own layer."""

    def decode(self, layer: int, position: int) -> Splats:
        """The next frame of a layer, or FormatError."""

    def background(self, position: int) -> FloatArray:
        """[C] of a frame whose base has been decoded."""


def most_threads(header: StreamHeader) -> int | None:
    """How many threads decode layers and GOPs faster than fewer do; None: as many as there are.

    The range decoder of `baseline` holds Python's lock, and threads that wait for it slow down the one that paints.
    """
    return None if header.profile.profile == MAIN else 1


class GopDecoder:
    """The layers of a GOP, each to be decoded frame by frame in coding order.

    Args:
        payloads: per layer, per frame in coding order; layers from the base on, all of the same number of frames.
        header: of the stream.
        on_loss: see `Losses`; without the base there are no further frames.
        wanted: no more than so many of the first frames in display order are asked for; None: all.
    """

    def __init__(
        self, payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses, wanted: int | None = None
    ) -> None:
        self.num_layers = len(payloads)
        self._on_loss = on_loss
        make = _MainLayers if header.profile.profile == MAIN else _BaselineLayers
        self._layers: _Layers = make(payloads, header, sys.maxsize if wanted is None else wanted)

    def is_ready(self, layer: int, position: int) -> bool:
        """Whether a frame is wanted and, if its layer has come so far, can be decoded."""
        return position < len(self._layers.displays) and self._layers.is_ready(layer, position)

    def decode(self, layer: int, position: int) -> Splats:
        """The next frame of a layer, which is ready; of each layer by one thread at a time.

        Args:
            layer: index, 0 = base.
            position: of the frame in coding order, one more each time.

        Raises:
            FormatError: the payload contradicts itself or a limit; the layer is lost from there on.
        """
        return self._layers.decode(layer, position)

    def frames(self, decoded: Callable[[int, int], Splats]) -> Iterator[DecodedSplats]:
        """The frames in display order.

        Args:
            decoded: what `decode` returns or raises for a layer and a position; asked for in coding order, base first.
        """
        waiting: dict[int, DecodedSplats] = {}
        shown, position, num_layers = 0, 0, self.num_layers
        while position < len(self._layers.displays):  # which the I-frame of the base adds to
            layers: list[Splats] = []
            for layer in range(num_layers):
                try:
                    layers.append(decoded(layer, position))
                except FormatError as error:  # checksums fit, so this is how the stream was written
                    self._on_loss(layer, error)
                    num_layers = layer
                    break
            if not layers:
                return
            waiting[self._layers.displays[position]] = DecodedSplats(layers, self._layers.background(position))
            while shown in waiting:
                yield waiting.pop(shown)
                shown += 1
            position += 1


def decode_gop(payloads: Sequence[Sequence[bytes]], header: StreamHeader, on_loss: Losses) -> Iterator[DecodedSplats]:
    """The splats of each frame of a GOP, in display order; see `GopDecoder`, whose arguments these are."""
    gop = GopDecoder(payloads, header, on_loss)
    return gop.frames(gop.decode)


class _BaselineLayers:
    """Every frame refers to the one before it, in its own layer."""

    def __init__(self, payloads: Sequence[Sequence[bytes]], header: StreamHeader, wanted: int) -> None:
        self.displays = list(range(min(len(payloads[0]), wanted) if payloads else 0))
        self._payloads = payloads
        self._decoders = [baseline.LayerDecoder(layer, header.video.channels) for layer in range(len(payloads))]
        self._backgrounds: list[FloatArray] = []

    def is_ready(self, layer: int, position: int) -> bool:
        return True

    def decode(self, layer: int, position: int) -> Splats:
        decoder, payload = self._decoders[layer], self._payloads[layer][position]
        # the first frame of a GOP is an I
        splats = decoder.decode_inter(payload) if position else decoder.decode_intra(payload)
        if layer == 0:
            self._backgrounds.append(decoder.background)
        return splats

    def background(self, position: int) -> FloatArray:
        return self._backgrounds[position]


class _MainLayers:
    """Layers above the base need of it the order of the frames and, in P-frames, the motion field."""

    def __init__(self, payloads: Sequence[Sequence[bytes]], header: StreamHeader, wanted: int) -> None:
        video = header.video
        self._payloads = payloads
        self._wanted = wanted
        self._size = video.width, video.height
        self._opponent = video.chroma == CHROMA_RGB
        self._decoders = [main.LayerDecoder(layer, video.channels, *self._size) for layer in range(len(payloads))]
        self._steps = [INTRA] if payloads else []  # until the I-frame of the base has said what follows
        self.displays = [step.display for step in self._steps]
        self._fields: list[MotionField | None] = []  # by position; none in frames that are not P
        self._backgrounds: list[FloatArray] = []

    def is_ready(self, layer: int, position: int) -> bool:
        return layer == 0 or position == 0 or position < len(self._fields)

    def decode(self, layer: int, position: int) -> Splats:
        decoder, payload, step = self._decoders[layer], self._payloads[layer][position], self._steps[position]
        if step.past is None:
            state = decoder.decode_intra(payload)
        else:
            state = decoder.decode_inter(payload, step, self._fields[position] if layer else None)
        if layer == 0:
            self._take_from_base(decoder, position)
        return splats_of(state, *self._size, opponent=self._opponent)

    def _take_from_base(self, base: main.LayerDecoder, position: int) -> None:
        """Keep what the frame that the base has just decoded says to all layers."""
        step = self._steps[position]
        self._backgrounds.append(main.background_of(base.backgrounds[step.display]))
        if position == 0:
            assert base.header is not None
            steps = coding_order(len(self._payloads[0]), base.header.anchor_distance)
            needed = max(place for place, step in enumerate(steps) if step.display < self._wanted) + 1
            self._steps = steps[:needed]
            self.displays = [step.display for step in self._steps]
        self._fields.append(base.field if step.future is None else None)

    def background(self, position: int) -> FloatArray:
        return self._backgrounds[position]
