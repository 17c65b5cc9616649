"""Models as a segment finds them: the states from which every layer's models adapt (spec §7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main import kernels


def initial_models(layer: int) -> NDArray[np.int64]:
    """A fresh copy of the models that the segment of a layer begins with."""
    del layer
    return np.full(kernels.NUM_MODELS, 1 << kernels.PROBABILITY_BITS - 1 << kernels.COUNT_BITS | 1, np.int64)
