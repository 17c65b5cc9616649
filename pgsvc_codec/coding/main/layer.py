"""The bytes of one frame of one layer ↔ splats, `main` profile (spec §7.6 to §7.9).

`LayerEncoder` and `LayerDecoder` live for one segment; both keep the decoded slots of the frames that others refer
to, and the adaptive models.  Frames come in the order of `gop.coding_order`.  A layer needs nothing of other layers but
the motion field, which the base's payload of the frame carries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import coded_slots, range_coder
from pgsvc_codec.coding.main.gop import ANCHOR_DISTANCES, INTRA, FrameStep
from pgsvc_codec.coding.main.inter import assembled, change_of, read_field, write_field
from pgsvc_codec.coding.main.intra import (
    capacity,
    cell_symbols,
    grid_shape,
    read_counted,
    read_sparse,
    step_of,
    write_whole,
)
from pgsvc_codec.coding.main.models import initial_models
from pgsvc_codec.coding.main.predict import (
    MotionField,
    Slots,
    births_of,
    field_shape,
    predict_between,
    predict_inter,
)
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.format.constants import MAX_SPLATS
from pgsvc_codec.splats import FloatArray, IntArray, SplatState

_STEP_BITS = 7
_BACKGROUND_BITS = 8
_DISTANCE_BITS = 3
_HEADER_BYTES = 256  # more than all fields before the splats
_SLOT_BYTES = 512  # of one slot's flags and deltas, at most
_VECTOR_BYTES = 128
_NEW_BACKGROUND, _MOTION, _ACTION, _NEW_STEP = range(4)  # `range_coder.code_flag`; the last two once per kind of frame


class FrameHeader(NamedTuple):
    """What the base of an I-frame says about its GOP."""

    background: tuple[int, ...]  # [C] codes 0..255, in 1/255
    anchor_distance: int = 1  # frames from one anchor to the next, one of `gop.ANCHOR_DISTANCES`


def background_of(codes: tuple[int, ...]) -> FloatArray:
    """[C] in unit values: the background that codes stand for."""
    return np.array(codes, np.float32) / np.float32(255)


class _State:
    """What both sides know between the payloads of a segment.

    Args:
        layer: index, 0 = base.
        channels: C, 1 or 3.
        width: full-size luma samples per row.
        height: full-size rows.

    Attributes:
        frames: decoded slots of the frames that later ones may refer to, by display number.
        backgrounds: in the base, codes [C] of the same frames.
    """

    def __init__(self, layer: int, channels: int, width: int, height: int) -> None:
        self.layer = layer
        self.channels = channels
        self.frames: dict[int, Slots] = {}
        self.backgrounds: dict[int, tuple[int, ...]] = {}
        self._size = width, height
        self._grid = grid_shape(width, height)
        self._models = initial_models()
        self._flags = [np.zeros(0, np.int32), np.zeros(0, np.int32)]  # of the last P and the last B payload
        self._field: MotionField | None = None  # of the last P payload that had one, in the base
        self._steps = [0, 0]  # indices of the last P and B payload that had any

    def predicted(self, step: FrameStep, field: MotionField | None) -> Slots:
        """What the slots of a P- or B-frame are expected to be.

        Args:
            step: the frame; its references have been coded.
            field: of P-frames, None where there is none and in B-frames.
        """
        assert step.past is not None
        if step.future is None:
            return predict_inter(self.frames[step.past], field)
        return predict_between(self.frames[step.past], self.frames[step.future], late=step.late)

    def background(self, step: FrameStep) -> tuple[int, ...]:
        """Codes of a P- or B-frame of the base that says nothing about its background."""
        assert step.past is not None
        past = self.backgrounds[step.past]
        if step.future is None:
            return past
        return tuple((a + b) >> 1 for a, b in zip(past, self.backgrounds[step.future], strict=True))

    def _keep(self, step: FrameStep, slots: Slots, background: tuple[int, ...], flags: IntArray | None) -> None:
        """Take over a coded frame, and let go of those that nobody refers to any more."""
        if step.future is None:
            oldest = step.display if step.past is None else step.past
            self.frames = {display: kept for display, kept in self.frames.items() if display >= oldest}
            self.backgrounds = {display: kept for display, kept in self.backgrounds.items() if display >= oldest}
        self.frames[step.display] = slots
        if self.layer == 0:
            self.backgrounds[step.display] = background
        if flags is not None:
            self._flags[_kind(step)] = flags

    def _before(self, step: FrameStep, number: int) -> tuple[IntArray, IntArray]:
        """[N] flags of the slots in the payload of this kind before, and in the last P payload."""
        ours, anchors = (flags[:number] for flags in (self._flags[_kind(step)], self._flags[0]))
        return np.pad(ours, (0, number - len(ours))), np.pad(anchors, (0, number - len(anchors)))


class LayerEncoder(_State):
    """Codes the frames of one layer of one segment, in coding order.

    Attributes:
        order: int [N], row of the input that each decoded slot of the last frame came from.
        state: the splats that the decoder has after the last payload.
    """

    def __init__(self, layer: int, channels: int, width: int, height: int) -> None:
        super().__init__(layer, channels, width, height)
        self.order: NDArray[np.intp] = np.zeros(0, np.intp)
        self.state = SplatState.empty(channels)

    def encode_intra(self, state: SplatState, step_index: int, header: FrameHeader | None = None) -> bytes:
        """The payload of an I-frame.

        Args:
            state: any order; on their lattices for the step.
            step_index: of D in `state.STEPS`.
            header: in the base only.

        Raises:
            ValueError: an argument does not fit the layer, a splat lies outside the frame or not on its lattice, or
                there are too many.
        """
        self._check(state, step_index)
        if (header is None) != (self.layer > 0):
            raise ValueError(
                f"frame header: got {header} in layer {self.layer}, allowed in layer 0, and there required"
            )
        symbols, order = cell_symbols(state, step_of(step_index), self._grid)
        coder = range_coder.writer(self._models, _HEADER_BYTES + capacity(len(state), self._grid))
        if header is not None:
            self._write_background(coder, header.background)
            if header.anchor_distance not in ANCHOR_DISTANCES:
                raise ValueError(f"anchor distance: got {header.anchor_distance}, allowed {ANCHOR_DISTANCES}")
            range_coder.code_bits(coder, _DISTANCE_BITS, ANCHOR_DISTANCES.index(header.anchor_distance))
        range_coder.code_bits(coder, 1, len(state) > 0)
        if len(state):
            range_coder.code_bits(coder, _STEP_BITS, step_index)
            write_whole(coder, symbols, step_of(step_index), self._grid, sparse=False)
        self._models = range_coder.models_of(coder)
        self.state, self.order = state[order], order
        slots = Slots(self.state, np.zeros(len(state), np.int32))
        self._keep(INTRA, slots, header.background if header else (), None)
        return range_coder.finished(coder)

    def encode_inter(
        self,
        step: FrameStep,
        targets: SplatState,
        step_index: int,
        *,
        reborn: NDArray[np.bool_] | None = None,
        field: MotionField | None = None,
        background: tuple[int, ...] | None = None,
    ) -> bytes:
        """The payload of a P- or B-frame; empty where it is as predicted.

        Args:
            step: the frame; its references have been coded.
            targets: [M] what the slots should be, as long as what is predicted or, in P-frames, longer.  A slot lies
                a whole number of its steps from its prediction (`predict.changes`); in P-frames, it may instead lose
                all its amplitude (it is dead then, and stays where it is predicted to be) or be reborn.
            step_index: of D in `state.STEPS`.
            reborn: [M] slots of P-frames with splats coded whole, on their own lattices; those beyond what is
                predicted must be.  None: none.  Reborn splats change places among themselves, see `order`.
            field: of P-frames, in every layer the same.
            background: codes [C] of P-frames, base only; None: as before.

        Raises:
            ValueError: as `encode_intra`, or targets do not fit what is predicted.
        """
        self._check(targets, step_index)
        between = step.future is not None
        if between and not (reborn is None and field is None and background is None):
            raise ValueError("B payload: got reborn slots, a motion field or a background, allowed in P payloads")
        if field is not None and field.vectors.shape[:2] != field_shape(*self._size, field.spacing):
            raise ValueError(
                f"motion field: got {field.vectors.shape[:2]} nodes, allowed {field_shape(*self._size, field.spacing)}"
            )
        predicted = self.predicted(step, field)
        if not between and reborn is None:
            reborn = np.zeros(len(targets), np.bool_)
        change = change_of(predicted.state, targets, reborn, step_of(step_index), self._grid)
        number = len(predicted.state)
        coder = range_coder.writer(
            self._models,
            _HEADER_BYTES
            + (_VECTOR_BYTES * field.vectors.size // 2 if field else 0)
            + _SLOT_BYTES * number
            + capacity(len(change.new.cells), self._grid),
        )
        codes: tuple[int, ...] = ()
        if self.layer == 0:
            codes = self.background(step)
            if not between:
                renewed = background is not None and background != codes
                range_coder.code_flag(coder, _NEW_BACKGROUND, renewed)
                if background is not None and renewed:
                    self._write_background(coder, background)
                    codes = background
                range_coder.code_flag(coder, _MOTION, field is not None)
                if field is not None:
                    write_field(coder, field, self._field)
        elif background is not None:
            raise ValueError(f"background: got one in layer {self.layer}, allowed in layer 0")
        kind = _kind(step)
        action = bool(change.flags.any()) or change.added > 0
        range_coder.code_flag(coder, _ACTION + 2 * kind, action)
        if action:
            range_coder.code_flag(coder, _NEW_STEP + 2 * kind, step_index != self._steps[kind])
            if step_index != self._steps[kind]:
                range_coder.code_bits(coder, _STEP_BITS, step_index)
            self._steps[kind] = step_index
            flags = change.flags.copy()
            coded_slots.code_slots(
                coder,
                kind,
                self._size,
                step_of(step_index),
                predicted.state.amplitudes,
                predicted.state.positions,
                *self._before(step, number),
                flags,
                change.deltas,
            )
            if not between:
                range_coder.code_number(coder, change.added)
                if len(change.new.cells):
                    write_whole(coder, change.new, step_of(step_index), self._grid, sparse=True)
        self._models = range_coder.models_of(coder)
        self._field = field or self._field
        self.state, self.order = change.state, change.order
        births = births_of(predicted, change.flags & coded_slots.REVIVED != 0, len(targets), step.display)
        self._keep(step, Slots(change.state, births), codes, change.flags)
        return range_coder.finished(coder)

    def _check(self, state: SplatState, step_index: int) -> None:
        if state.channels != self.channels:
            raise ValueError(f"splats: got {state.channels} channels, allowed {self.channels}")
        if len(state) > MAX_SPLATS:
            raise ValueError(f"splats: got {len(state)}, allowed {MAX_SPLATS}")
        step_of(step_index)

    def _write_background(self, coder: range_coder.Coder, codes: tuple[int, ...]) -> None:
        if len(codes) != self.channels or not all(0 <= code <= 255 for code in codes):
            raise ValueError(f"background: got {codes}, allowed {self.channels} codes 0..255")
        for code in codes:
            range_coder.code_bits(coder, _BACKGROUND_BITS, code)


class LayerDecoder(_State):
    """Decodes the frames of one layer of one segment, in coding order.

    The caller has checked length and CRC of the segment.  After an error the segment is lost: its later payloads
    refer to what could not be decoded.

    Attributes:
        header: of the GOP, in the base after its I payload; None elsewhere.
        field: of the last P-frame, in the base; None where it has none.
    """

    def __init__(self, layer: int, channels: int, width: int, height: int) -> None:
        super().__init__(layer, channels, width, height)
        self.header: FrameHeader | None = None
        self.field: MotionField | None = None

    def decode_intra(self, payload: bytes) -> SplatState:
        """The splats of an I-frame.

        Raises:
            CorruptError: the payload contradicts itself or a limit.
        """
        coder = range_coder.reader(self._models, payload)
        background: tuple[int, ...] = ()
        if self.layer == 0:
            background = self._read_background(coder)
            distance = range_coder.code_bits(coder, _DISTANCE_BITS, 0)
            if distance >= len(ANCHOR_DISTANCES):
                raise CorruptError(f"anchor distance: got 2^{distance}, allowed {ANCHOR_DISTANCES}")
            self.header = FrameHeader(background, ANCHOR_DISTANCES[distance])
        state = SplatState.empty(self.channels)
        if range_coder.code_bits(coder, 1, 0):
            step_index = range_coder.code_bits(coder, _STEP_BITS, 0)
            state = read_counted(coder, step_of(step_index), self._grid, self.channels)
        self._finish(coder, payload, "I")
        self._keep(INTRA, Slots(state, np.zeros(len(state), np.int32)), background, None)
        return state

    def decode_inter(self, payload: bytes, step: FrameStep, field: MotionField | None = None) -> SplatState:
        """The splats of a P- or B-frame.

        Args:
            payload: its bytes.
            step: the frame; its references have been decoded.
            field: of P-frames, in layers above the base: what the base's `field` is after this frame.

        Raises:
            CorruptError: the payload contradicts itself or a limit.
        """
        coder = range_coder.reader(self._models, payload)
        kind = _kind(step)
        background: tuple[int, ...] = ()
        if self.layer == 0:
            background = self.background(step)
            if kind == 0:
                if range_coder.code_flag(coder, _NEW_BACKGROUND, 0):
                    background = self._read_background(coder)
                field = (
                    read_field(coder, *self._size, self._field) if range_coder.code_flag(coder, _MOTION, 0) else None
                )
                self.field = field
        predicted = self.predicted(step, field)
        number = len(predicted.state)
        slots, flags = predicted, np.zeros(number, np.int32)
        if range_coder.code_flag(coder, _ACTION + 2 * kind, 0):
            if range_coder.code_flag(coder, _NEW_STEP + 2 * kind, 0):
                self._steps[kind] = range_coder.code_bits(coder, _STEP_BITS, 0)
            size = step_of(self._steps[kind])
            deltas = np.zeros((number, 5 + self.channels), np.int32)
            coded_slots.code_slots(
                coder,
                kind,
                self._size,
                size,
                predicted.state.amplitudes,
                predicted.state.positions,
                *self._before(step, number),
                flags,
                deltas,
            )
            new = SplatState.empty(self.channels)
            added = 0
            if kind == 0:
                added = range_coder.code_number(coder, 0)
                if number + added > MAX_SPLATS:
                    raise CorruptError(f"slots: got {number + added}, allowed {MAX_SPLATS}")
                whole = int(np.count_nonzero(flags & coded_slots.REVIVED)) + added
                if whole:
                    new = read_sparse(coder, whole, size, self._grid, self.channels)
            state = assembled(predicted.state, flags, deltas, new, size)
            slots = Slots(state, births_of(predicted, flags & coded_slots.REVIVED != 0, len(state), step.display))
        self._finish(coder, payload, "PB"[kind])
        self._field = field or self._field
        self._keep(step, slots, background, flags)
        return slots.state

    def _read_background(self, coder: range_coder.Coder) -> tuple[int, ...]:
        return tuple(range_coder.code_bits(coder, _BACKGROUND_BITS, 0) for _ in range(self.channels))

    def _finish(self, coder: range_coder.Coder, payload: bytes, kind: str) -> None:
        if range_coder.left_over(coder, payload):
            raise CorruptError(f"{kind} payload of layer {self.layer}: {len(payload)} bytes belong to no splats")
        self._models = range_coder.models_of(coder)


def _kind(step: FrameStep) -> int:
    """0 for P, 1 for B."""
    return int(step.future is not None)
