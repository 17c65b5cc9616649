"""Iterations of the joint fit: Adam in natural coordinates, with parts of the splats held where they are.

All arithmetic that decides anything is elementwise and runs on one thread, the sums are the rasteriser's, in fixed
order: the same seed gives the same splats for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import LevelWeights, step_scale

_OFFSET_RATE = 0.6  # standard deviations of the splat per step
_SHAPE_RATE = 0.18  # of log lengths and shear
_AMPLITUDE_RATE = 0.07  # times sqrt(pixels per splat): amplitudes grow with the area a splat has to itself
_BETAS = (0.8, 0.9)  # short memory: a few hundred iterations are all there are
_EPSILON = 1e-12  # far below any gradient of a sum over pixels


@dataclass(frozen=True)
class Held:
    """Rows of the model that a descent must not move."""

    geometry: NDArray[np.bool_]  # [N] means and shapes
    amplitudes: NDArray[np.bool_]  # [N] amplitudes; with the geometry held too, that is colours


class Adam:
    """Adam on a few small tensors.

    torch's own class imports torch's compiler on first use, two seconds of every encode, and spends longer on its
    bookkeeping than on tensors of this size.

    Args:
        parameters: changed in place by `step`, which reads their `grad`.
        rates: one learning rate per parameter.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], rates: Sequence[float]) -> None:
        self._parameters = list(parameters)
        self._rates = list(rates)
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = 0

    def step(self, scale: float) -> None:
        """One step, with all learning rates times `scale`."""
        self._steps += 1
        first_bias, second_bias = (1 - beta**self._steps for beta in _BETAS)
        rows = zip(self._parameters, self._rates, self._first, self._second, strict=True)
        for parameter, rate, first, second in rows:
            gradient = parameter.grad
            assert gradient is not None
            first.lerp_(gradient, 1 - _BETAS[0])
            second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            spread = (second / second_bias).sqrt_().add_(_EPSILON)
            parameter.addcdiv_(first, spread, value=-scale * rate / first_bias)


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
        background: [C].
        level_weights: which levels iteration i supervises.
        iterations: in all; the learning rates fall to zero over them.
        rate: factor on all learning rates.
        warmup: iterations over which the rates rise.
    """

    def __init__(
        self,
        model: SplatModel,
        objective: Objective,
        background: NDArray[np.float32],
        level_weights: LevelWeights,
        iterations: int,
        *,
        rate: float = 1.0,
        warmup: int = 10,
    ) -> None:
        self._model = model
        self._objective = objective
        self._background = background
        self._level_weights = level_weights
        self._iterations = iterations
        self._warmup = warmup
        self._done = 0
        pixels_per_splat = objective.width * objective.height / max(len(model), 1)
        rates = (_OFFSET_RATE, _SHAPE_RATE, _AMPLITUDE_RATE * math.sqrt(pixels_per_splat))
        self._optimizer = Adam(model.parameters(), [rate * peak for peak in rates])

    def run(self, iterations: int, held: Held | None = None) -> None:
        """The next `iterations`, with the rows of `held` left alone."""
        model = self._model
        geometry, amplitudes = (_rows(held.geometry), _rows(held.amplitudes)) if held else (_rows(None), _rows(None))
        with single_threaded_torch():
            for _ in range(iterations if len(model) else 0):
                weights = self._level_weights(self._done)
                step = self._objective.step(model.splats(), self._background, model.ends, weights)
                model.set_gradients(step.moments)
                kept = model.means[geometry], model.shapes[geometry], model.amplitudes[amplitudes]
                self._optimizer.step(step_scale(self._done, self._iterations, self._warmup))
                model.settle()
                model.means[geometry], model.shapes[geometry], model.amplitudes[amplitudes] = kept
                self._done += 1


def _rows(mask: NDArray[np.bool_] | None) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(mask) if mask is not None else np.zeros(0, np.int64))
