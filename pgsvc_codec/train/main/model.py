"""The splats of a fit for the `main` profile: on its colour axes, with a price, and as many as are worth theirs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.coding.main.state import OPPONENT
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.main.rate import Densities, Rate, rate_of
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.tuning import Limits


class RatedModel(SplatModel):
    """N splats in layers, amplitudes on the axes of the stream.

    Args:
        opponent: amplitudes lie on the axes of `coding.main.state.OPPONENT`.

    Attributes:
        opponent: as given.
    """

    def __init__(
        self, splats: Splats, ends: Sequence[int], width: int, height: int, limits: Limits, *, opponent: bool
    ) -> None:
        self.opponent = opponent
        self._axes = OPPONENT.astype(np.float32) if opponent else np.eye(splats.channels, dtype=np.float32)
        super().__init__(splats, ends, width, height, limits)

    def replace(self, rows: NDArray[np.integer], chosen: Splats) -> None:
        """Set the given rows to other splats, one each."""
        super().replace(rows, Splats(chosen.means, chosen.cholesky, chosen.colors @ self._axes.T))

    def splats(self) -> Splats:
        """The splats as a value."""
        splats = super().splats()
        return Splats(splats.means, splats.cholesky, splats.colors @ self._axes)

    def set_gradients(self, moments: NDArray[np.float32]) -> None:
        """As `SplatModel.set_gradients`."""
        channels = len(self._axes)
        turned = np.concatenate([moments[:, :channels] @ self._axes.T, moments[:, channels:]], axis=1)
        super().set_gradients(turned)

    @property
    def layers(self) -> list[slice]:
        """The rows of each layer."""
        return [slice(start, end) for start, end in pairwise([0, *self.ends])]

    def densities(self, steps: Sequence[float]) -> Densities:
        """What the splats are coded with, given the steps D of the layers."""
        area = float(self.size.prod())
        parts = [
            Densities.of_layer(self.shapes[rows], self.amplitudes[rows], step, area)
            for rows, step in zip(self.layers, steps, strict=True)
        ]
        return Densities.concatenate(parts)

    def rate(self, costs: Densities) -> Rate:
        """Bits of the splats and their slopes."""
        return rate_of(self.shapes, self.amplitudes, costs)

    def add_rate(self, rate: Rate, prices: torch.Tensor) -> None:
        """Add the slopes of the rate to the gradients; prices [N] are squared errors per bit."""
        assert self.shapes.grad is not None and self.amplitudes.grad is not None
        self.shapes.grad.addcmul_(rate.shapes, prices[:, None])
        self.amplitudes.grad.addcmul_(rate.amplitudes, prices[:, None])

    def keep(self, rows: NDArray[np.integer]) -> None:
        """Drop all splats but the given rows, in ascending order; `ends` follow."""
        kept = torch.from_numpy(rows)
        self.ends = [int(end) for end in np.searchsorted(rows, self.ends)]
        self._set_rows([tensor[kept] for tensor in self._tensors()])

    def insert(self, layer: int, splats: Splats) -> None:
        """Put further splats behind the others of a layer; `ends` follow."""
        at, count = self.ends[layer], len(splats)
        blanks = [torch.zeros(count, *tensor.shape[1:]) for tensor in self._tensors()]
        blanks[-1] += float(self.size.max())
        self._set_rows([_inserted(*pair, at) for pair in zip(self._tensors(), blanks, strict=True)])
        self.ends = [end + count * (index >= layer) for index, end in enumerate(self.ends)]
        self.replace(np.arange(at, at + count), splats)

    def _tensors(self) -> list[torch.Tensor]:
        return [self.means, self.offsets, self.shapes, self.amplitudes, self.longest]

    def _set_rows(self, tensors: Sequence[torch.Tensor]) -> None:
        self.means, self.offsets, self.shapes, self.amplitudes, self.longest = tensors
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)


class GrowingAdam(Adam):
    """Adam whose parameters may lose and gain rows."""

    def keep(self, parameters: Sequence[torch.Tensor], rows: NDArray[np.integer]) -> None:
        """Go on with some rows of the parameters: those are given, and which they were."""
        kept = torch.from_numpy(rows)
        self._parameters = list(parameters)
        self.first = [mean[kept] for mean in self.first]
        self.second = [mean[kept] for mean in self.second]

    def insert(self, parameters: Sequence[torch.Tensor], at: int, count: int) -> None:
        """Go on with parameters that have `count` new rows from row `at` on, which move as the others do on average."""
        self._parameters = list(parameters)
        self.first = [_inserted(mean, torch.zeros(count, mean.shape[1]), at) for mean in self.first]
        self.second = [_inserted(mean, mean.mean(0).expand(count, -1), at) for mean in self.second]


def _inserted(tensor: torch.Tensor, rows: torch.Tensor, at: int) -> torch.Tensor:
    return torch.cat([tensor[:at], rows, tensor[at:]])
