"""Ideas about fitting a still that are not in the package, each as small as it can be had over its parts.

Every function takes a `Case` and gives the splats of all layers back, as the package's own fit does; what is not said
otherwise starts as that fit does and spends as many passes of the rasteriser.  `ablation` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from fits import Picture
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from pgsvc_codec.picture import UnitFrame
from pgsvc_codec.render.backend import load
from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train import births, natural
from pgsvc_codec.train import objective as objectives
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.births import Births
from pgsvc_codec.train.descent import Between, Model, Optimizer
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import LevelTarget, Objective
from pgsvc_codec.train.plain import PlainModel, plain_gradients
from pgsvc_codec.train.rates import adam_of, betas_of
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.train.stack import Stack
from pgsvc_codec.train.tuning import FREE, Limits

Schedule = Callable[[int], float]  # factor on the learning rates of iteration i
RENDER = 0.4  # of what a pass with gradients takes
_SOLVING = 6  # passes of conjugate gradients before the residual is taken anew


class Each(NamedTuple):
    """A `descent.Between` that acts after every iteration."""

    act: Callable[[int, Splats, StepResult], None]

    def is_due(self, iteration: int) -> bool:
        """As `descent.Between.is_due`."""
        return True

    def __call__(self, iteration: int, splats: Splats, step: StepResult) -> None:
        """As `descent.Between`."""
        self.act(iteration, splats, step)


class Case(NamedTuple):
    """What is to be fitted, and how the package would do it."""

    picture: Picture
    stack: Stack
    background: NDArray[np.float32]  # [C]

    def spending(self, iterations: int) -> Case:
        """The same with other iterations."""
        return self._replace(stack=self.stack._replace(iterations=iterations))

    def tuned(self, **choices: object) -> Case:
        """The same with other choices of `Tuning`."""
        tuning = self.stack.tuning.__class__(**{**self.stack.tuning.__dict__, **choices})
        return self._replace(stack=self.stack._replace(tuning=tuning))

    def start(self) -> Splats:
        """Where the package's fit begins."""
        return natural.begin(self.stack, self.background, self.stack.iterations)

    def model(self, splats: Splats, limits: Limits = FREE) -> SplatModel:
        """In natural coordinates."""
        return SplatModel(splats, self.stack.ends, *self.stack.size, limits)

    def relocations(self, model: SplatModel, optimizer: Adam) -> Between:
        """As the package's fit has them."""
        return natural.relocations(self.stack, self.background, model, optimizer, self.stack.iterations)

    def descend(
        self,
        model: Model,
        optimizer: Optimizer,
        between: Between | None = None,
        *,
        schedule: Schedule | None = None,
        objective: Objective | None = None,
        iterations: int | None = None,
        done: int = 0,
    ) -> None:
        """Some iterations, by default all."""
        stack = self.stack if objective is None else self.stack._replace(objective=objective)
        schedule = schedule or half_cosine(stack.iterations, stack.tuning.warmup)
        descent = stack.descent(model, optimizer, self.background, schedule, done=done, between=between)
        descent.run(stack.iterations if iterations is None else iterations)


def fit(case: Case, limits: Limits = FREE) -> Splats:
    """What the package does, within other limits."""
    return natural._fit_free(case.stack, case.background, case.stack.iterations, limits).splats()


# Coordinates and optimisers


class PlainSplats(PlainModel):
    """The paper's own parameters, with splats that can be replaced; contribution weights stay 1."""

    def parameters(self) -> list[torch.Tensor]:
        """Without the weights, which are for pruning."""
        return [self.means, self.cholesky, self.colors]

    def replace(self, rows: NDArray[np.integer], chosen: Splats) -> None:
        """Set the given rows to other splats, one each."""
        for tensor, values in zip(self.parameters(), (chosen.means, chosen.cholesky, chosen.colors), strict=True):
            tensor[torch.from_numpy(rows)] = torch.from_numpy(values)


def plain_adam(case: Case, rate: float) -> Splats:
    """Adam on means, Cholesky vectors and colours.

    Args:
        rate: 1 moves means by a pixel, lengths by 0.3 pixels and colours by 0.015 per iteration at most.
    """
    model = PlainSplats(case.start(), case.stack.ends, *case.stack.size)
    rates = [rate * 2 / max(case.stack.size), rate * 0.3, rate * 0.015]
    optimizer = Adam(model.parameters(), rates, betas_of(case.stack.tuning, case.stack.iterations))
    case.descend(model, optimizer, case.relocations(model, optimizer))
    return model.splats()


