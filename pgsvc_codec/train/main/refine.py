"""Splats to integers: settled one by one against what the picture still lacks (Gauss-Seidel).

The cost of a frame is J = sum_k w_k SSE_k + sum_l lambda_l bits_l.  A splat of layer l is in the levels from l on, so
with all others held, J depends on it through one picture alone, e_l = sum_k>=l w_k r_k / sum_k>=l w_k: what it changes
costs (sum_k>=l w_k) (|d|^2 - 2 <e_l, d>).  Every splat in turn is taken out of e_l, tried on the lattice points
that the Gauss-Newton step makes likely, as it is, and not at all, and painted again where J is least.

The first pass finds all others but those before it where the fit left them, so errors of rounding are made good by
splats that are yet to be rounded.  From then on J does not rise but for the prices, which are counted anew in every
pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pgsvc_codec.coding.main.state import STEPS
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.main.host_field import HostResiduals
from pgsvc_codec.train.main.residuals import Residuals
from pgsvc_codec.train.main.slot_layer import SlotLayer
from pgsvc_codec.train.main.whole_layer import WholeLayer
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.place import device_of

_BIRTHS = 0.5  # of a layer's splats are offered as new ones in a pass
_BIRTH_TURNS = range(1, 4)  # passes that offer them; further ones where a layer has too few bits
_QUIET = 2  # passes that follow for them to find their place
_BALANCE = 1.0  # exponent of prices over shares, for each pass
_MOST_CHANGE = 1.0  # of the logarithm of a price, in a pass


class Refined(NamedTuple):
    """Layers on their lattices, and what they cost."""

    layers: list[SplatState]
    cost: float  # J
    squared_error: NDArray[np.float64]  # [levels] H W times the mean squared error, summed over planes
    bits: list[float]  # estimate, of each layer
    prices: list[float]  # of a bit of each layer in the last pass, as in J


class RefinedInter(NamedTuple):
    """Layers of slots on their lattices, and what they cost."""

    layers: list[SplatState]  # slots of no amplitude are dead
    reborn: list[NDArray[np.bool_]]  # of each layer's slots: they hold a new splat, coded whole
    cost: float  # J
    squared_error: NDArray[np.float64]  # as that of `Refined`
    bits: list[float]  # likewise


def refine_intra(
    objective: Objective,
    background: NDArray[np.float32],
    layers: Sequence[Splats],
    step_indices: Sequence[int],
    lambdas: Sequence[float],
    level_weights: Sequence[float],
    *,
    opponent: bool,
    passes: int = 8,
    shares: Sequence[float] | None = None,
    most: int | None = None,
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
        passes: over all splats; none leave every splat on the lattice point nearest to it.  Where there are enough
            of them, early ones try new splats too.
        shares: of the bits that each layer should have at least; prices fall, from `lambdas` on, for layers that have
            less, so that splats stay and are born there.  None: prices stay, wherever bits go.
        most: splats that all layers together may keep, the weakest being left out; None: any number.
    """
    if most is not None:
        layers = _strongest(layers, most)
    size = (objective.width, objective.height)
    settled = [
        WholeLayer(layer, STEPS[index], size, opponent=opponent, rounded=passes == 0)
        for layer, index in zip(layers, step_indices, strict=True)
    ]
    shown = [layer.splats() for layer in settled]
    residuals = _residuals_of(objective, background, shown, level_weights, opponent=opponent)
    prices = np.array(lambdas, np.float64)
    for turn in range(passes):
        for index, layer in enumerate(settled):
            wanting = turn in _BIRTH_TURNS or prices[index] < lambdas[index]
            bears = wanting and turn + _QUIET < passes
            room = max(most - sum(map(len, settled)), 0) if bears and most is not None else None
            layer.settle(residuals, index, prices[index], _BIRTHS if bears else 0.0, room)
        if shares is not None and turn + 1 < passes:
            prices = _balanced(prices, lambdas, [layer.bits() for layer in settled], shares)
    bits = [layer.bits() for layer in settled]
    errors = residuals.squared_error()
    cost = _cost(errors, level_weights, bits, prices)
    return Refined([layer.state() for layer in settled], cost, errors, bits, prices.tolist())


