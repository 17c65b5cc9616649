"""Splats to integers: rounded, then settled one by one against what the picture still lacks (Gauss-Seidel).

The cost of a frame is J = sum_k w_k SSE_k + sum_l lambda_l bits_l.  A splat of layer l is in the levels from l on, so
with all others held, J depends on it through one picture alone, e_l = sum_k>=l w_k r_k / sum_k>=l w_k: what it changes
costs (sum_k>=l w_k) (|d|^2 - 2 <e_l, d>).  Every splat in turn is taken out of e_l, tried on the lattice points
that the Gauss-Newton step makes likely, as it is, and not at all, and painted again where J is least; so J never rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.main.cost import IntraCosts, intra_costs, payload_bits
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, POSITION_BITS, STEPS, splats_of
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.refine_kernels import refine_whole
from pgsvc_codec.train.main.residuals import Residuals
from pgsvc_codec.train.main.rounding import round_whole
from pgsvc_codec.train.objective import Objective


class Refined(NamedTuple):
    """Layers on their lattices, and what they cost."""

    layers: list[SplatState]
    cost: float  # J
    squared_error: NDArray[np.float64]  # [levels] H W times the mean squared error, summed over planes
    bits: list[float]  # estimate, of each layer


def refine_intra(
    objective: Objective,
    background: NDArray[np.float32],
    layers: Sequence[Splats],
    step_indices: Sequence[int],
    lambdas: Sequence[float],
    level_weights: Sequence[float],
    *,
    opponent: bool,
    passes: int = 4,
) -> Refined:
    """Fit the splats of an I-frame to their lattices.

    Args:
        objective: of the frame, one level per layer.
        background: [C] as a decoder has it.
        layers: not quantised, base first.
        step_indices: of D in `coding.main.state.STEPS`, for each layer.
        lambdas: squared error, in unit values, that a bit is worth, for each layer.
        level_weights: [levels] of squared errors in J.
        opponent: the stream is RGB, so amplitudes lie on opponent axes.
        passes: over all splats.
    """
    size = (objective.width, objective.height)
    layer_states = [
        _WholeLayer(round_whole(layer, STEPS[index], size, opponent=opponent), STEPS[index], size)
        for layer, index in zip(layers, step_indices, strict=True)
    ]
    painted = [splats_of(layer.state(), *size, opponent=opponent) for layer in layer_states]
    residuals = Residuals(objective, background, painted, level_weights, opponent=opponent)
    for _ in range(passes):
        for index, layer in enumerate(layer_states):
            layer.settle(residuals, index, lambdas[index], opponent=opponent)
    bits = [layer.bits() for layer in layer_states]
    cost = residuals.loss() + float(np.dot(lambdas, bits))
    states = [layer.state() for layer in layer_states]
    return Refined(states, cost, residuals.squared_error(), bits)


class _WholeLayer:
    """The splats of a layer while they are settled."""

    def __init__(self, state: SplatState, step: int, size: tuple[int, int]) -> None:
        self._step = step
        self._size = size
        self._positions = state.positions
        self._shapes = state.shapes
        self._symbols = np.zeros((len(state), 3), np.int32)
        self._channels = state.channels
        self._symbols[:, : state.channels] = state.amplitudes // np.int32(step)

    def settle(self, residuals: Residuals, layer: int, rate: float, *, opponent: bool) -> None:
        """One pass over all splats; those that are not worth their bits go."""
        field = residuals.of_layer(layer)
        before = field.samples.copy()
        state = self._positions, self._shapes, self._symbols
        refine_whole(
            field.samples,
            field.whole,
            field.floats,
            self._order(),
            state,
            self._step / (1 << AMPLITUDE_BITS),
            rate / field.weight,
            self._costs(),
            np.array(self._size, np.int64) << POSITION_BITS,
            opponent,
        )
        residuals.change(layer, before, field.samples)
        kept = self._symbols.any(axis=1)
        self._positions, self._shapes, self._symbols = (part[kept] for part in state)

    def _order(self) -> NDArray[np.int64]:
        """By cells of 32 pixels, so that what is worked on lies close together."""
        cells = self._positions >> 5 + POSITION_BITS
        return np.lexsort((cells[:, 0], cells[:, 1])).astype(np.int64)

    def _costs(self) -> IntraCosts:
        return intra_costs(self.state(), self._step, *self._size)

    def bits(self) -> float:
        """Estimate."""
        return payload_bits(self.state(), self._step, self._costs())

    def state(self) -> SplatState:
        """The splats as they are now."""
        amplitudes = np.ascontiguousarray(self._symbols[:, : self._channels]) * np.int32(self._step)
        return SplatState(self._positions, self._shapes, amplitudes)
