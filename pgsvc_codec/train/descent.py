"""Iterations of a fit: render, take gradients, step, with parts of the splats held where they are.

All arithmetic that decides anything is elementwise and runs on one thread, the sums are the rasteriser's, in fixed
order: the same seed gives the same splats for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.lsq import QuantizedModel
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.place import device_of
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.schedule import LevelWeights

_STRETCH = 500  # iterations with Adan at most that a device has at a time


class Model(Protocol):
    """Splats in layers, in the coordinates that an optimiser moves."""

    ends: list[int]  # cumulative layer sizes

    def __len__(self) -> int: ...

    def parameters(self) -> list[torch.Tensor]:
        """What an optimiser moves; each has a `grad`."""
        ...

    def splats(self) -> Splats:
        """The splats as a renderer wants them."""
        ...

    def set_gradients(self, moments: NDArray[np.float32]) -> None:
        """Gradients of `parameters` from the moments [N, C + 5] of `reference.StepResult`."""
        ...

    def settle(self) -> None:
        """After an optimiser's step: back to where splats may be."""
        ...


class Optimizer(Protocol):
    """Moves the parameters of a model by their gradients."""

    def step(self, scale: float) -> None:
        """One step, with all learning rates times `scale`."""
        ...


class Iteration(NamedTuple):
    """What one iteration saw, before its step."""

    loss: float  # Eq. 7 over the levels that the iteration supervised
    gradient_norm: float  # of all parameters


Observer = Callable[[Iteration], None]


class Between(Protocol):
    """What happens to a model between iterations."""

    def is_due(self, iteration: int) -> bool:
        """Whether anything happens after an iteration."""
        ...

    def __call__(self, iteration: int, splats: Splats, step: StepResult) -> None:
        """Told, after an optimiser's step, which iteration that was, and of its gradients and where they were taken."""
        ...


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """torch splits elementwise work by thread count, and vector ends round differently; tensors here are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Descent:
    """Iterations on one model, in one or several runs over which the optimiser's memory lasts.

    Args:
        model: changed in place.
        optimizer: of the model's parameters.
        background: [C].
        level_weights: which levels iteration i supervises.
        step_scale: factor on the learning rates of iteration i.
        observe: told of every iteration.
        done: iterations before this descent, for schedules that go on.
        between: called after those iterations for which it is due; may replace splats of the model.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        objective: Objective,
        background: NDArray[np.float32],
        level_weights: LevelWeights,
        step_scale: Callable[[int], float],
        observe: Observer | None = None,
        done: int = 0,
        between: Between | None = None,
    ) -> None:
        self.model = model
        self._optimizer = optimizer
        self._objective = objective
        self._background = background
        self._level_weights = level_weights
        self._step_scale = step_scale
        self._observe = observe
        self._between = between
        self.done = done

    def run(self, iterations: int) -> float:
        """The next `iterations`; the loss that the last of them saw, 0 where there was none."""
        model, loss = self.model, 0.0
        if not len(model):
            return loss
        if self._captured_on is not None:
            return self.each(iterations)[-1] if iterations else loss
        device = device_of(self._objective.rasterizer)
        # what is observed is observed here, and other models have no kernels
        if device is not None and self._observe is None and type(self._optimizer) is Adam:
            assert isinstance(model, SplatModel)
            return self._run_there(model, self._optimizer, iterations, device)
        with single_threaded_torch():
            for _ in range(iterations):
                weights = self._level_weights(self.done)
                splats = model.splats()
                step = self._objective.step(splats, self._background, model.ends, weights)
                loss = self._objective.loss(step.squared_error, weights)
                model.set_gradients(step.moments)
                if self._observe is not None:
                    self._observe(Iteration(loss, gradient_norm(model.parameters())))
                self._optimizer.step(self._step_scale(self.done))
                model.settle()
                if self._between is not None and self._between.is_due(self.done):
                    self._between(self.done, splats, step)
                self.done += 1
        return loss

    def each(self, iterations: int) -> list[float]:
        """As `run`; the loss that each of the iterations saw."""
        device, optimizer = self._captured_on, self._optimizer
        if device is None:
            return [self.run(1) for _ in range(iterations)]
        from pgsvc_codec.train.cuda import coded, plain

        model = self.model
        assert isinstance(model, PlainModel | QuantizedModel) and isinstance(optimizer, Adan)
        losses: list[float] = []
        for begin in range(0, iterations, _STRETCH):
            numbers = range(self.done, self.done + min(_STRETCH, iterations - begin))
            frame = self._objective, self._background
            weights = [self._level_weights(number) for number in numbers]
            scales = [self._step_scale(number) for number in numbers]
            if isinstance(model, PlainModel):
                losses += plain.run(plain.Going(model, optimizer, *frame, weights, scales), device)
            else:
                going = plain.Going(model.model, optimizer, *frame, weights, scales, model.parts)
                losses += coded.run(going, device)
            self.done = numbers.stop
        return losses

    @property
    def _captured_on(self) -> torch.device | None:
        """The device that has iterations with Adan; None: they are made here, as all that is observed."""
        if not isinstance(self._optimizer, Adan) or self._observe is not None or self._between is not None:
            return None
        return device_of(self._objective.rasterizer)

    def _run_there(self, model: SplatModel, optimizer: Adam, iterations: int, device: torch.device) -> float:
        """As `run`, on a device, in runs that end where something happens between iterations."""
        from pgsvc_codec.train.cuda.runs import Going, run

        loss, end, between = 0.0, self.done + iterations, self._between
        while self.done < end:
            numbers = range(self.done, end)
            last = end - 1 if between is None else next(filter(between.is_due, numbers), end - 1)
            numbers = range(self.done, last + 1)
            weights = [self._level_weights(number) for number in numbers]
            scales = [self._step_scale(number) for number in numbers]
            going = Going(model, optimizer, self._objective, self._background, weights, scales)
            seen = run([going], device)[0]
            loss = seen.loss
            if between is not None and between.is_due(last):
                between(last, seen.splats, seen.step)
            self.done = last + 1
        return loss


def gradient_norm(parameters: Sequence[torch.Tensor]) -> float:
    """Euclidean norm over all parameters."""
    gradients = [parameter.grad.double() for parameter in parameters if parameter.grad is not None]
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
