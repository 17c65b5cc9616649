"""The float fit of an I-frame of the `main` profile, by squared error and rate together.

The fit descends sum_k w_k SSE_k + sum_l lambda_l bits_l.  It starts with more splats than will be left; those whose
removal costs less than their bits are worth go, and new ones come where they take off more than theirs cost, so
that the number of splats follows from the picture and the price of a bit.  Prices lambda_l keep the layers' shares: a
layer that has more of the bits than it should pays more for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.config import MAX_SPLATS
from pgsvc_codec.jit import kernel
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.descent import single_threaded_torch
from pgsvc_codec.train.main import courses
from pgsvc_codec.train.main.aim import CODED_STEP, Aim, coded_step
from pgsvc_codec.train.main.courses import Course, Seen, row_prices
from pgsvc_codec.train.main.model import GrowingAdam, RatedModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.place import device_of
from pgsvc_codec.train.rates import betas_of
from pgsvc_codec.train.relocate import removal_costs
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.start import mean_background, start_splats
from pgsvc_codec.train.tuning import DEFAULTS, Limits

LIMITS = Limits(shortest=0.35, longest=8.0, thinnest=0.2, ridge=0.0)  # the lattice ends at a quarter of a pixel
PRICE = 0.15  # squared error that a bit is worth in the fit, in D^2
REFINED_PRICE = 0.3  # likewise in the refinement

_RAMP = (0.1, 0.3)  # of the iterations, in which the price of a bit rises to what it is
_PRUNED = (0.3, 0.9)  # of the iterations
_BORN = 0.7  # of the iterations, the end of births
_ADAPTED = 60  # times in a fit that splats may go and come
_INTERVAL = (4, 25)  # iterations from one such time to the next, at least and at most
_LEAST = 0.125  # of D: splats of smaller amplitudes go
_GONE_AT_A_TIME = 0.3  # of a layer; shares cannot be kept by splats that are gone
_BIRTH_YIELD = 0.9  # of the matched filter's gain is left once neighbours have found the error too
_BORN_AT_A_TIME = 0.2  # of a layer
_PULL = 3.0  # power of a layer's share over the wanted one by which its price rises
_LASTING_PULL = 0.05  # likewise, and stays
_MOST_PULL = 100.0  # lasting
_FOLLOWED = 0.5  # power, each time, of D at which the wanted number pays over D, while none go
_MOST_FALLEN = 0.25  # of the price, each time: what a fit begins with is worth little
_STEERING = 6.0  # power of the number that pays over the wanted one by which D rises, in as long as a fit
_STEPS = tuple(step / CODED_STEP / (1 << AMPLITUDE_BITS) for step in (STEPS[0], STEPS[-1]))  # D that can be coded
_STARTED = 0.04  # splats to begin with, per unit of the picture's variation over D
_CROWD = 6  # pixels for each of them at least
_LEFT = 0.3  # of them in the end, where a number is wanted
_WARMUP = 3


class IntraFit(NamedTuple):
    """An I-frame as the refinement takes it."""

    background: NDArray[np.float32]  # [C]
    layers: list[Splats]
    step_indices: list[int]  # of each layer's D in `coding.main.state.STEPS`
    prices: list[float]  # squared error that a bit of each layer is worth
    level_weights: list[float]


class Still(NamedTuple):
    """A picture to fit."""

    objective: Objective  # of the frame, one level per layer
    aim: Aim  # what the fit is to reach
    rng: np.random.Generator  # says where splats begin
    background: NDArray[np.float32] | None = None  # [C] under the splats; None = the mean of the picture


def fit_intra_main(
    objective: Objective,
    aim: Aim,
    iterations: int,
    rng: np.random.Generator,
    *,
    opponent: bool,
    background: NDArray[np.float32] | None = None,
) -> IntraFit:
    """Fit the splats of an I-frame.

    Args:
        objective: of the frame, one level per layer.
        aim: what the fit is to reach.
        iterations: of the descent.
        rng: says where splats begin.
        opponent: the stream is RGB, so amplitudes lie on opponent axes.
        background: [C] under the splats; None = the mean of the picture.
    """
    return fit_stills([Still(objective, aim, rng, background)], iterations, opponent=opponent)[0]


def fit_stills(stills: Sequence[Still], iterations: int, *, opponent: bool) -> list[IntraFit]:
    """Fit the splats of several pictures side by side, each as `fit_intra_main` alone.

    A GPU has the iterations of all of them in the same launches, while decisions about each are a host thread's.

    Args:
        stills: pictures with the same number of layers, on one rasteriser; their sizes may differ.
        iterations: of each descent.
        opponent: as that of `fit_intra_main`.
    """
    with single_threaded_torch(), ThreadPoolExecutor(max(len(stills), 1)) as pool:
        # those of a CPU have all threads already
        device = device_of(stills[0].objective.rasterizer) if stills else None
        each: Callable[..., Iterable[Any]] = pool.map if device is not None and device.type == "cuda" else map
        take = _take_on(device)
        fits: list[_Fit] = list(each(partial(_Fit, iterations=iterations, opponent=opponent), stills))
        interval = min(max(iterations // _ADAPTED, _INTERVAL[0]), _INTERVAL[1])
        for begin in range(0, iterations, interval):
            going = [fit for fit in fits if len(fit.model)]  # where nothing is worth its bits, all is done
            course = range(begin, min(begin + interval, iterations))
            seen = take([fit.course(course) for fit in going])
            if len(course) == interval:
                list(each(_Fit.adapt, going, repeat(course[-1]), repeat(interval), seen))
        return [fit.result() for fit in fits]


def _take_on(device: torch.device | None) -> Callable[[Sequence[Course]], list[Seen]]:
    """What goes through courses on a device; None is the CPU."""
    if device is None:
        return courses.take
    from pgsvc_codec.train.cuda.courses import take

    return partial(take, device=device)


def variation(objective: Objective) -> float:
    """Mean difference of neighbours, summed over planes and directions, times the pixels of the frame."""
    total = 0.0
    for plane in objective.targets[-1].picture:
        height, width = plane.shape
        sums = np.zeros((2, width))
        _add_differences(np.ascontiguousarray(plane), sums)
        across, down = sums.sum(axis=1)
        total += float(across) / max(height * (width - 1), 1) + float(down) / max((height - 1) * width, 1)
    return total * objective.width * objective.height


@kernel(nogil=True, error_model="numpy")
def _add_differences(plane: NDArray[np.float32], sums: NDArray[np.float64]) -> None:
    """To sums [2, w]: magnitudes of the differences of a plane [h, w] to the right and down, column by column."""
    height, width = plane.shape
    across, down = sums[0], sums[1]
    for y in range(height):
        row, below = plane[y], plane[min(y + 1, height - 1)]
        for x in range(width - 1):
            across[x] += abs(row[x + 1] - row[x])
        for x in range(width):
            down[x] += abs(below[x] - row[x])


class _Fit:
    """A fit as it goes on.

    Attributes:
        model: changed in place.
        prices: [layers] squared error that a bit is worth.
        level_weights: of squared errors, per level.
    """

    def __init__(self, still: Still, iterations: int, *, opponent: bool) -> None:
        self._objective = objective = still.objective
        self._aim = aim = still.aim
        background = still.background
        self._background = mean_background(objective.targets[-1].picture) if background is None else background
        self._iterations = iterations
        self._step = aim.step  # D of the top layer
        self._lasting = np.ones(objective.num_levels)  # [layers] part of the prices that stays
        self.level_weights = [float(weight) for weight in aim.level_weights]
        size = (objective.width, objective.height)
        started = self._start()
        upper = np.arange(1, objective.num_levels + 1)  # higher layers have more splats, which are smaller
        ends = [math.ceil(end) for end in np.cumsum(upper) / upper.sum() * started]
        splats = start_splats(objective, self._background, ends, still.rng)
        self.model = RatedModel(splats, ends, *size, LIMITS, opponent=opponent)
        tuning = DEFAULTS
        rates = (tuning.offset_rate, tuning.shape_rate, tuning.amplitude_rate * math.sqrt(math.prod(size) / started))
        self._optimizer = GrowingAdam(self.model.parameters(), rates, betas_of(tuning, iterations))
        self._scale = half_cosine(iterations, _WARMUP)
        self._refresh(np.ones(objective.num_levels))

    def _start(self) -> int:
        """Splats to begin with."""
        objective, wanted = self._objective, self._aim.splats
        extent = _STARTED * variation(objective)
        if wanted is None:
            most = min(objective.width * objective.height // _CROWD, MAX_SPLATS)
            return max(min(int(extent / self._step), most), 8 * objective.num_levels)
        self._step = min(max(extent * _LEFT / wanted, _STEPS[0]), _STEPS[1])
        return math.ceil(wanted / _LEFT)

    @property
    def steps(self) -> NDArray[np.float64]:
        """[layers] D in unit values."""
        return self._step * self._aim.step_ratios

    def result(self) -> IntraFit:
        """The fit as it is now."""
        splats = self.model.splats()
        return IntraFit(
            self._background,
            [splats[rows] for rows in self.model.layers],
            [coded_step(float(step)) for step in self.steps],
            [float(REFINED_PRICE / PRICE * price) for price in self.prices],
            self.level_weights,
        )

    def course(self, iterations: range) -> Course:
        """The next iterations."""
        ramps, scales = ([part(iteration) for iteration in iterations] for part in (self._ramp, self._scale))
        return Course(
            self._objective,
            self._background,
            self.model,
            self._optimizer,
            self.level_weights,
            self._densities,
            self.prices,
            ramps,
            scales,
        )

    def _ramp(self, iteration: int) -> float:
        """Share of the prices that counts in an iteration."""
        return min(max((iteration / self._iterations - _RAMP[0]) / (_RAMP[1] - _RAMP[0]), 0.0), 1.0)

    def adapt(self, iteration: int, interval: int, seen: Seen) -> None:
        """Let splats go and come, and look at their number and the shares.

        Args:
            iteration: the last one.
            interval: iterations from one such time to the next.
            seen: by the last iteration.
        """
        splats, step, splat_bits = seen
        turn, done = (iteration + 1) // interval, iteration / self._iterations
        model = self.model
        bits = np.array([float(splat_bits[rows].sum()) for rows in model.layers]).clip(min=1.0)
        excess = bits / bits.sum() / np.asarray(self._aim.shares)
        worth = (row_prices(self.prices, model.ends) * splat_bits).numpy()
        costs = removal_costs(splats, step, self.level_weights, model.ends)
        births = None
        if turn % 2 and done <= _BORN:
            layer = int(np.argmin(excess)) if excess.min() < 0.8 else turn // 2 % len(model.ends)
            births = layer, self._births(layer, splats, splat_bits)
        pruning = _PRUNED[0] <= done <= _PRUNED[1]
        if pruning:
            margins = costs - self._ramp(iteration) * worth
            margins[(model.amplitudes.abs().amax(1) < _LEAST * self._densities.step).numpy()] = -np.inf
            kept = np.concatenate([rows.start + _staying(margins[rows]) for rows in model.layers])
            model.keep(kept)
            self._optimizer.keep(model.parameters(), kept)
        if births is not None and len(births[1]):
            layer, born = births
            at = model.ends[layer]
            model.insert(layer, born)
            self._optimizer.insert(model.parameters(), at, len(born))
        if pruning:
            self._lasting = (self._lasting * excess**_LASTING_PULL).clip(1 / _MOST_PULL, _MOST_PULL)
        if done <= _PRUNED[1]:
            self._steer(done, interval / self._iterations, costs / worth.clip(min=np.finfo(np.float32).tiny))
        self._refresh(excess if done >= _PRUNED[0] else np.ones_like(excess))

    def _steer(self, done: float, since: float, yields: NDArray[np.float64]) -> None:
        """Bring D nearer to where as many splats as are wanted are worth their bits, if a number is.

        While there are splats in plenty, D follows the price at which so many of them pay.  Once those that do not pay
        go, others take over what they did, so D is changed slowly, by how many pay, and rises no further than where the
        number is right at once: a D that ran ahead of a number which is slow to follow would take most splats away.

        Args:
            done: share of the iterations.
            since: likewise, from the last time on.
            yields: [N] squared error that splats take off, over what their bits are worth.
        """
        wanted = self._aim.splats
        if wanted is None:
            return
        missing = wanted - len(yields)
        least = float(np.partition(yields, -wanted)[-wanted]) if missing <= 0 else 0.0  # of as many as are wanted
        if done < _PRUNED[0]:
            change = math.sqrt(max(least, _MOST_FALLEN)) ** _FOLLOWED
        else:
            change = (max(int((yields >= 1).sum()), 1) / wanted) ** (_STEERING * since)
            change = min(change, max(math.sqrt(max(least, 0.0)), 1.0))
        self._step = min(max(self._step * change, _STEPS[0]), _STEPS[1])

    def _births(self, layer: int, splats: Splats, splat_bits: torch.Tensor) -> Splats:
        """New splats for a layer that are worth their bits."""
        objective, rows = self._objective, self.model.layers[layer]
        count = rows.stop - rows.start
        most = max(int(_BORN_AT_A_TIME * count), 16)
        births = objective.find_births(
            layer, splats, self._background, self.model.ends, self.level_weights, max(count, 1), most
        )
        bits = float((splat_bits[rows] if count else splat_bits).mean())
        return births.splats[_BIRTH_YIELD * births.gains > bits * self.prices[layer]]

    def _refresh(self, excess: NDArray[np.float64]) -> None:
        """What depends on which splats there are, and on the layers' shares over the wanted ones."""
        self.prices = PRICE * self._step**2 * self._aim.ratios * self._lasting * excess**_PULL
        self._densities = self.model.densities([float(step) for step in self.steps])


def _staying(margins: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices, ascending, of the splats of a layer that may stay: all that pay, and others if too many would go."""
    most = int(_GONE_AT_A_TIME * len(margins)) + 1
    order = np.argsort(margins, kind="stable")
    stays = np.ones(len(margins), np.bool_)
    stays[order[: min(most, int((margins < 0).sum()))]] = False
    return np.flatnonzero(stays)
