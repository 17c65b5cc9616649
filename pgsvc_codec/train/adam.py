"""Adam on the parameters of a splat model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_BETAS = (0.8, 0.9)  # short memory: a few hundred iterations are all there are
_EPSILON = 1e-12  # far below any gradient of a sum over pixels


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
