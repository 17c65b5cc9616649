"""Slots of a P- or B-frame against their prediction: flags, deltas and splats coded whole (spec §7.8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import coded_slots, coded_vectors, range_coder
from pgsvc_codec.coding.main.intra import CellSymbols, cell_symbols
from pgsvc_codec.coding.main.predict import (
    MAX_VECTOR,
    SPACINGS,
    MotionField,
    changes,
    field_shape,
)
from pgsvc_codec.coding.main.state import parts_of
from pgsvc_codec.errors import CorruptError
from pgsvc_codec.splats import IntArray, SplatState

_SPACING_BITS = 2


class Change(NamedTuple):
    """What a payload says of slots."""

    flags: IntArray  # [N] of the predicted slots, bits of `coded_slots.POSITION` and so on
    deltas: IntArray  # [N, 5 + C] position, shape, amplitude
    new: CellSymbols  # splats coded whole, those of revived slots first
    added: int  # how many of them are slots behind the predicted ones
    state: SplatState  # of all slots, as decoded
    order: NDArray[np.intp]  # [slots] row of the targets that each one came from


def change_of(
    predicted: SplatState, targets: SplatState, reborn: NDArray[np.bool_] | None, step: int, grid: tuple[int, int]
) -> Change:
    """What makes the targets of the predicted slots.

    Args:
        predicted: [N] slots.
        targets: [M] slots, M >= N, the first N those predicted.  One without any amplitude is dead.
        reborn: [M] whether a slot holds a new splat, on its own lattice; true of all behind the first N.  None in
            B-frames, where M = N and slots are neither removed nor revived.
        step: D.
        grid: rows and columns of cells.

    Raises:
        ValueError: a splat does not lie on its lattice, or a new one outside the grid.
    """
    number = len(predicted)
    if len(targets) < number or (reborn is None and len(targets) > number):
        raise ValueError(f"slots: got {len(targets)} targets for {number} predicted slots")
    alive = np.any(targets.amplitudes, axis=1)
    whole: NDArray[np.bool_] = alive & reborn if reborn is not None else np.zeros_like(alive)
    if not whole[number:].all():
        raise ValueError("slots: one that is added has no amplitude, or is not said to be reborn")
    dead = ~predicted.amplitudes.any(axis=1)
    if (dead & alive[:number] & ~whole[:number]).any():
        raise ValueError("slots: one that is dead got an amplitude, but is not said to be reborn")
    removed: NDArray[np.bool_] = ~dead & (~alive[:number] | whole[:number])
    if reborn is None:
        removed = np.zeros_like(dead)
    stays = ~dead & ~removed
    deltas, flags = changes(predicted, targets[:number], step, ~stays)
    flags[removed] = coded_slots.REMOVED
    flags[whole[:number]] |= coded_slots.REVIVED

    rows = np.flatnonzero(whole)
    new, sorted_rows = cell_symbols(targets[rows], step, grid)
    order = np.arange(len(targets))
    order[rows] = rows[sorted_rows]
    state = assembled(predicted, flags, deltas, targets[rows][sorted_rows], step)
    return Change(flags, deltas, new, len(targets) - number, state, order)


def assembled(predicted: SplatState, flags: IntArray, deltas: IntArray, new: SplatState, step: int) -> SplatState:
    """The slots of a frame: new splats fill those revived, in order, and go on behind the last."""
    state = SplatState(*(part.copy() for part in parts_of(predicted)))
    coded_slots.change_slots(*parts_of(state), flags, deltas, step)
    if not len(new):
        return state
    revived = np.flatnonzero(flags & coded_slots.REVIVED)
    for ours, theirs in zip(parts_of(state), parts_of(new), strict=True):
        ours[revived] = theirs[: len(revived)]
    return SplatState.concatenate([state, new[len(revived) :]])


def write_field(coder: range_coder.Coder, field: MotionField, before: MotionField | None) -> None:
    """Append a motion field; that of the payload before helps."""
    range_coder.code_bits(coder, _SPACING_BITS, SPACINGS.index(field.spacing))
    vectors = field.vectors.astype(np.int32)
    coded_vectors.code_vectors(coder, vectors, *_known(before, field.spacing, vectors), MAX_VECTOR)


def read_field(coder: range_coder.Coder, width: int, height: int, before: MotionField | None) -> MotionField:
    """Read a motion field.

    Raises:
        CorruptError: a vector is too long.
    """
    spacing = SPACINGS[range_coder.code_bits(coder, _SPACING_BITS, 0)]
    vectors = np.zeros((*field_shape(width, height, spacing), 2), np.int32)
    if coded_vectors.code_vectors(coder, vectors, *_known(before, spacing, vectors), MAX_VECTOR):
        raise CorruptError(f"motion field: got a vector of more than {MAX_VECTOR} half pixels")
    return MotionField(spacing, vectors.astype(np.int16))


def _known(before: MotionField | None, spacing: int, vectors: IntArray) -> tuple[IntArray, bool]:
    """The vectors before where there are any of this spacing, and whether there are."""
    if before is None or before.spacing != spacing:
        return np.zeros_like(vectors), False
    return before.vectors.astype(np.int32), True
