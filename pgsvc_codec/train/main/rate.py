"""What splats of the `main` profile cost, as a smooth function of their parameters that a fit can descend.

One splat of a layer with n splats and step D costs about

    places    log2(area e / n) - log2(step_x step_y): where it lies among n that have no order
    shape     log2 of the scale over the step, more the further it lies from the layer's usual shapes
    amplitude |k| / mean |k| and the sign, per plane, k = a / D

in bits, where steps of shapes and places are those of `coding.main.state`: l1, l3 and one octave, over 2^e with
2^e = |a| / D.  So five of its eight numbers cost a bit more each time its amplitude doubles; that of the colours is
counted alike, for few strong splats are then replaced by fewer bits than many weak ones (5 % of the rate).
The Laplacian and logistic densities are as wide as the layer's own parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

_LN2 = math.log(2.0)
_LOGISTIC_SCALE = math.log(3.0)  # half the distance between the quartiles of a logistic density of scale 1
_NARROWEST = 0.05  # scale of a layer's shapes, of which there may be few
FINER = 8.0  # parameters that cost a bit more when the amplitude doubles
CELL = 8.0  # pixels: no step of a position is wider


class Densities(NamedTuple):
    """What each of some splats is coded with: rows of one layer are equal."""

    step: torch.Tensor  # [n] D in unit values
    place: torch.Tensor  # [n] bits of a place at steps of one pixel
    centers: torch.Tensor  # [n, 3] of log l1, t, log l3
    scales: torch.Tensor  # [n, 3] likewise
    magnitudes: torch.Tensor  # [n, C] mean |k|

    @classmethod
    def of_layer(cls, shapes: torch.Tensor, amplitudes: torch.Tensor, step: float, area: float) -> Densities:
        """Those that suit the splats of a layer, a row for each.

        Args:
            shapes: [n, 3] log l1, t, log l3.
            amplitudes: [n, C] unit values.
            step: D in unit values.
            area: of the frame in pixels.
        """
        count = len(shapes)
        if not count:
            return cls(torch.empty(0), torch.empty(0), shapes, shapes, amplitudes)
        quarters = [count * quarter // 4 for quarter in (1, 2, 3)]
        ordered = np.partition(np.ascontiguousarray(shapes.numpy().T), quarters, axis=1)
        low, middle, high = torch.from_numpy(ordered[:, quarters]).unbind(dim=1)
        scales = ((high - low) / (2 * _LOGISTIC_SCALE)).clamp(min=_NARROWEST)
        magnitudes = (amplitudes.abs().mean(dim=0) / step).clamp(min=0.1)
        place = math.log2(max(area * math.e / count, 1.0))
        rows = (value.expand(count, *value.shape) for value in (middle, scales, magnitudes))
        return cls(torch.full((count,), step), torch.full((count,), place), *rows)

    @property
    def any_bits(self) -> torch.Tensor:
        """[n] what `rate_of` counts whatever the splat is."""
        shape = torch.log2(self.scales).sum(dim=1) + 3 * math.log2(1 / _LN2)
        return self.place + shape + torch.log2(2 * self.magnitudes).sum(dim=1)

    @staticmethod
    def concatenate(parts: Sequence[Densities]) -> Densities:
        """Those of several layers, one behind the other."""
        return Densities(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


class Rate(NamedTuple):
    """Bits of splats and their slopes."""

    bits: torch.Tensor  # [n]
    shapes: torch.Tensor  # [n, 3] d bits / d (log l1, t, log l3)
    amplitudes: torch.Tensor  # [n, C] d bits / d a


def rate_of(shapes: torch.Tensor, amplitudes: torch.Tensor, costs: Densities) -> Rate:
    """Bits of splats.

    Args:
        shapes: [n, 3] log l1, t, log l3.
        amplitudes: [n, C] unit values.
        costs: a row for each.
    """
    k = amplitudes / costs.step[:, None]
    energy = 1.0 + k.square().sum(dim=1)  # 4^e
    relative = (shapes - costs.centers) / costs.scales
    # steps of a pixel or less are finer than lengths tell, those of a cell are as coarse as they get
    spans = shapes[:, ::2] / _LN2
    inside = (spans - 0.5 * torch.log2(energy)[:, None]) < math.log2(CELL)
    k_size = (k.square() + 0.1).sqrt()
    spread = 2 * torch.nn.functional.softplus(relative) - relative  # -ln of the logistic density
    bits = (
        costs.place
        - torch.where(inside, spans, 0.5 * torch.log2(energy)[:, None] + math.log2(CELL)).sum(dim=1)
        + (torch.log2(costs.scales).sum(dim=1) + spread.sum(dim=1) / _LN2 + 3 * math.log2(1 / _LN2))
        + 0.5 * FINER * torch.log2(energy)
        + (k_size / costs.magnitudes / _LN2 + torch.log2(2 * costs.magnitudes)).sum(dim=1)
    )
    by_shape = torch.tanh(0.5 * relative) / costs.scales / _LN2
    by_shape[:, ::2] -= inside / _LN2
    finer = FINER - (~inside).sum(dim=1)
    by_amplitude = k * (finer / _LN2 / costs.step / energy)[:, None]
    by_amplitude += k / k_size / costs.magnitudes / (_LN2 * costs.step)[:, None]
    return Rate(bits, by_shape, by_amplitude)
