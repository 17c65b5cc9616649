"""Fine-tuning under quantisation, by gradient: LSQ+ and a residual vector quantiser (paper, section 3.6).

The picture is rendered from the values that a decoder would have; gradients pass straight through the rounding to
the values behind it.  Scale and offset of Eq. 10 are learned with them (LSQ+, Bhalgat et al. 2020, section 3):

    d value / d scale  = level - (l - offset) / scale  inside the levels, the level itself outside
    d value / d offset = 0                             inside the levels, 1 outside

both times 1 / sqrt(count * L_max), the gradient scale of LSQ.  Codebooks of Eq. 11 follow the colours that choose
their entries as moving averages, and a commitment loss holds the colours to their entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from pgsvc_codec.coding.baseline.quant import (
    FLOAT12_FRACTION_BITS,
    FLOAT16_FRACTION_BITS,
    Codebooks,
    QuantTables,
    ScalarQuantizer,
    difference_codes,
    difference_values,
    position_keys,
    position_values,
)
from pgsvc_codec.splats import FloatArray, Splats
from pgsvc_codec.train.grid import LayerGrid
from pgsvc_codec.train.plain import PlainModel, plain_gradients, raise_lengths

DECAY = 0.8  # of the moving averages that codebook entries are
LEAST_SCALE = 1e-3  # pixels
UNSEEN = 1e-9  # share of all areas below which nothing has chosen an entry lately


class CodedPart:
    """Rows of the model that share quantisers: the whole splats of a layer, or the differences of its survivors.

    Args:
        grid: of the layer, with tables where the quantisers start.
        rows: which rows of the model.
        inter: whether they are differences to the grid's reference.
        learn: whether scale, offset and codebooks are learned; else they stay, and positions as coarse as they are.

    Attributes:
        rows, learn: as given.
        reference: what differences are to; None: whole splats.
        scale, offset: [3] float32 of Eq. 10, pixels.
        stages: [B, C] float64 codebooks of Eq. 11, before they are rounded for the stream.
        averages: of each stage, [B] mean areas of what chose an entry, and [B, C] means of the areas times colours.
    """

    def __init__(self, grid: LayerGrid, rows: slice, *, inter: bool, learn: bool) -> None:
        self.rows = rows
        self.learn = learn
        self._grid = grid
        reference = grid.reference if inter else None
        tables = grid.differences if inter else grid.whole
        assert tables is not None
        if learn:  # the paper's positions are plain floats, of 16 bits or of 12
            bits = FLOAT16_FRACTION_BITS if reference is None else FLOAT12_FRACTION_BITS
            tables = replace(tables, position_fraction_bits=bits)
        self._tables = tables
        self.reference = reference
        self.scale = torch.from_numpy(tables.cholesky.scale.copy())  # [3] γ
        self.offset = torch.from_numpy(tables.cholesky.offset.copy())  # [3] β
        self.stages = [stage.astype(np.float64) for stage in tables.colors.stages]
        self.averages = [(np.zeros(len(stage)), np.zeros_like(stage)) for stage in self.stages]
        self._levels = self._position = torch.zeros(0)

    @property
    def levels(self) -> tuple[int, int]:
        """(L_min, L_max)."""
        return self._tables.cholesky.low, self._tables.cholesky.high

    @property
    def position_fraction_bits(self) -> int:
        """Of the positions, or of their differences."""
        return self._tables.position_fraction_bits

    @property
    def gradient_scale(self) -> float:
        """Of scale and offset (LSQ)."""
        return 1.0 / math.sqrt(max(self._count, 1) * self._tables.cholesky.high)

    @property
    def commitment(self) -> float:
        """Gradient of a colour for each unit that it is off its entries: the loss is a mean over all numbers."""
        return 2.0 / max(self._count * self._tables.colors.channels, 1)

    @property
    def _count(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def tables(self) -> QuantTables:
        """The quantisers as they are now, as a stream carries them."""
        if not self.learn:
            return self._tables
        old = self._tables.cholesky
        cholesky = ScalarQuantizer(self.scale.numpy().copy(), self.offset.numpy().copy(), old.low, old.high)
        return QuantTables(cholesky, self._codebooks(), self._tables.position_fraction_bits)

    def store(self) -> None:
        """Give the grid the quantisers as they are now."""
        if self.reference is None:
            self._grid.whole = self.tables
        else:
            self._grid.differences = self.tables

    def decoded(self, means: torch.Tensor, cholesky: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What a decoder makes of these rows; remembers what `pull` needs."""
        reference, bits = self.reference, self._tables.position_fraction_bits
        lengths, color_values = cholesky, colors.numpy()
        if reference is None:
            shown_means = torch.from_numpy(position_values(position_keys(means.numpy(), bits), bits))
        else:
            moves = difference_values(difference_codes(means.numpy() - reference.means, bits), bits)
            shown_means = torch.from_numpy(reference.means + moves)
            lengths, color_values = lengths - torch.from_numpy(reference.cholesky), color_values - reference.colors
        self._position = (lengths - self.offset) / self.scale
        quantizer = self._tables.cholesky
        self._levels = self._position.round().clamp(quantizer.low, quantizer.high)
        shown_lengths = self._levels * self.scale + self.offset
        codebooks = self._codebooks()
        self._color_values, self._entries = color_values, _nearest(codebooks, color_values)
        shown_values = codebooks.decode(self._entries)
        if reference is not None:
            shown_lengths = shown_lengths + torch.from_numpy(reference.cholesky)
            shown_values = reference.colors + shown_values
        shown_colors = torch.from_numpy(shown_values)
        raise_lengths(shown_lengths)
        self._astray = colors - shown_colors
        return shown_means, shown_lengths, shown_colors

    def pull(self, lengths: torch.Tensor, colors: torch.Tensor, areas: NDArray[np.float64]) -> None:
        """Turn gradients by decoded values, in place, into those by the values behind them; learn the quantisers.

        Args:
            lengths: [n, 3] gradients by the decoded Cholesky vectors.
            colors: [n, C] by the decoded colours.
            areas: [n] how much each splat counts for the codebooks.
        """
        quantizer = self._tables.cholesky
        inside = (self._position >= quantizer.low) & (self._position <= quantizer.high)
        if self.learn:
            by_scale = torch.where(inside, self._levels - self._position, self._levels)
            self.scale.grad = self.gradient_scale * (lengths * by_scale).sum(dim=0)
            self.offset.grad = self.gradient_scale * (lengths * ~inside).sum(dim=0)
            self._follow(areas)
        lengths *= inside
        colors += self.commitment * self._astray

    def settle(self) -> None:
        """Keep the scale positive."""
        self.scale.clamp_(min=LEAST_SCALE)

    def _codebooks(self) -> Codebooks:
        return Codebooks.on_grid(self.stages, FLOAT16_FRACTION_BITS) if self.learn else self._tables.colors

    def _follow(self, areas: NDArray[np.float64]) -> None:
        """Move every entry towards the mean of what chose it; entries that nothing chooses stay."""
        rest = self._color_values.astype(np.float64)
        for stage, (weights, sums), chosen in zip(self.stages, self.averages, self._entries.T, strict=True):
            weights *= DECAY
            sums *= DECAY
            weights += (1 - DECAY) * np.bincount(chosen, areas, len(stage))
            for channel in range(stage.shape[1]):
                sums[:, channel] += (1 - DECAY) * np.bincount(chosen, areas * rest[:, channel], len(stage))
            rest = rest - stage[chosen]
            seen = weights > UNSEEN * weights.sum()
            stage[seen] = sums[seen] / weights[seen, None]