def _residuals_of(
    objective: Objective,
    background: NDArray[np.float32],
    layers: Sequence[Splats],
    level_weights: Sequence[float],
    *,
    opponent: bool,
) -> Residuals:
    """Where the objective's rasteriser works."""
    if device_of(objective.rasterizer) is not None:
        from pgsvc_codec.train.cuda.residuals import CudaResiduals

        return CudaResiduals(objective, background, layers, level_weights, opponent=opponent)
    return HostResiduals(objective, background, layers, level_weights, opponent=opponent)


def _cost(
    errors: NDArray[np.float64], level_weights: Sequence[float], bits: Sequence[float], prices: ArrayLike
) -> float:
    """J."""
    return float(np.dot(level_weights, errors)) + float(np.dot(prices, bits))


def _balanced(
    prices: NDArray[np.float64], highest: Sequence[float], bits: Sequence[float], shares: Sequence[float]
) -> NDArray[np.float64]:
    """Prices that bring layers nearer to the shares of bits that they should have at least."""
    spent = np.maximum(bits, 1.0)
    change = np.log(spent / spent.sum() / np.asarray(shares))
    return np.minimum(prices * np.exp(np.clip(_BALANCE * change, -_MOST_CHANGE, _MOST_CHANGE)), highest)


def _strongest(layers: Sequence[Splats], most: int) -> list[Splats]:
    """The splats of the largest energy, of all layers together."""
    energies = [
        np.square(layer.colors.astype(np.float64)).sum(axis=1) * np.abs(layer.cholesky[:, 0] * layer.cholesky[:, 2])
        for layer in layers
    ]
    joined = np.concatenate(energies)
    if len(joined) <= most:
        return list(layers)
    kept = np.zeros(len(joined), np.bool_)
    kept[np.argsort(-joined, kind="stable")[:most]] = True
    ends = np.cumsum([len(layer) for layer in layers])[:-1]
    return [layer[rows] for layer, rows in zip(layers, np.split(kept, ends), strict=True)]


def refine_inter(
    objective: Objective,
    background: NDArray[np.float32],
    predicted: Sequence[SplatState],
    layers: Sequence[Splats],
    reborn: Sequence[NDArray[np.bool_]] | None,
    step_indices: Sequence[int],
    lambdas: Sequence[float],
    level_weights: Sequence[float],
    *,
    opponent: bool,
    passes: int = 3,
) -> RefinedInter:
    """Fit the slots of a P- or B-frame to the lattices around their predictions.

    Args:
        objective: of the frame, one level per layer.
        background: [C] as a decoder has it.
        predicted: [N] slots of each layer, see `coding.main.predict`; those without any amplitude are dead.
        layers: [M] splats of the fit, the first N those predicted.
        reborn: [M] slots that hold a new splat, to be coded whole; true of all behind the first N.  None in B-frames,
            where M = N and slots are neither removed nor reborn.
        step_indices: of D in `coding.main.state.STEPS`, for each layer.
        lambdas: squared error, in unit values, that a bit is worth, for each layer.
        level_weights: [levels] of squared errors in J.
        opponent: the stream is RGB, so amplitudes lie on opponent axes.
        passes: over all splats, at least one.
    """
    size = (objective.width, objective.height)
    new = reborn or [np.zeros(len(state), np.bool_) for state in predicted]
    settled = [
        SlotLayer(state, splats, rows, STEPS[index], size, opponent=opponent, removable=reborn is not None)
        for state, splats, rows, index in zip(predicted, layers, new, step_indices, strict=True)
    ]
    shown = [layer.splats() for layer in settled]
    residuals = _residuals_of(objective, background, shown, level_weights, opponent=opponent)
    for _ in range(passes):
        for index, layer in enumerate(settled):
            layer.settle(residuals, index, lambdas[index])
    bits = [layer.bits() for layer in settled]
    errors = residuals.squared_error()
    cost = _cost(errors, level_weights, bits, lambdas)
    states, rows = zip(*(layer.state() for layer in settled), strict=True)
    return RefinedInter(list(states), list(rows), cost, errors, bits)
