"""Adam on the parameters of a splat model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_EPSILON = 1e-12  # far below any gradient of a sum over pixels


class Adam:
    """Adam on a few small tensors.

    torch's own class imports torch's compiler on first use, two seconds of every encode, and spends longer on its
    bookkeeping than on tensors of this size.

    Args:
        parameters: changed in place by `step`, which reads their `grad`.
        rates: one learning rate per parameter.
        betas: decay of the means of gradients and of their squares.

    Attributes:
        rates, betas: as given.
        first, second: means of each parameter's gradients and of their squares.
        steps: so far.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], rates: Sequence[float], betas: tuple[float, float]) -> None:
        self._parameters = list(parameters)
        self.rates = list(rates)
        self.betas = betas
        self.first = [torch.zeros_like(parameter) for parameter in parameters]
        self.second = [torch.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    def step(self, scale: float) -> None:
        """One step, with all learning rates times `scale`."""
        self.steps += 1
        first_decay, second_decay = self.betas
        first_bias, second_bias = (1 - beta**self.steps for beta in self.betas)
        rows = zip(self._parameters, self.rates, self.first, self.second, strict=True)
        for parameter, rate, first, second in rows:
            gradient = parameter.grad
            assert gradient is not None
            first.lerp_(gradient, 1 - first_decay)
            second.mul_(second_decay).addcmul_(gradient, gradient, value=1 - second_decay)
            spread = (second / second_bias).sqrt_().add_(_EPSILON)
            parameter.addcdiv_(first, spread, value=-scale * rate / first_bias)

    def forget(self, rows: torch.Tensor) -> None:
        """Start these rows anew; without a history of their own they move as far as the others do on average."""
        for first, second in zip(self.first, self.second, strict=True):
            first[rows] = 0.0
            second[rows] = second.mean(0)
