"""What adapts, as a segment finds it: models, and weights of mixtures (spec §7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import kernels


def initial_models(layer: int) -> NDArray[np.int64]:
    """A fresh copy of the models that the segment of a layer begins with."""
    del layer
    models = np.full(kernels.NUM_MODELS, 1 << kernels.PROBABILITY_BITS - 1 << kernels.COUNT_BITS | 1, np.int64)
    return np.concatenate([models, np.full(3 * kernels.NUM_MIXTURES, 1 << 15, np.int64)])
