"""The bytes of one frame of one layer ↔ splats, `main` profile (spec §7).

`LayerEncoder` and `LayerDecoder` live for one segment; both keep the decoded splats and the adaptive models.  A layer
needs nothing of other layers but what the base's payloads say about the whole frame, `FrameHeader`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import kernels
from pgsvc_codec.coding.main.intra import (
    capacity,
    cell_symbols,
    grid_shape,
    read_whole,
    step_of,
    write_whole,
)
from pgsvc_codec.coding.main.models import initial_models
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.format.constants import MAX_SPLATS
from pgsvc_codec.splats import SplatState

ANCHOR_DISTANCES = (1, 2, 4, 8, 16)

_STEP_BITS = 7
_BACKGROUND_BITS = 8
_DISTANCE_BITS = 3
_HEADER_BYTES = 64  # more than all fields before the splats


class FrameHeader(NamedTuple):
    """What the base of an I-frame says about its GOP."""

    background: tuple[int, ...]  # [C] codes 0..255, in 1/255
    anchor_distance: int = 1  # frames from one anchor to the next, one of `ANCHOR_DISTANCES`


class _State:
    """What both sides know between the payloads of a segment.

    Args:
        layer: index, 0 = base.
        channels: C, 1 or 3.
        width: full-size luma samples per row.
        height: full-size rows.
    """

    def __init__(self, layer: int, channels: int, width: int, height: int) -> None:
        self.layer = layer
        self.channels = channels
        self.decoded: SplatState | None = None  # of the last frame, None before the first
        self._grid = grid_shape(width, height)
        self._models = initial_models(layer)


class LayerEncoder(_State):
    """Codes the frames of one layer of one segment, in coding order.

    Attributes:
        decoded: the splats that the decoder has after the last payload, None before the first.
        order: int [N], row of the input that each decoded splat came from.
    """

    def __init__(self, layer: int, channels: int, width: int, height: int) -> None:
        super().__init__(layer, channels, width, height)
        self.order: NDArray[np.intp] = np.zeros(0, np.intp)

    def encode_intra(self, state: SplatState, step_index: int, header: FrameHeader | None = None) -> bytes:
        """The payload of an I-frame.

        Args:
            state: any order; on their lattices for the step.
            step_index: of D in `STEPS`.
            header: in the base only.

        Raises:
            ValueError: an argument does not fit the layer, a splat lies outside the frame or not on its lattice, or
                there are too many.
        """
        self._check(state, header)
        step = step_of(step_index)
        symbols, order = cell_symbols(state, step, self._grid)
        coder = kernels.writer(self._models, _HEADER_BYTES + capacity(symbols))
        if header is not None:
            for code in header.background:
                kernels.code_bits(coder, _BACKGROUND_BITS, code)
            kernels.code_bits(coder, _DISTANCE_BITS, ANCHOR_DISTANCES.index(header.anchor_distance))
        kernels.code_bits(coder, 1, len(state) > 0)
        if len(state):
            kernels.code_bits(coder, _STEP_BITS, step_index)
            write_whole(coder, symbols)
        self._models = kernels.models_of(coder)
        self.decoded, self.order = state[order], order
        return kernels.finished(coder)

    def _check(self, state: SplatState, header: FrameHeader | None) -> None:
        """Everything that could fail later, so that a refused frame leaves the models as they were."""
        if state.channels != self.channels:
            raise ValueError(f"splats: got {state.channels} channels, allowed {self.channels}")
        if len(state) > MAX_SPLATS:
            raise ValueError(f"splats: got {len(state)}, allowed {MAX_SPLATS}")
        if (header is None) != (self.layer > 0):
            raise ValueError(
                f"frame header: got {header} in layer {self.layer}, allowed in layer 0, and there required"
            )
        if header is not None:
            codes = header.background
            if len(codes) != self.channels or not all(0 <= code <= 255 for code in codes):
                raise ValueError(f"background: got {codes}, allowed {self.channels} codes 0..255")
            if header.anchor_distance not in ANCHOR_DISTANCES:
                raise ValueError(f"anchor distance: got {header.anchor_distance}, allowed {ANCHOR_DISTANCES}")


class LayerDecoder(_State):
    """Decodes the frames of one layer of one segment, in coding order.

    The caller has checked length and CRC of the segment.  After an error the segment is lost: its later payloads
    refer to what could not be decoded.

    Attributes:
        decoded: the splats after the last payload, None before the first.
        header: of the GOP, in the base after its I payload; None elsewhere.
        step_index: of the last payload that had splats; 0 before.
    """

    def __init__(self, layer: int, channels: int, width: int, height: int) -> None:
        super().__init__(layer, channels, width, height)
        self.header: FrameHeader | None = None
        self.step_index = 0

    def decode_intra(self, payload: bytes) -> SplatState:
        """The splats of an I-frame.

        Raises:
            CorruptError: the payload contradicts itself or a limit.
        """
        coder = kernels.reader(self._models, payload)
        if self.layer == 0:
            background = tuple(kernels.code_bits(coder, _BACKGROUND_BITS, 0) for _ in range(self.channels))
            distance = kernels.code_bits(coder, _DISTANCE_BITS, 0)
            if distance >= len(ANCHOR_DISTANCES):
                raise CorruptError(f"anchor distance: got 2^{distance}, allowed {ANCHOR_DISTANCES}")
            self.header = FrameHeader(background, ANCHOR_DISTANCES[distance])
        state = SplatState.empty(self.channels)
        if kernels.code_bits(coder, 1, 0):
            self.step_index = kernels.code_bits(coder, _STEP_BITS, 0)
            state = read_whole(coder, step_of(self.step_index), self._grid, self.channels, MAX_SPLATS)
        if kernels.left_over(coder, payload):
            raise CorruptError(f"I payload of layer {self.layer}: {len(payload)} bytes belong to no splats")
        self._models = kernels.models_of(coder)
        self.decoded = state
        return state
