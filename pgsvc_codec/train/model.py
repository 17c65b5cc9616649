"""The splats of a fit as an optimiser wants them: in coordinates where the metric is flat.

Natural (whitened) coordinates of a splat with L = [[l1, 0], [t l3, l3]]:

    v   offset of the mean in units of its own ellipse, d mean = L dv
    s   (log l1, t, log l3)
    a   colour times sqrt(pi l1 l3): the integral of g^2 is pi l1 l3, so |a|^2 is the energy of an isolated splat

One step size per coordinate then suits splats of every size and brightness; plain coordinates need about five times
the iterations.  Gradients come in closed form from the rasteriser's moments, so autograd is not involved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.splats import Splats
from pgsvc_codec.train.tuning import CODED, Limits


@dataclass(frozen=True)
class Held:
    """Rows that must not move."""

    geometry: NDArray[np.bool_]  # [N] means and shapes
    amplitudes: NDArray[np.bool_]  # [N] amplitudes; with the geometry held too, that is colours


class SplatModel:
    """N splats in layers; float32 tensors on the CPU.

    Attributes:
        ends: cumulative layer sizes.
        limits: as given.
        longest: [N] pixels.
        held_geometry, held_amplitudes: rows that must not move.
    """

    def __init__(self, splats: Splats, ends: Sequence[int], width: int, height: int, limits: Limits = CODED) -> None:
        self.ends = list(ends)  # cumulative layer sizes
        self.size = torch.tensor([width, height], dtype=torch.float32)
        count = len(splats)
        self.means = torch.empty(count, 2)  # [N, 2] full-size pixels
        self.offsets = torch.zeros(count, 2)  # [N, 2] v since the last step; folded into means by `settle`
        self.shapes = torch.empty(count, 3)  # [N, 3] s
        self.amplitudes = torch.empty(count, splats.channels)  # [N, C] a
        sizes = np.diff([0, *self.ends])
        longest = limits.longest * np.sqrt(width * height / np.maximum(sizes, 1))
        self.longest = torch.from_numpy(np.repeat(longest.clip(min=1.0), sizes).astype(np.float32))  # [N]
        self.limits = limits
        self._held: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # tensor, rows, their values
        self.held_geometry = self.held_amplitudes = np.zeros(0, np.intp)
        self.put(splats, np.arange(count))
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self) -> list[torch.Tensor]:
        """What an optimiser moves: offsets, shapes, amplitudes."""
        return [self.offsets, self.shapes, self.amplitudes]

    def put(self, splats: Splats, rows: NDArray[np.integer]) -> None:
        """Set the given rows to those of `splats`, which has as many rows as the model."""
        self.replace(rows, splats[rows])

    def replace(self, rows: NDArray[np.integer], chosen: Splats) -> None:
        """Set the given rows to other splats, one each."""
        into = torch.from_numpy(rows)
        l1, l2, l3 = torch.from_numpy(chosen.cholesky).unbind(1)
        # a column of L may change sign without changing the covariance
        l2, l1, l3 = l2 * torch.sign(l1), l1.abs(), l3.abs()
        energy = torch.sqrt(math.pi * l1 * l3)
        self.means[into] = (torch.from_numpy(chosen.means) + 1) * self.size / 2 - 0.5
        self.shapes[into] = torch.stack([l1.log(), l2 / l3, l3.log()], dim=1)
        self.amplitudes[into] = torch.from_numpy(chosen.colors) * energy[:, None]

    def hold(self, held: Held) -> None:
        """From here on `settle` puts these rows, and no others, back to what they are now."""
        self.held_geometry, self.held_amplitudes = np.flatnonzero(held.geometry), np.flatnonzero(held.amplitudes)
        geometry, amplitudes = torch.from_numpy(self.held_geometry), torch.from_numpy(self.held_amplitudes)
        tensors = ((self.means, geometry), (self.shapes, geometry), (self.amplitudes, amplitudes))
        self._held = [(tensor, rows, tensor[rows]) for tensor, rows in tensors]

    def _energy(self) -> torch.Tensor:
        """sqrt(pi l1 l3) of each splat."""
        return torch.exp(0.5 * (self.shapes[:, 0] + self.shapes[:, 2]) + 0.5 * math.log(math.pi))

    def cholesky(self) -> torch.Tensor:
        """[N, 3] l1, l2, l3 in full-size pixels."""
        l1, shear, l3 = self.shapes[:, 0].exp(), self.shapes[:, 1], self.shapes[:, 2].exp()
        return torch.stack([l1, shear * l3, l3], dim=1)

    def splats(self) -> Splats:
        """The splats as a value."""
        means = (self.means + 0.5) * (2 / self.size) - 1
        colors = self.amplitudes / self._energy()[:, None]
        return Splats(means.numpy(), self.cholesky().numpy(), colors.numpy())

    def set_gradients(self, moments: NDArray[np.float32]) -> None:
        """Gradients of `parameters` from the moments [N, C + 5] of `reference.StepResult`.

        With M = sum w u u^T: d/dL = tril(L^-T M), so d/d(log l1) = M11 - t M12, d/dt = M12, d/d(log l3) = t M12 + M22;
        at fixed amplitude the colour falls as the splat grows.  Those of amplitudes include the ridge of the limits.
        """
        channels = self.amplitudes.shape[1]
        columns = torch.from_numpy(moments)
        color = columns[:, :channels]
        m11, m12, m22 = columns[:, channels + 2], columns[:, channels + 3], columns[:, channels + 4]
        shear = self.shapes[:, 1]
        energy = self._energy()
        dilution = 0.5 * (color * self.amplitudes).sum(1) / energy
        coupled = shear * m12
        assert self.offsets.grad is not None and self.shapes.grad is not None and self.amplitudes.grad is not None
        self.offsets.grad.copy_(columns[:, channels : channels + 2])
        torch.stack([m11 - coupled - dilution, m12, coupled + m22 - dilution], dim=1, out=self.shapes.grad)
        torch.div(color, energy[:, None], out=self.amplitudes.grad)
        self.amplitudes.grad.add_(self.amplitudes, alpha=self.limits.ridge)

    def settle(self) -> None:
        """After an optimiser's step: offsets go into the means, shapes stay within reason, held rows where they are."""
        l1, l2, l3 = self.cholesky().unbind(1)
        self.means[:, 0] += l1 * self.offsets[:, 0]
        self.means[:, 1] += l2 * self.offsets[:, 0] + l3 * self.offsets[:, 1]
        self.offsets.zero_()
        # a mean outside the frame could not be coded; the splat may still straddle the border
        self.means.clamp_(min=-0.5)
        torch.minimum(self.means, self.size - 0.5 - 1e-3, out=self.means)
        limits, highest = self.limits, self.longest.log()
        for column in (0, 2):
            lengths = self.shapes[:, column].clamp(min=math.log(limits.shortest))
            self.shapes[:, column] = torch.minimum(lengths, highest)
        # the deviation along a row is l1 / sqrt(1 + t^2): a needle between two rows of samples shows as specks
        thinnest = ((self.shapes[:, 0].exp() / limits.thinnest) ** 2 - 1).sqrt()
        steepest = torch.minimum(self.longest / self.shapes[:, 2].exp(), thinnest)
        self.shapes[:, 1] = torch.minimum(torch.maximum(self.shapes[:, 1], -steepest), steepest)
        for tensor, rows, values in self._held:
            tensor[rows] = values
