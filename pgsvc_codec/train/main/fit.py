"""The float fit of an I-frame of the `main` profile, by squared error and rate together.

The fit descends sum_k w_k SSE_k + sum_l lambda_l bits_l.  It starts with more splats than will be left; those whose
removal costs less than their bits are worth go, and new ones come where they take off more than theirs cost, so
that the number of splats follows from the picture and the price of a bit.  Prices lambda_l keep the layers' shares: a
layer that has more of the bits than it should pays more for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.births import find_births
from pgsvc_codec.train.descent import single_threaded_torch
from pgsvc_codec.train.main.model import GrowingAdam, RatedModel
from pgsvc_codec.train.main.rate import Rate
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.rates import betas_of
from pgsvc_codec.train.relocate import removal_costs
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.start import mean_background, start_splats
from pgsvc_codec.train.tuning import DEFAULTS, Limits

LIMITS = Limits(shortest=0.35, longest=8.0, thinnest=0.2, ridge=0.0)

PRICE = 0.15  # squared error that a bit is worth in the fit, in D^2
REFINED_PRICE = 0.3  # likewise in the refinement
CODED_STEP = 2.5  # of D: neighbours absorb each other's errors when splats are rounded one by one

_RAMP = (0.1, 0.3)  # of the iterations, in which the price of a bit rises to what it is
_NOISY = 0.3  # of the iterations go by before parameters shake
_PRUNED = (0.3, 0.9)  # of the iterations
_BORN = 0.7  # of the iterations, the end of births
_INTERVAL = 25  # iterations from one pruning to the next
_LEAST = 0.125  # of D: splats of smaller amplitudes go
_BIRTH_YIELD = 0.9  # of the matched filter's gain is left once neighbours have found the error too
_BORN_AT_A_TIME = 0.2  # of a layer
_PULL = 3.0  # power of a layer's share over the wanted one by which its price rises
_WARMUP = 3
_START = 0.04  # splats per pixel of variation over D


class IntraFit(NamedTuple):
    """An I-frame as the refinement takes it."""

    background: NDArray[np.float32]  # [C]
    layers: list[Splats]
    step_indices: list[int]  # of each layer's D in `coding.main.state.STEPS`
    prices: list[float]  # squared error that a bit of each layer is worth
    level_weights: list[float]


class Aim(NamedTuple):
    """What a fit is to reach.

    Attributes:
        step: D of the top layer in unit values, before it is widened for coding.
        shares: of the bits, per layer; their sum is 1.
        level_weights: of squared errors, per level.
    """

    step: float
    shares: Sequence[float]
    level_weights: Sequence[float]

    @property
    def weights(self) -> NDArray[np.float64]:
        """[layers] of all levels that a layer is in."""
        weights: NDArray[np.float64] = np.cumsum(np.asarray(self.level_weights, np.float64)[::-1])[::-1]
        return weights

    @property
    def ratios(self) -> NDArray[np.float64]:
        """[layers] price of a layer's bits over the top layer's, before shares are looked at.

        At its own rate a level gains more from a bit the less it has: squared errors fall about as rate^-0.7.
        """
        reached = np.cumsum(self.shares)
        slopes = np.asarray(self.level_weights) * reached**-1.7
        prices: NDArray[np.float64] = np.cumsum(slopes[::-1])[::-1]
        return prices / prices[-1]

    @property
    def steps(self) -> NDArray[np.float64]:
        """[layers] D in unit values: what a bit is worth, over what an error costs, is the same everywhere."""
        steps: NDArray[np.float64] = self.step * np.sqrt(self.ratios * self.weights[-1] / self.weights)
        return steps


def coded_step(step: float) -> int:
    """The index in `STEPS` for splats of a fit with step D in unit values."""
    wanted = math.log2(CODED_STEP * step * (1 << AMPLITUDE_BITS) / STEPS[0])
    return min(max(round(8 * wanted), 0), len(STEPS) - 1)


def fit_intra_main(
    objective: Objective, aim: Aim, iterations: int, rng: np.random.Generator, *, opponent: bool
) -> IntraFit:
    """Fit the splats of an I-frame.

    Args:
        objective: of the frame, one level per layer.
        iterations: of the descent.
        opponent: the stream is RGB, so amplitudes lie on opponent axes.
    """
    background = mean_background(objective.targets[-1].picture)
    fit = _Fit(objective, background, aim, iterations, rng, opponent=opponent)
    with single_threaded_torch():
        fit.run()
    splats = fit.model.splats()
    return IntraFit(
        background,
        [splats[rows] for rows in fit.model.layers],
        [coded_step(float(step)) for step in aim.steps],
        [float(REFINED_PRICE / PRICE * price) for price in fit.prices],
        list(aim.level_weights),
    )


def start_count(objective: Objective, step: float) -> int:
    """Splats to begin with, a multiple of those that will be left: by how much the picture varies, over D."""
    height, width = objective.targets[-1].picture[0].shape
    variation = 0.0
    for plane in objective.targets[-1].picture:
        across, down = np.abs(np.diff(plane, axis=1)).mean(), np.abs(np.diff(plane, axis=0)).mean()
        variation += float(across + down) if plane.size > 1 else 0.0
    return min(int(_START * variation * width * height / step), width * height)


class _Fit:
    """A fit as it goes on."""

    def __init__(
        self,
        objective: Objective,
        background: NDArray[np.float32],
        aim: Aim,
        iterations: int,
        rng: np.random.Generator,
        *,
        opponent: bool,
    ) -> None:
        self._objective = objective
        self._background = background
        self._aim = aim
        self._iterations = iterations
        self._rng = rng
        self._level_weights = [float(weight) for weight in aim.level_weights]
        layers = objective.num_levels
        shares = np.arange(1, layers + 1)  # upper layers start with more, being smaller and cheaper
        count = max(start_count(objective, aim.step), 8 * layers)
        ends = [math.ceil(end) for end in np.cumsum(shares) / shares.sum() * count]
        splats = start_splats(objective, background, ends, rng)
        size = (objective.width, objective.height)
        self.model = RatedModel(splats, ends, *size, LIMITS, opponent=opponent)
        pixels_per_splat = objective.width * objective.height / count
        tuning = DEFAULTS
        rates = (tuning.offset_rate, tuning.shape_rate, tuning.amplitude_rate * math.sqrt(pixels_per_splat))
        self._optimizer = GrowingAdam(self.model.parameters(), rates, betas_of(tuning, iterations))
        self.prices = PRICE * aim.step**2 * aim.ratios  # [layers]

    def run(self) -> None:
        """All iterations."""
        model, objective, weights = self.model, self._objective, self._level_weights
        scale = half_cosine(self._iterations, _WARMUP)
        self._refresh()
        for iteration in range(self._iterations if len(model) else 0):
            done = iteration / self._iterations
            ramp = min(max((done - _RAMP[0]) / (_RAMP[1] - _RAMP[0]), 0.0), 1.0)
            noisy = done >= _NOISY
            if noisy:
                model.perturb(self._densities.step, self._rng)
            splats = model.splats()
            step = objective.step(splats, self._background, model.ends, weights)
            model.set_gradients(step.moments)
            if noisy:
                model.restore()
            rate = model.rate(self._densities)
            model.add_rate(rate, ramp * self._row_prices)
            self._optimizer.step(scale(iteration))
            model.settle()
            turn, wait = divmod(iteration + 1, _INTERVAL)
            if wait == 0:
                self._adapt(turn, done, ramp, splats, step, rate)
                if not len(model):
                    return

    def _adapt(self, turn: int, done: float, ramp: float, splats: Splats, step: StepResult, rate: Rate) -> None:
        """Let splats go and come, and look at the shares."""
        model = self.model
        if done >= _PRUNED[0]:
            self._share(rate)
        residual_of = turn // 2 % len(model.ends) if turn % 2 == 0 and done <= _BORN else None
        births = None
        if residual_of is not None:
            births = self._births(residual_of, splats, rate)
        if births is not None and len(births):
            at = model.ends[residual_of]
            model.insert(residual_of, births)
            self._optimizer.insert(model.parameters(), at, len(births))
        elif births is None and _PRUNED[0] <= done <= _PRUNED[1]:
            costs = removal_costs(splats, step, self._level_weights, model.ends)
            worth = ramp * (self._row_prices * rate.bits).numpy()
            strong = (model.amplitudes.abs().amax(1) >= _LEAST * self._densities.step).numpy()
            rows = np.flatnonzero((costs >= worth) & strong)
            model.keep(rows)
            self._optimizer.keep(model.parameters(), rows)
        self._refresh()

    def _births(self, layer: int, splats: Splats, rate: Rate) -> Splats:
        """New splats for a layer that are worth their bits."""
        objective, rows = self._objective, self.model.layers[layer]
        residual = objective.weighted_residual(layer, splats, self._background, self.model.ends, self._level_weights)
        count = rows.stop - rows.start
        weight = float(sum(self._level_weights[k] for k in objective.peers(layer)))
        most = max(int(_BORN_AT_A_TIME * count), 16)
        births = find_births(residual, weight, (objective.width, objective.height), max(count, 1), most)
        bits = float(rate.bits[rows].mean()) if count else float(rate.bits.mean())
        return births.splats[_BIRTH_YIELD * births.gains > bits * self.prices[layer]]

    def _share(self, rate: Rate) -> None:
        """Prices by shares."""
        bits = np.array([float(rate.bits[rows].sum()) for rows in self.model.layers]).clip(min=1.0)
        pull = (bits / bits.sum() / np.asarray(self._aim.shares)) ** _PULL
        self.prices = PRICE * self._aim.step**2 * self._aim.ratios * pull

    def _refresh(self) -> None:
        """What depends on which splats there are."""
        self._densities = self.model.densities([float(step) for step in self._aim.steps])
        sizes = np.diff([0, *self.model.ends])
        self._row_prices = torch.from_numpy(np.repeat(self.prices, sizes).astype(np.float32))