class Adan:
    """`pytorch_optimizer.Adan` with a learning rate for each parameter, for splats that are relocated."""

    def __init__(self, parameters: Sequence[torch.Tensor], rates: Sequence[float], betas: Sequence[float]) -> None:
        from pytorch_optimizer import Adan as LibraryAdan

        self._rates = list(rates)
        self._optimizer = LibraryAdan([{"params": [parameter]} for parameter in parameters], lr=1.0, betas=betas)
        self._new = torch.zeros(len(parameters[0]), dtype=torch.bool)

    def step(self, scale: float) -> None:
        """One step, with all learning rates times `scale`."""
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = scale * rate
            (parameter,) = group["params"]
            if self._new.any():  # a first gradient differs from no other
                self._optimizer.state[parameter]["previous_grad"][self._new] = -parameter.grad[self._new]
        self._new[:] = False
        self._optimizer.step()

    def forget(self, rows: torch.Tensor) -> None:
        """As `Adam.forget`."""
        self._new[rows] = True
        for state in self._optimizer.state.values():
            state["exp_avg"][rows] = 0
            state["exp_avg_diff"][rows] = 0
            state["exp_avg_sq"][rows] = state["exp_avg_sq"].mean(0)


ADAN_BETAS = (0.98, 0.92, 0.99)  # its paper's


def plain_adan(case: Case, rate: float) -> Splats:
    """The paper's parameters and optimiser without its pruning; one learning rate, 1e-3 in the paper."""
    model = PlainSplats(case.start(), case.stack.ends, *case.stack.size)
    case.descend(model, Adan(model.parameters(), [rate] * 3, ADAN_BETAS))
    return model.splats()


def natural_rates(case: Case) -> list[float]:
    """Learning rates of the package's fit: of offsets, shapes and amplitudes."""
    tuning = case.stack.tuning
    spacing = math.sqrt(math.prod(case.stack.size) / case.stack.ends[-1])
    return [tuning.offset_rate, tuning.shape_rate, tuning.amplitude_rate * spacing]


def natural_adan(case: Case, rate: float, betas: Sequence[float] = ADAN_BETAS) -> Splats:
    """Adan in natural coordinates, learning rates in units of Adam's."""
    model = case.model(case.start())
    optimizer = Adan(model.parameters(), [rate * own for own in natural_rates(case)], betas)
    case.descend(model, optimizer, case.relocations(model, optimizer))
    return model.splats()


