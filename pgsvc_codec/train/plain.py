"""The splats of a fit in the paper's own parameters (paper, Eq. 2 and 3).

    mean, normalised; Cholesky vector, full-size pixels; colour c'; contribution weight w

A picture shows w c', which is the colour that is coded.  Gradients come in closed form from the rasteriser's
moments, scaled to the loss of Eq. 7, a mean over pixels: the optimiser's epsilon knows that scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.splats import MIN_LENGTH, Splats

LAST_MEAN = float(np.nextafter(np.float32(1), np.float32(0)))  # positions lie in [-1, 1)


class PlainModel:
    """N splats in layers; float32 tensors.

    Args:
        splats: where to start; weights are 1.
        ends: cumulative layer sizes.
        width: full size of the frame, pixels.
        height: see width.
    """

    def __init__(self, splats: Splats, ends: Sequence[int], width: int, height: int) -> None:
        self.ends = list(ends)
        self.size = (width, height)
        self.means = torch.from_numpy(splats.means.copy())  # [N, 2]
        self.cholesky = torch.from_numpy(splats.cholesky.copy())  # [N, 3]
        self.colors = torch.from_numpy(splats.colors.copy())  # [N, C]
        self.weights = torch.ones(len(splats), 1)  # [N, 1]

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self) -> list[torch.Tensor]:
        """What an optimiser moves: means, Cholesky vectors, colours, weights."""
        return [self.means, self.cholesky, self.colors, self.weights]

    def splats(self) -> Splats:
        """The splats as a value, weights folded into colours."""
        return Splats(self.means.numpy(), self.cholesky.numpy(), (self.colors * self.weights).numpy())

    def set_gradients(self, moments: NDArray[np.float32]) -> None:
        """Gradients of `parameters` from the moments [N, C + 5] of `reference.StepResult`."""
        self.means.grad, self.cholesky.grad, weighted = plain_gradients(
            self.cholesky, torch.from_numpy(moments), self.size
        )
        self.colors.grad = weighted * self.weights
        self.weights.grad = (weighted * self.colors).sum(dim=1, keepdim=True)

    def settle(self) -> None:
        """After an optimiser's step: means inside the frame, lengths off zero."""
        self.means.clamp_(-1.0, LAST_MEAN)
        raise_lengths(self.cholesky)

    def fold_weights(self) -> None:
        """Make the shown colours the colours; weights are 1 from here on, and no longer learned."""
        self.colors *= self.weights
        self.weights.fill_(1.0)
        self.weights.grad = None

    def keep(self, rows: NDArray[np.integer]) -> None:
        """Drop all splats but the given rows, in ascending order; `ends` follow."""
        kept = torch.from_numpy(rows)
        self.ends = [int(end) for end in np.searchsorted(rows, self.ends)]
        self.means, self.cholesky, self.colors, self.weights = (tensor[kept] for tensor in self.parameters())


def plain_gradients(
    cholesky: torch.Tensor, moments: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of Eq. 7 by normalised means [N, 2], Cholesky vectors [N, 3] and shown colours [N, C].

    With m = sum w u and M = sum w u u^T over samples: d/d mean = L^-T m in pixels, d/dL = tril(L^-T M).
    """
    width, height = size
    columns = moments / (width * height)
    colors, (m1, m2, m11, m12, m22) = columns[:, :-5], columns[:, -5:].unbind(1)
    l1, l2, l3 = cholesky.unbind(1)
    down = m2 / l3
    means = torch.stack([(m1 - l2 * down) / l1 * (width / 2), down * (height / 2)], dim=1)
    slant = m12 / l3
    return means, torch.stack([(m11 - l2 * slant) / l1, slant, m22 / l3], dim=1), colors


def raise_lengths(cholesky: torch.Tensor) -> None:
    """Make |l1| and |l3| what a decoder allows at least, in place; they keep their sign."""
    for column in (0, 2):
        lengths = cholesky[:, column]
        cholesky[:, column] = torch.copysign(lengths.abs().clamp(min=float(MIN_LENGTH)), lengths)
