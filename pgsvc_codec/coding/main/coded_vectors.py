"""Motion fields in the terms of the coder (spec §7.8, numba)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pgsvc_codec.coding.main.coded_splats import (
    sign_of,
    signed_level,
)
from pgsvc_codec.coding.main.contexts import (
    LENGTHS,
    SHIFTS,
    SIGNED_LEVELS,
    SPREADS,
    VECTOR_DIGITS,
    VECTOR_MIX,
    VECTOR_SIGN_MIX,
    VECTOR_SIGNS,
    VECTORS_RESIDUAL,
    VECTORS_SHIFT,
    VECTORS_SPREAD,
)
from pgsvc_codec.coding.main.range_coder import (
    code_mixed,
    code_mixed_magnitude,
    compiled,
    digits_of,
)


@compiled
def _median(a: Any, b: Any, c: Any) -> Any:
    return max(min(a, b), min(max(a, b), c))


@compiled
def code_vectors(coder: Any, vectors: Any, before: Any, known: Any, most: Any) -> Any:
    """Vectors [rows, columns, 2]; returns 0, or -1 where a component exceeds `most`.

    Args:
        coder: of the payload.
        vectors: int32.
        before: int32, those of the field before.
        known: whether there is one of the same spacing.
        most: greatest magnitude.
    """
    rows, columns, _ = vectors.shape
    residuals = np.zeros((rows + 1, columns + 1, 2), np.int64)
    for row in range(rows):
        for column in range(columns):
            across: Any = np.int64(0)  # of this vector's x, once that is known
            for axis in range(2):
                left = up = corner = np.int64(0)
                if column:
                    left = np.int64(vectors[row, column - 1, axis])
                if row:
                    up = np.int64(vectors[row - 1, column, axis])
                    corner = np.int64(vectors[row - 1, min(column + 1, columns - 1), axis])
                    if not column:
                        left = up
                else:
                    up = corner = left
                expected = _median(left, up, corner)
                west, north = residuals[row + 1, column, axis], residuals[row, column + 1, axis]
                shift = np.int64(before[row, column, axis]) - expected
                spread: Any = min(digits_of(abs(left - up)), SPREADS - 1)
                turn: Any = np.int64(SHIFTS - 1)
                bend: Any = np.int64(SIGNED_LEVELS)
                if known:
                    turn = min(digits_of(abs(shift)), SHIFTS - 2)
                    bend = signed_level(shift, 1, 2, 4)
                rest: Any = 5 * min(digits_of(abs(west) + abs(north)), 4)
                rest += min(digits_of(abs(across)), 3) if axis else 4
                residual = np.int64(vectors[row, column, axis]) - expected
                size = code_mixed_magnitude(
                    coder,
                    np.int64(VECTOR_MIX),
                    VECTORS_SPREAD + (axis * SPREADS + spread) * LENGTHS,
                    VECTORS_SHIFT + (axis * SHIFTS + turn) * LENGTHS,
                    VECTORS_RESIDUAL + rest * LENGTHS,
                    np.int64(VECTOR_DIGITS),
                    np.int64(0),
                    abs(residual),
                )
                if size:
                    negative = code_mixed(
                        coder,
                        np.int64(VECTOR_SIGN_MIX),
                        VECTOR_SIGNS + bend,
                        VECTOR_SIGNS + SIGNED_LEVELS + 1 + 3 * (sign_of(west) + 1) + sign_of(north) + 1,
                        VECTOR_SIGNS + SIGNED_LEVELS + 10 + 3 * axis + sign_of(across) + 1,
                        np.int64(residual < 0),
                    )
                    size *= 1 - 2 * negative
                across = size
                if abs(expected + size) > most:
                    return np.int64(-1)
                vectors[row, column, axis] = expected + size
                residuals[row + 1, column + 1, axis] = size
    return np.int64(0)
