"""What a frame's splats are expected to be from frames decoded before: integer arithmetic alone (spec §7.7).

Layers hold numbered *slots*, which keep their identity over a GOP.  An anchor (P) takes each slot from the anchor
before, carried along by the motion field; a frame between two references (B) takes their mean.  A slot *reborn* at an
anchor holds another splat from there on, with which the old one must not be mixed: its *birth* says so.

Against its prediction a slot may change in three groups, position, shape and colour, by multiples of steps that
follow from the class that the *predicted* splat has for the step D of this frame and layer.

A motion field is int16 [rows, columns, 2], x and y in half pixels, with nodes in the middle of blocks of `spacing`
full-size pixels: node (r, c) lies at ((c + 1/2) spacing, (r + 1/2) spacing).  There are as many nodes as blocks that
begin inside the frame.  It is looked up where the splat is in the reference, bilinearly; beyond the outermost nodes
it goes on evenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import coded_slots
from pgsvc_codec.coding.main.state import (
    MAX_POSITION,
    MIN_POSITION,
    POSITION_BITS,
    classes_of,
    parts_of,
    position_shifts,
    shape_shifts,
)
from pgsvc_codec.jit import kernel
from pgsvc_codec.splats import IntArray, SplatState

SPACINGS = (8, 16, 32, 64)
MAX_VECTOR = 1023  # half pixels
_HALF_PIXEL_BITS = POSITION_BITS - 1


@dataclass(frozen=True, eq=False)
class MotionField:
    """Vectors at the nodes of a grid over the frame.

    Raises:
        ValueError: spacing, dtype, shape or range do not fit.
    """

    spacing: int  # full-size pixels, one of `SPACINGS`
    vectors: NDArray[np.int16]  # [rows, columns, 2] x then y, half pixels, within ±MAX_VECTOR

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise ValueError(f"motion field: got a spacing of {self.spacing}, allowed {SPACINGS}")
        if self.vectors.dtype != np.int16 or self.vectors.ndim != 3 or self.vectors.shape[2] != 2:
            raise ValueError(
                f"motion field: got {self.vectors.dtype} {self.vectors.shape}, allowed int16 (rows, columns, 2)"
            )
        if (np.abs(self.vectors.astype(np.int32)) > MAX_VECTOR).any():
            raise ValueError(f"motion field: got {np.abs(self.vectors).max()} half pixels, allowed {MAX_VECTOR}")


class Slots(NamedTuple):
    """A layer of a decoded frame."""

    state: SplatState
    births: IntArray  # [N] display number, within the GOP, of the frame in which the slot was last coded whole

    def extended(self, future: Slots) -> Slots:
        """With the slots that `future` has beyond these, of amplitude 0: what appears there fades in."""
        added = future.state[len(self.state) :]
        dark = SplatState(added.positions, added.shapes, np.zeros_like(added.amplitudes))
        births = np.concatenate([self.births, future.births[len(self.state) :]])
        return Slots(SplatState.concatenate([self.state, dark]), births)


def births_of(predicted: Slots, reborn: NDArray[np.bool_], number: int, display: int) -> IntArray:
    """[number] births after frame `display`, of which the slots behind those predicted are new.

    Args:
        predicted: N slots.
        reborn: [N] which of them the frame codes whole.
    """
    births = np.full(number, display, np.int32)
    births[: len(reborn)] = np.where(reborn, np.int32(display), predicted.births)
    return births


class InterSymbols(NamedTuple):
    """How slots differ from their prediction."""

    deltas: IntArray  # [N, 5 + C] of position, shape and amplitude, in steps
    flags: IntArray  # [N] groups of which some are not 0: bits `coded_slots.POSITION`, `SHAPE` and `COLOR`


def flagged(deltas: IntArray) -> InterSymbols:
    """Changes [N, 5 + C] with the flags of their groups."""
    flags = np.zeros(len(deltas), np.int32)
    for flag, group in (
        (coded_slots.POSITION, deltas[:, :2]),
        (coded_slots.SHAPE, deltas[:, 2:5]),
        (coded_slots.COLOR, deltas[:, 5:]),
    ):
        flags |= np.where(group.any(axis=1), np.int32(flag), np.int32(0))
    return InterSymbols(deltas, flags)


def field_shape(width: int, height: int, spacing: int) -> tuple[int, int]:
    """Rows and columns of the nodes of a motion field over width × height full-size pixels."""
    return -(-height // spacing), -(-width // spacing)


def carried(positions: IntArray, field: MotionField) -> IntArray:
    """[N, 2] positions moved by a motion field."""
    moved = np.empty_like(positions)
    _carry(moved, positions, field.vectors, field.spacing.bit_length() - 1)
    return moved


@kernel(nogil=True, error_model="numpy")
def _carry(moved: Any, positions: Any, vectors: Any, spacing_bits: int) -> None:
    bits = spacing_bits + POSITION_BITS
    unit = np.int64(1) << bits
    shift = 2 * bits - _HALF_PIXEL_BITS
    rows, columns, _ = vectors.shape
    for n in range(len(positions)):
        x = min(max(np.int64(positions[n, 0]) - (unit >> 1), 0), (columns - 1) * unit)
        y = min(max(np.int64(positions[n, 1]) - (unit >> 1), 0), (rows - 1) * unit)
        left, top = x >> bits, y >> bits
        right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
        x, y = x & (unit - 1), y & (unit - 1)
        for axis in range(2):
            upper = np.int64(vectors[top, left, axis]) * (unit - x) + np.int64(vectors[top, right, axis]) * x
            lower = np.int64(vectors[bottom, left, axis]) * (unit - x) + np.int64(vectors[bottom, right, axis]) * x
            total = upper * (unit - y) + lower * y
            place = np.int64(positions[n, axis]) + ((total + (np.int64(1) << (shift - 1))) >> shift)
            moved[n, axis] = min(max(place, MIN_POSITION), MAX_POSITION)


def predict_inter(reference: Slots, field: MotionField | None) -> Slots:
    """What an anchor's slots are expected to be: those of the anchor before, carried by the field if there is one."""
    if field is None:
        return reference
    state = reference.state
    moved = SplatState(carried(state.positions, field), state.shapes, state.amplitudes)
    return reference._replace(state=moved)