class AdamVariant(Adam):
    """Adam whose means of gradients are taken otherwise."""

    def means(self, gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Bring both means up to date, in place; what takes the place of the first."""
        raise NotImplementedError

    def step(self, scale: float) -> None:
        """As `Adam.step`."""
        self.steps += 1
        first_bias, second_bias = (1 - decay**self.steps for decay in self.betas)
        for parameter, rate, first, second in zip(self._parameters, self.rates, self.first, self.second, strict=True):
            moved = self.means(parameter.grad, first, second)
            parameter.addcdiv_(moved, (second / second_bias).sqrt_().add_(1e-12), value=-scale * rate / first_bias)


class Nadam(AdamVariant):
    """Adam with Nesterov's momentum."""

    def means(self, gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """One gradient ahead."""
        decays = self.betas
        first.lerp_(gradient, 1 - decays[0])
        second.mul_(decays[1]).addcmul_(gradient, gradient, value=1 - decays[1])
        return first.lerp(gradient, 1 - decays[0])


class RowAdam(AdamVariant):
    """Adam whose step has the direction of the mean gradient within each splat's offset, shape and amplitude."""

    def means(self, gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Squares are averaged over a splat's row."""
        decays = self.betas
        first.lerp_(gradient, 1 - decays[0])
        second.lerp_(gradient.square().mean(1, keepdim=True).expand_as(second), 1 - decays[1])
        return first


def with_adam(
    case: Case,
    kind: type[Adam],
    rate: float = 1.0,
    betas: tuple[float, float] | None = None,
    schedule: Callable[[int, int], Schedule] = half_cosine,
) -> Splats:
    """The package's fit with another kind of Adam, or another fall of its learning rates.

    Args:
        schedule: of the number of iterations and those of warming up.
    """
    model = case.model(case.start())
    rates = [rate * own for own in natural_rates(case)]
    optimizer = kind(model.parameters(), rates, betas or betas_of(case.stack.tuning, case.stack.iterations))
    falling = schedule(case.stack.iterations, case.stack.tuning.warmup)
    case.descend(model, optimizer, case.relocations(model, optimizer), schedule=falling)
    return model.splats()


class Curvature:
    """Momentum on gradients over the Gauss-Newton diagonal that the splats would have far from each other."""

    def __init__(self, case: Case, model: SplatModel, rate: float, momentum: float) -> None:
        self._model = model
        self._rate = rate
        self._momentum = momentum
        self._layer_weights = torch.from_numpy(layer_weights(case)[:, None].astype(np.float32))
        self._moved = [torch.zeros_like(parameter) for parameter in model.parameters()]

    def step(self, scale: float) -> None:
        """One step."""
        parts = isolated_curvature(self._model.amplitudes, self._model.shapes).split(
            [2, 3, len(self._model.means[0]) + 1], 1
        )
        for parameter, moved, part in zip(self._model.parameters(), self._moved, parts, strict=True):
            curvature = 2 * self._layer_weights * part
            moved.mul_(self._momentum).addcdiv_(
                parameter.grad, curvature + 0.05 * curvature.mean(), value=-scale * self._rate
            )
            parameter += moved.clamp(-0.5, 0.5) if parameter is not self._model.amplitudes else moved

    def forget(self, rows: torch.Tensor) -> None:
        """Start these rows anew."""
        for moved in self._moved:
            moved[rows] = 0


def isolated_curvature(amplitudes: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
    """[N, 5 + C] integral of the squared derivative of a splat by its natural coordinates."""
    energy = amplitudes.square().sum(1, keepdim=True)
    lengths = energy * (0.5 + shapes[:, 1:2] ** 2 / 4)
    return torch.cat([energy / 2, energy / 2, lengths, energy / 4, lengths, torch.ones_like(amplitudes)], dim=1)


def curvature(case: Case, rate: float) -> Splats:
    """Momentum over that diagonal in place of Adam."""
    model = case.model(case.start())
    optimizer = Curvature(case, model, rate, momentum=0.9)
    case.descend(model, optimizer, case.relocations(model, optimizer))
    return model.splats()


class FlooredModel(SplatModel):
    """Splats whose covariance is that of the parameters plus a constant (GaussianImage's low-pass filter)."""

    floor = 0.5  # pixels squared

    def _widened(self, shapes: torch.Tensor) -> torch.Tensor:
        l1, l3 = shapes[:, 0].exp(), shapes[:, 2].exp()
        l2 = shapes[:, 1] * l3
        wide1 = (l1.square() + self.floor).sqrt()
        wide2 = l1 * l2 / wide1
        return torch.stack([wide1, wide2, (l2.square() + l3.square() + self.floor - wide2.square()).sqrt()], dim=1)

    def _energies(self, cholesky: torch.Tensor) -> torch.Tensor:
        return (math.pi * cholesky[:, 0] * cholesky[:, 2]).sqrt()[:, None]

    def splats(self) -> Splats:
        """As a renderer wants them, widened."""
        cholesky = self._widened(self.shapes)
        means = (self.means + 0.5) * (2 / self.size) - 1
        return Splats(means.numpy(), cholesky.numpy(), (self.amplitudes / self._energies(cholesky)).numpy())

    def set_gradients(self, moments: NDArray[np.float32]) -> None:
        """As `SplatModel.set_gradients`, through the widening."""
        shapes, amplitudes = (tensor.clone().requires_grad_() for tensor in (self.shapes, self.amplitudes))
        cholesky = self._widened(shapes)
        colors = amplitudes / self._energies(cholesky)
        size = (int(self.size[0]), int(self.size[1]))
        by_mean, by_cholesky, by_color = plain_gradients(cholesky.detach(), torch.from_numpy(moments), size)
        torch.autograd.backward([cholesky, colors], [by_cholesky, by_color])
        l1, l2, l3 = self.cholesky().unbind(1)
        x, y = (by_mean * 2 / self.size).unbind(1)  # per pixel
        self.offsets.grad = torch.stack([l1 * x + l2 * y, l3 * y], dim=1)
        self.shapes.grad, self.amplitudes.grad = shapes.grad, amplitudes.grad

    def replace(self, rows: NDArray[np.integer], chosen: Splats) -> None:
        """As `SplatModel.replace`: round splats that are to look like the chosen ones."""
        lengths = np.sqrt(np.maximum(chosen.cholesky[:, [0, 2]] ** 2 - self.floor, 0.05)).astype(np.float32)
        narrow = np.stack([lengths[:, 0], chosen.cholesky[:, 1], lengths[:, 1]], axis=1)
        super().replace(rows, Splats(chosen.means, narrow, chosen.colors))
        into = torch.from_numpy(rows)
        energies = self._energies(self._widened(self.shapes[into]))
        self.amplitudes[into] = torch.from_numpy(chosen.colors) * energies


def floored(case: Case) -> Splats:
    """A covariance that has half a square pixel added."""
    model = FlooredModel(case.start(), case.stack.ends, *case.stack.size, FREE)
    optimizer = adam_of(model, case.stack.tuning, case.stack.iterations)
    case.descend(model, optimizer, case.relocations(model, optimizer))
    return model.splats()


# Schedules


def _rising(warmup: int, fall: Schedule) -> Schedule:
    return lambda iteration: min(1.0, (iteration + 1) / max(warmup, 1)) * fall(iteration)


def constant(iterations: int, warmup: int) -> Schedule:
    """No fall at all."""
    return _rising(warmup, lambda iteration: 1.0)


def halvings(iterations: int, warmup: int) -> Schedule:
    """Halved five times, after equal parts."""
    return _rising(warmup, lambda iteration: 0.5 ** (6 * iteration // iterations))


def linear(iterations: int, warmup: int) -> Schedule:
    """To zero in a straight line."""
    return _rising(warmup, lambda iteration: 1 - iteration / iterations)


def late(iterations: int, warmup: int) -> Schedule:
    """Constant for 0.6 of the iterations, then to zero in a straight line."""
    return _rising(warmup, lambda iteration: min(1.0, (1 - iteration / iterations) / 0.4))


def exponential(iterations: int, warmup: int) -> Schedule:
    """By the same factor in every iteration, to a thirtieth in the end."""
    return _rising(warmup, lambda iteration: 30.0 ** (-iteration / iterations))


def coarse_to_fine(case: Case, share: float) -> Splats:
    """Half-size pictures first."""
    stack, info = case.stack, case.picture.info
    half = ((info.width + 1) // 2, (info.height + 1) // 2)
    small = LevelSizes(info, [half] * stack.objective.num_levels, load("cpu")).read(case.picture.frame).objective
    small.rasterizer = stack.objective.rasterizer
    model = case.model(case.start())
    optimizer = adam_of(model, stack.tuning, stack.iterations)
    first = round(share * stack.iterations)
    coarse = case._replace(stack=stack._replace(objective=small))
    case.descend(model, optimizer, coarse.relocations(model, optimizer), objective=small, iterations=first)
    rest = stack.iterations - first
    case.descend(model, optimizer, case.relocations(model, optimizer), iterations=rest, done=first)
    return model.splats()


# Where splats start


def start_by(case: Case, detail: Callable[[UnitFrame, float], NDArray[np.float64]]) -> Splats:
    """Positions drawn by another measure of detail, sizes and all else as the package has them.

    Args:
        detail: [h, w] from a picture and the distance between splats in samples.
    """
    stack, picture = case.stack, case.stack.objective.targets[-1].picture
    width, height = stack.size
    count = stack.ends[-1]
    amount = detail(picture, math.sqrt(width * height / count)) + 1e-6
    share = stack.tuning.detail_share
    density = (share * amount / amount.sum() + (1 - share) / amount.size).ravel()
    places = stack.rng.choice(density.size, count, replace=False, p=density / density.sum())
    rows, columns = np.divmod(places, width)
    sizes = np.diff([0, *stack.ends])
    lengths = np.maximum(stack.tuning.start_size / np.sqrt(density[places] * np.repeat(sizes, sizes)), 0.5)
    means = np.stack([2 * (columns + 0.5) / width - 1, 2 * (rows + 0.5) / height - 1], axis=1)
    means += stack.rng.uniform(-0.25, 0.25, means.shape) * 2 / np.array([width, height])
    colors = 0.1 * np.stack([plane[rows, columns] for plane in picture], axis=1) - 0.1 * case.background
    cholesky = np.stack([lengths, np.zeros(count), lengths], axis=1)
    splats = Splats(*(array.astype(np.float32) for array in (means, cholesky, colors)))
    model = case.model(splats)
    optimizer = adam_of(model, stack.tuning, stack.iterations)
    case.descend(model, optimizer, case.relocations(model, optimizer))
    return model.splats()


def variance(picture: UnitFrame, spacing: float) -> NDArray[np.float64]:
    """Standard deviation within half a distance between splats."""
    planes = np.stack(picture).astype(np.float64)
    mean = np.stack([gaussian_filter(plane, spacing / 2) for plane in planes])
    square = np.stack([gaussian_filter(plane**2, spacing / 2) for plane in planes])
    return np.sqrt(np.maximum(square - mean**2, 0).sum(axis=0))


def residual(picture: UnitFrame, spacing: float) -> NDArray[np.float64]:
    """What even splats would leave: the distance to a low-passed picture."""
    planes = np.stack(picture).astype(np.float64)
    return np.sqrt(sum((plane - gaussian_filter(plane, spacing / 2)) ** 2 for plane in planes))


def growing(case: Case, share: float, *, until: float = 0.6) -> Splats:
    """Start with a share of each layer's splats; the others are born at the residual's best places on the way.

    Nothing else is relocated.  Splats that wait have no colour and cost no time.

    Args:
        until: share of the iterations after which all are born.
    """
    splats = case.tuned(awake=1.0).start()
    asleep = np.concatenate(
        [
            np.arange(end - round((1 - share) * size), end)
            for end, size in zip(case.stack.ends, case.stack.sizes, strict=True)
        ]
    )
    colors = splats.colors.copy()
    colors[asleep] = 0
    model = case.model(Splats(splats.means, splats.cholesky, colors))
    optimizer = adam_of(model, case.stack.tuning, case.stack.iterations)
    events = min(30, int(until * case.stack.iterations))
    interval = max(int(until * case.stack.iterations) // max(events, 1), 1)

    def grow(iteration: int, shown: Splats, step: StepResult) -> None:
        turn = iteration // interval
        if iteration % interval or not 1 <= turn <= events:
            return
        for layer in range(len(case.stack.ends)):
            start, end = layer_rows(case, layer)
            left = asleep[(start <= asleep) & (asleep < end)]
            left = left[(model.amplitudes[torch.from_numpy(left)] == 0).all(dim=1).numpy()]
            born = births_of(case, shown, layer, math.ceil(len(left) / (events + 1 - turn)))
            rows = left[: len(born.gains)]
            model.replace(rows, born.splats[: len(rows)])
            optimizer.forget(torch.from_numpy(rows))

    case.descend(model, optimizer, Each(grow))
    return model.splats()


# Where splats go


def layer_rows(case: Case, layer: int) -> tuple[int, int]:
    """First row of a layer, and the one behind its last."""
    ends = [0, *case.stack.ends]
    return ends[layer], ends[layer + 1]


def layer_weights(case: Case) -> NDArray[np.float64]:
    """[N] sum of the weights of the levels that a splat is in."""
    weights = np.cumsum(case.stack.level_weights(0)[::-1])[::-1]
    return np.repeat(weights, case.stack.sizes)


def births_of(case: Case, splats: Splats, layer: int, most: int) -> Births:
    """The package's matched filter over the residual of a layer."""
    stack = case.stack
    weights = stack.level_weights(0)
    rest = stack.objective.weighted_residual(layer, splats, case.background, stack.ends, weights)
    return births.find_births(rest, sum(weights[layer:]), stack.size, stack.sizes[layer], most)


def with_births(case: Case, find: Callable[..., Births]) -> Splats:
    """The package's fit with other candidates for births.

    Args:
        find: takes the random generator, and what `births.find_births` takes.
    """
    with mock.patch.object(objectives, "find_births", partial(find, case.stack.rng)):
        return fit(case)


def usual_length(full_size: tuple[int, int], layer_size: int) -> float:
    """Standard deviation in full-size pixels of a splat in the middle of a layer's fit."""
    return 0.2 * math.sqrt(math.prod(full_size) / layer_size)


def round_splats(x: NDArray[np.float64], y: NDArray[np.float64], length: float, rest: UnitFrame) -> Splats:
    """Splats of one size in the colours that take most off a residual of full size."""
    height, width = rest[0].shape
    lengths = np.full(len(x), length)
    colors = np.empty((len(x), len(rest)), np.float32)
    for channel, plane in enumerate(rest):
        births._colors(np.ascontiguousarray(plane), x, y, lengths, lengths, colors[:, channel])
    means = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], axis=1).astype(np.float32)
    return Splats(means, np.tile(np.array([length, 0, length], np.float32), (len(x), 1)), colors)


def priced(splats: Splats, weight: float) -> Births:
    """Best first: what such splats take off, one by one; they start with a part of their colours."""
    areas = math.pi * splats.cholesky[:, 0].astype(np.float64) ** 2
    gains = areas / weight * (splats.colors.astype(np.float64) ** 2).sum(axis=1)
    order = np.argsort(-gains, kind="stable")
    faint = Splats(splats.means, splats.cholesky, splats.colors * np.float32(0.6 / weight))
    return Births(gains[order], faint[order])


def single_scale(
    rng: np.random.Generator, rest: UnitFrame, weight: float, full_size: tuple[int, int], layer_size: int, most: int
) -> Births:
    """Peaks of the matched filter of one size."""
    length = usual_length(full_size, layer_size)
    energy = sum(gaussian_filter(plane, length, mode="constant") ** 2 for plane in rest)
    rows, columns = np.nonzero(energy == maximum_filter(energy, size=2 * math.ceil(length) + 1))
    best = np.argsort(-energy[rows, columns], kind="stable")[:most]
    return priced(round_splats(columns[best].astype(float), rows[best].astype(float), length, rest), weight)


def random_places(
    rng: np.random.Generator, rest: UnitFrame, weight: float, full_size: tuple[int, int], layer_size: int, most: int
) -> Births:
    """Anywhere, priced as the matched filter is."""
    height, width = rest[0].shape
    x, y = rng.uniform(0, width - 1, most), rng.uniform(0, height - 1, most)
    return priced(round_splats(x, y, usual_length(full_size, layer_size), rest), weight)


def random_injection(
    rng: np.random.Generator, rest: UnitFrame, weight: float, full_size: tuple[int, int], layer_size: int, most: int
) -> Births:
    """The paper's: anywhere, in any faint colour, as many as may be moved, at any price."""
    length = usual_length(full_size, layer_size)
    means = rng.uniform(-1, 1, (most, 2)).astype(np.float32)
    cholesky = np.tile(np.array([length, 0, length], np.float32), (most, 1))
    colors = rng.uniform(-0.1, 0.1, (most, len(rest))).astype(np.float32)
    return Births(np.full(most, np.inf), Splats(means, cholesky, colors))


def merging(case: Case) -> Splats:
    """Relocations, and now and then pairs of a layer that one splat could show; what is left over is born elsewhere."""
    model = case.model(case.start())
    optimizer = adam_of(model, case.stack.tuning, case.stack.iterations)
    relocations = case.relocations(model, optimizer)
    interval = max(case.stack.iterations // 20, 1)
    weights = layer_weights(case)

    def between(iteration: int, shown: Splats, step: StepResult) -> None:
        relocations(iteration, shown, step)
        if iteration % interval or not 1 <= iteration <= case.stack.tuning.relocated_until * case.stack.iterations:
            return
        now = model.splats()
        for layer in range(len(case.stack.ends)):
            start, end = layer_rows(case, layer)
            pairs, merged, rises = twins(now[start:end], case.stack.size)
            born = births_of(case, now, layer, len(pairs))
            count = min(len(pairs), len(born.gains))
            moved = int((0.9 * born.gains[:count] > weights[start] * rises[:count]).sum())
            first, second = start + pairs[:moved, 0], start + pairs[:moved, 1]
            model.replace(first, merged[:moved])
            model.replace(second, born.splats[:moved])
            optimizer.forget(torch.from_numpy(np.concatenate([first, second])))

    case.descend(model, optimizer, Each(between))
    return model.splats()


def twins(splats: Splats, size: tuple[int, int]) -> tuple[NDArray[np.intp], Splats, NDArray[np.float64]]:
    """Pairs of nearest neighbours, cheapest first: rows [K, 2], the K splats that could stand for them, and what the
    squared error rises by."""
    means = (splats.means.astype(np.float64) + 1) * np.array(size) / 2
    l1, l2, l3 = splats.cholesky.astype(np.float64).T
    covariance = np.stack([l1 * l1, l1 * l2, l2 * l2 + l3 * l3], axis=1)
    near = cKDTree(means).query(means, k=2)[1]
    # of splats at one place a splat itself may come second
    nearest = np.where(near[:, 1] == np.arange(len(means)), near[:, 0], near[:, 1])
    first = np.flatnonzero((nearest[nearest] == np.arange(len(means))) & (np.arange(len(means)) < nearest))
    second = nearest[first]
    colors = splats.colors.astype(np.float64)
    masses = np.abs(l1 * l3) * np.linalg.norm(colors, axis=1) + 1e-12
    share = (masses[first] / (masses[first] + masses[second]))[:, None]
    mean = share * means[first] + (1 - share) * means[second]
    spread = means[first] - means[second]
    outer = np.stack([spread[:, 0] ** 2, spread[:, 0] * spread[:, 1], spread[:, 1] ** 2], axis=1)
    merged = share * covariance[first] + (1 - share) * covariance[second] + share * (1 - share) * outer

    def product(a: NDArray, a_mean: NDArray, b: NDArray, b_mean: NDArray) -> NDArray[np.float64]:
        total, gap = a + b, a_mean - b_mean
        determinant = total[:, 0] * total[:, 2] - total[:, 1] ** 2
        q = total[:, 2] * gap[:, 0] ** 2 - 2 * total[:, 1] * gap[:, 0] * gap[:, 1] + total[:, 0] * gap[:, 1] ** 2
        volumes = (a[:, 0] * a[:, 2] - a[:, 1] ** 2) * (b[:, 0] * b[:, 2] - b[:, 1] ** 2)
        return 2 * math.pi * np.sqrt(volumes / determinant) * np.exp(-0.5 * q / determinant)

    own = [product(covariance[rows], means[rows], covariance[rows], means[rows]) for rows in (first, second)]
    crossed = product(covariance[first], means[first], covariance[second], means[second])
    onto = [product(covariance[rows], means[rows], merged, mean) for rows in (first, second)]
    energy = product(merged, mean, merged, mean)
    pulled = colors[first] * onto[0][:, None] + colors[second] * onto[1][:, None]
    squares = [(colors[a] * colors[b]).sum(1) for a, b in ((first, first), (second, second), (first, second))]
    rises = squares[0] * own[0] + squares[1] * own[1] + 2 * squares[2] * crossed - (pulled**2).sum(1) / energy
    length = np.sqrt(merged[:, 0])
    cholesky = np.stack([length, merged[:, 1] / length, np.sqrt(merged[:, 2] - (merged[:, 1] / length) ** 2)], axis=1)
    order = np.argsort(rises, kind="stable")
    arrays = (2 * mean / np.array(size) - 1, cholesky, pulled / energy[:, None])
    stand_ins = Splats(*(array.astype(np.float32) for array in arrays))
    return np.stack([first, second], axis=1)[order], stand_ins[order], np.maximum(rises[order], 0)


# Colours in closed form


def least_squares_colors(case: Case, splats: Splats, passes: int) -> Splats:
    """The best colours for splats that stay where they are, nearly: conjugate gradients over the rasteriser.

    In natural coordinates the diagonal of the normal equations is constant within a layer, so that is the
    preconditioner.  How far a splat reaches depends on its colour a little, so the residual is taken anew at times.
    """
    stack = case.stack
    weights = stack.level_weights(0)
    areas = math.pi * np.abs(splats.cholesky[:, 0] * splats.cholesky[:, 2]).astype(np.float64)
    scale = (1 / np.sqrt(2 * layer_weights(case) * areas))[:, None]
    own = splats.colors.astype(np.float64) / scale
    size = float(np.linalg.norm(own))

    def gradient(amplitudes: NDArray[np.float64]) -> NDArray[np.float64]:
        shown = Splats(splats.means, splats.cholesky, (scale * amplitudes).astype(np.float32))
        step = stack.objective.step(shown, case.background, stack.ends, weights)
        return scale * step.moments[:, : splats.channels]

    for first in range(0, passes, _SOLVING):
        base = gradient(own)
        rest, solved = -base, np.zeros_like(own)
        direction, square = rest, float((rest * rest).sum())
        for _ in range(min(_SOLVING, passes - first) - 1):
            # of the size of the colours, so that the difference is far above rounding
            stretch = size / float(np.linalg.norm(direction))
            image = (gradient(own + stretch * direction) - base) / stretch
            length = square / float((direction * image).sum())
            solved = solved + length * direction
            rest = rest - length * image
            last, square = square, float((rest * rest).sum())
            direction = rest + square / last * direction
        own = own + solved
    return Splats(splats.means, splats.cholesky, (scale * own).astype(np.float32))


def solved_colors(case: Case, place: float, passes: int = 12) -> Splats:
    """The package's fit with colours solved for after a share `place` of its iterations."""
    case = case.spending(case.stack.iterations - passes)
    start = case.start()
    if place == 0:
        start = least_squares_colors(case, start, passes)
    model = case.model(start)
    optimizer = adam_of(model, case.stack.tuning, case.stack.iterations)
    relocations = case.relocations(model, optimizer)
    when = round(place * case.stack.iterations)

    def between(iteration: int, shown: Splats, step: StepResult) -> None:
        relocations(iteration, shown, step)
        if iteration == when > 0:
            model.replace(np.arange(len(model)), least_squares_colors(case, model.splats(), passes))

    case.descend(model, optimizer, Each(between))
    splats = model.splats()
    return least_squares_colors(case, splats, passes) if place == 1 else splats


# Second order


class Chart:
    """Natural coordinates around some splats, scaled so that a splat far from others has the unit matrix as Hessian."""

    def __init__(self, case: Case, splats: Splats) -> None:
        self._case = case
        self._base = case.model(splats)
        self._lengths = self._base.cholesky().numpy().astype(np.float64)
        diagonal = isolated_curvature(self._base.amplitudes, self._base.shapes).numpy().astype(np.float64)
        diagonal *= 2 * layer_weights(case)[:, None]
        self._scale = 1 / np.sqrt(diagonal + 1e-3 * diagonal.mean(axis=0))

    @property
    def size(self) -> int:
        """Coordinates."""
        return self._scale.size

    def natural(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N, 5 + C] changes of offsets, shapes and amplitudes."""
        return x.reshape(self._scale.shape) * self._scale

    def model(self, x: NDArray[np.float64]) -> SplatModel:
        """The splats at x."""
        model = self._case.model(self._base.splats())
        change = self.natural(x)
        model.offsets.copy_(torch.from_numpy(change[:, :2]))
        model.settle()
        model.shapes += torch.from_numpy(change[:, 2:5]).float()
        model.amplitudes += torch.from_numpy(change[:, 5:]).float()
        model.settle()
        return model

    def pull(self, model: SplatModel, moments: NDArray[np.float32]) -> NDArray[np.float64]:
        """Gradient by x from moments at a model's splats."""
        model.set_gradients(moments)
        gradient = torch.cat([parameter.grad for parameter in model.parameters()], dim=1).numpy().astype(np.float64)
        l1, l2, l3 = model.cholesky().numpy().astype(np.float64).T
        y = gradient[:, 1] / l3
        x = (gradient[:, 0] - l2 * y) / l1
        gradient[:, 0] = self._lengths[:, 0] * x + self._lengths[:, 1] * y
        gradient[:, 1] = self._lengths[:, 2] * y
        return (gradient * self._scale).ravel()

    def value(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Loss and gradient: a pass."""
        stack, model = self._case.stack, self.model(x)
        weights = stack.level_weights(0)
        step = stack.objective.step(model.splats(), self._case.background, stack.ends, weights)
        # per picture, as the moments are
        loss = stack.objective.loss(step.squared_error, weights) * math.prod(stack.size)
        return loss, self.pull(model, step.moments)


def lbfgs(case: Case, splats: Splats, passes: int) -> Splats:
    """L-BFGS with ten pairs and a line search."""
    chart = Chart(case, splats)
    options = {"maxfun": passes, "maxiter": passes, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}
    found = minimize(chart.value, np.zeros(chart.size), jac=True, method="L-BFGS-B", options=options)
    return chart.model(found.x).splats()


def newton(case: Case, splats: Splats, passes: int, *, gauss: bool, inner: int = 8) -> Splats:
    """Levenberg-Marquardt without matrices: conjugate gradients on products of the Hessian.

    Args:
        passes: renders count as `RENDER` of one.
        gauss: products J^T W J p, from a render of the moved splats and a backward pass per level; else those of the
            whole Hessian, from differences of gradients, until their curvature is negative.
        inner: iterations of conjugate gradients per step.
    """
    spent, damping = 1.0, 0.1
    chart = Chart(case, splats)
    loss, gradient = chart.value(np.zeros(chart.size))
    while spent < passes:
        still = _still(case, splats)
        image = np.zeros_like(gradient)
        step, rest = np.zeros_like(gradient), -gradient
        direction, square = rest, float(rest @ rest)
        for _ in range(inner):
            epsilon = 1e-2 / max(float(np.sqrt(np.mean(chart.natural(direction) ** 2))), 1e-30)
            moved = chart.model(epsilon * direction)
            if gauss:
                image = chart.pull(chart.model(np.zeros(chart.size)), still(moved.splats())) / epsilon
                spent += RENDER + len(case.stack.ends)
            else:
                image = (chart.value(epsilon * direction)[1] - gradient) / epsilon
                spent += 1
            image = image + damping * direction
            bend = float(direction @ image)
            if bend <= 0:
                break
            length = square / bend
            step = step + length * direction
            rest = rest - length * image
            last, square = square, float(rest @ rest)
            direction = rest + square / last * direction
        step = step if step.any() else -gradient
        for shrink in (1.0, 0.4, 0.1):
            trial = chart.model(shrink * step).splats()
            next_chart = Chart(case, trial)
            trial_loss, trial_gradient = next_chart.value(np.zeros(chart.size))
            spent += 1
            if trial_loss < loss:
                splats, chart, loss, gradient = trial, next_chart, trial_loss, trial_gradient
                break
        damping = max(damping * {1.0: 0.6, 0.4: 1.5, 0.1: 3.0}[shrink], 1e-4)
    return splats


def _still(case: Case, splats: Splats) -> Callable[[Splats], NDArray[np.float32]]:
    """A function from moved splats to the moments of the unmoved ones against what the move changes in every level."""
    stack = case.stack
    objective, weights = stack.objective, stack.level_weights(0)
    before = objective.residuals(splats, case.background, stack.ends)

    def moments(moved: Splats) -> NDArray[np.float32]:
        after = objective.residuals(moved, case.background, stack.ends)
        summed = np.zeros((len(splats), splats.channels + 5), np.float32)
        for level, (end, weight) in enumerate(zip(stack.ends, weights, strict=True)):
            target = objective.targets[level]
            # the level's residual against this picture is minus the change
            wanted = tuple(
                plane - old - (old - new)
                for plane, old, new in zip(target.picture, before[level], after[level], strict=True)
            )
            single = Objective(stack.size, [LevelTarget(wanted, target.grids)], objective.rasterizer)
            summed[:end] += single.step(splats[:end], case.background, [end], [weight]).moments
        return summed

    return moments


def then(case: Case, iterations: int, refine: Callable[[Case, Splats, int], Splats]) -> Splats:
    """The package's fit for some iterations, without relocations behind them, and something else for the other passes.

    Args:
        refine: takes a case, splats and passes.
    """
    splats = fit(case.spending(iterations))
    return refine(case, splats, case.stack.iterations - iterations)