def _nearest(codebooks: Codebooks, color_values: FloatArray) -> NDArray[np.int32]:
    """[n, M] entries, stage by stage (Eq. 11)."""
    entries = []
    rest = color_values
    for stage in codebooks.stages:
        errors = np.zeros((len(color_values), len(stage)), np.float32)
        for channel in range(stage.shape[1]):
            errors += (rest[:, channel, None] - stage[:, channel]) ** 2
        entries.append(errors.argmin(axis=1).astype(np.int32))
        rest = rest - stage[entries[-1]]
    return np.stack(entries, axis=1)


def coded_parts(grid: LayerGrid, layer: Splats, start: int) -> list[CodedPart]:
    """The parts of one layer whose rows begin at `start`; quantisers that the grid does not have are learned."""
    learn_differences, learn_whole = grid.differences is None, grid.whole is None
    grid.fit(layer)
    middle = start + len(grid.reference)
    parts = []
    if grid.reference:
        parts.append(CodedPart(grid, slice(start, middle), inter=True, learn=learn_differences))
    if len(layer) > len(grid.reference):
        parts.append(CodedPart(grid, slice(middle, start + len(layer)), inter=False, learn=learn_whole))
    return parts


class QuantizedModel:
    """A model whose splats are shown as a decoder would have them.

    Args:
        model: float splats, weights folded into the colours; its tensors are shared.
        parts: rows and their quantisers, together all rows in order.

    Attributes:
        model, parts: as given.
    """

    def __init__(self, model: PlainModel, parts: Sequence[CodedPart]) -> None:
        self.ends = model.ends
        self.parts = list(parts)
        self.model = model
        self._shown = model.cholesky

    def __len__(self) -> int:
        return len(self.model)

    @property
    def learned(self) -> list[torch.Tensor]:
        """Scales and offsets that are learned."""
        return [tensor for part in self.parts if part.learn for tensor in (part.scale, part.offset)]

    def parameters(self) -> list[torch.Tensor]:
        """What an optimiser moves."""
        model = self.model
        return [model.means, model.cholesky, model.colors, *self.learned]

    def splats(self) -> Splats:
        """The splats as a decoder would have them."""
        model = self.model
        shown = [
            part.decoded(model.means[part.rows], model.cholesky[part.rows], model.colors[part.rows])
            for part in self.parts
        ]
        means, self._shown, colors = (torch.cat(columns) for columns in zip(*shown, strict=True))
        return Splats(means.numpy(), self._shown.numpy(), colors.numpy())

    def set_gradients(self, moments: NDArray[np.float32]) -> None:
        """Gradients of `parameters` from the moments [N, C + 5] of `reference.StepResult`."""
        model = self.model
        model.means.grad, model.cholesky.grad, model.colors.grad = plain_gradients(
            self._shown, torch.from_numpy(moments), model.size
        )
        areas = (self._shown[:, 0] * self._shown[:, 2]).abs().double().numpy()
        for part in self.parts:
            part.pull(model.cholesky.grad[part.rows], model.colors.grad[part.rows], areas[part.rows])

    def settle(self) -> None:
        """After an optimiser's step: back to where splats and quantisers may be."""
        self.model.settle()
        for part in self.parts:
            part.settle()