def predict_between(past: Slots, future: Slots, *, late: bool) -> Slots:
    """What the slots of a frame between two references are expected to be: their mean, rounded down.

    Args:
        past: of the reference before, in display order.
        future: of the reference behind; it may have more slots.
        late: the frame lies nearer to the anchor behind than to the anchor before.  Slots of which the references
            hold different splats are taken from `future` then, else from `past`.
    """
    past = past.extended(future)
    same = past.births == future.births
    other = future if late else past
    means = [(a + b) >> 1 for a, b in zip(parts_of(past.state), parts_of(future.state), strict=True)]
    alone = np.flatnonzero(~same)
    for mean, part in zip(means, parts_of(other.state), strict=True):
        mean[alone] = part[alone]
    return Slots(SplatState(*means), other.births)


def inter_shifts(predicted: SplatState, step: int) -> tuple[IntArray, IntArray]:
    """log2 of the steps of positions [N, 2] and of shapes [N]; the step of amplitudes is D itself.

    Args:
        predicted: the slots' prediction.
        step: D of this frame and layer.
    """
    classes = classes_of(predicted.amplitudes, step)
    return position_shifts(predicted.shapes, classes), shape_shifts(classes)


def changes(
    predicted: SplatState, state: SplatState, step: int, still: NDArray[np.bool_] | None = None
) -> InterSymbols:
    """The symbols that make a state of its prediction, those of least magnitude.

    Args:
        predicted: [N] slots.
        state: [N] likewise.
        step: D of this frame and layer.
        still: [N] slots that are taken to be as predicted, whatever they are.  None: none.

    Raises:
        ValueError: there are none: a slot does not lie a whole number of steps from its prediction.
    """
    symbols = InterSymbols(np.empty((len(state), 5 + state.channels), np.int32), np.empty(len(state), np.int32))
    still = np.zeros(len(state), np.bool_) if still is None else still
    if coded_slots.find_changes(parts_of(predicted), parts_of(state), still, step, *symbols):
        raise ValueError(f"slots: not all lie a whole number of steps from their prediction, step {step}")
    return symbols
