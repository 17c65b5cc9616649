"""The values that coded splats can have: quantisers of a layer, fitted to its splats (paper, Eq. 10 and 11).

Scale and offset of Eq. 10 come from weighted least squares alternating with the levels (each splat counts by the
error energy its rounding causes), codebooks of Eq. 11 from k-means weighted by area.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.baseline.quant import (
    Codebooks,
    QuantTables,
    ScalarQuantizer,
    cholesky_levels,
    dequantize_inter,
    dequantize_intra,
    position_fraction_bits,
    quantize_inter,
    quantize_intra,
)
from pgsvc_codec.splats import Splats

NUM_STAGES = 2  # M of the paper's residual vector quantiser
_MOST_ENTRIES = 64  # B, 6 bits
_SPLATS_PER_ENTRY = 10  # an entry costs C fp16 numbers in the stream, which fewer splats do not repay
_LEAST_ENTRIES = 8

# Rounding a mean by v of the splat's own standard deviations costs v^2 / 2 of its energy.
_POSITION_STEP = 0.25  # standard deviations of a narrow splat of the layer
_NARROW_PERCENTILE = 25.0

_CLIPS = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0)  # percentiles cut off either end that the search starts from
_LEAST_SCALE = 1e-3  # pixels


def _fit_scale(
    values: NDArray[np.float64], weights: NDArray[np.float64], low: int, high: int, *, centred: bool
) -> tuple[float, float]:
    """γ and β of one component that minimise the weighted squared error of Eq. 10; β = 0 where `centred`."""
    best = (np.inf, 1.0, 0.0)
    value_mean = 0.0 if centred else np.average(values, weights=weights)
    ends = [np.percentile(values, clips) for clips in (np.array(_CLIPS), 100 - np.array(_CLIPS))]
    for first, last in product(*ends):
        scale = max((last - first) / (high - low), _LEAST_SCALE)
        offset = 0.0 if centred else first - low * scale
        for _ in range(6):
            levels = np.clip(np.rint((values - offset) / scale), low, high)
            level_mean = 0.0 if centred else np.average(levels, weights=weights)
            spread = (weights * (levels - level_mean) ** 2).sum()
            if spread > 0:
                slope = (weights * (levels - level_mean) * (values - value_mean)).sum() / spread
                scale = max(slope, _LEAST_SCALE)
            offset = value_mean - scale * level_mean
        levels = np.clip(np.rint((values - offset) / scale), low, high)
        error = (weights * (levels * scale + offset - values) ** 2).sum()
        if error < best[0]:
            best = (error, scale, offset)
    return best[1], best[2]


def _fit_codebooks(colors: NDArray[np.float64], areas: NDArray[np.float64], *, centred: bool) -> Codebooks:
    """Stage after stage of weighted k-means on what the stages before leave; `centred` keeps black an entry."""
    from sklearn.cluster import KMeans  # a second to import
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    entries = int(np.clip(len(colors) // _SPLATS_PER_ENTRY, _LEAST_ENTRIES, _MOST_ENTRIES))
    stages = []
    residual = colors
    with threadpool_limits(1), warnings.catch_warnings():  # sums over threads would depend on how many there are
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer colours than entries, as in a flat picture
        for _ in range(NUM_STAGES):
            means = KMeans(min(entries, len(colors)), n_init=1, max_iter=40, random_state=0)
            means.fit(residual, sample_weight=areas)
            centres = means.cluster_centers_
            if centred:
                centres[np.argmin((centres**2).sum(axis=1))] = 0.0
            stages.append(centres)
            residual = residual - centres[((residual[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)]
    return Codebooks.on_grid(stages)


class LayerGrid:
    """The values that the coded splats of one layer can have: differences to references first, whole splats behind.

    Args:
        layer: index, 0 = base.
        size: width and height of the frame in pixels.
        reference: decoded splats that the first rows are coded against; none in an I-frame.
        whole: tables of splats coded whole; None fits them.
        differences: tables of differences; None fits them.
    """

    def __init__(
        self,
        layer: int,
        size: tuple[int, int],
        reference: Splats,
        whole: QuantTables | None = None,
        differences: QuantTables | None = None,
    ) -> None:
        self.layer = layer
        self.size = size
        self.reference = reference
        self.whole = whole
        self.differences = differences

    def fit(self, splats: Splats) -> None:
        """Fit the tables that are not there yet."""
        kept = len(self.reference)
        if self.whole is None and len(splats) > kept:
            self.whole = self._fit(splats[kept:], None)
        if self.differences is None and kept:
            self.differences = self._fit(splats[:kept], self.reference)

    def refit_colors(self, splats: Splats) -> None:
        """Fit the codebook of whole splats again."""
        if self.whole is not None:
            colors = self._fit_colors(splats[len(self.reference) :], None)
            self.whole = QuantTables(self.whole.cholesky, colors, self.whole.position_fraction_bits)

    def refit_differences(self, splats: Splats) -> None:
        """Fit the tables of differences again."""
        kept = len(self.reference)
        if kept:
            self.differences = self._fit(splats[:kept], self.reference)

    def snap(self, splats: Splats, rows: NDArray[np.intp] | None = None) -> Splats:
        """Splats with the values that a decoder would have.

        Args:
            splats: all of the layer.
            rows: those that are wanted, ascending; None = all.
        """
        if rows is None:
            rows = np.arange(len(splats))
        old, new = np.split(rows, [np.searchsorted(rows, len(self.reference))])
        parts = []
        if len(old):
            assert self.differences is not None
            reference = self.reference[old]
            symbols = quantize_inter(splats[old], reference, self.differences)
            parts.append(dequantize_inter(symbols, reference, self.differences))
        if len(new):
            assert self.whole is not None
            parts.append(dequantize_intra(quantize_intra(splats[new], self.whole), self.whole))
        return Splats.concatenate(parts) if parts else splats[rows]

    def _fit(self, splats: Splats, reference: Splats | None) -> QuantTables:
        low, high = cholesky_levels(self.layer, inter=reference is not None)
        lengths = splats.cholesky.astype(np.float64)
        energy = (splats.colors.astype(np.float64) ** 2).sum(axis=1) * np.abs(lengths[:, 0] * lengths[:, 2])
        # relative errors of l1 and l3, and of l2 relative to l3, cost the same energy each
        weights = energy[:, None] / lengths[:, [0, 2, 2]] ** 2 + 1e-12
        values = lengths if reference is None else lengths - reference.cholesky
        centred = reference is not None
        scales = [_fit_scale(values[:, k], weights[:, k], low, high, centred=centred) for k in range(3)]
        scale, offset = np.array(scales, np.float32).T
        cholesky = ScalarQuantizer(np.ascontiguousarray(scale), np.ascontiguousarray(offset), low, high)
        return QuantTables(cholesky, self._fit_colors(splats, reference), self._position_bits(lengths))

    def _fit_colors(self, splats: Splats, reference: Splats | None) -> Codebooks:
        areas = np.abs(splats.cholesky[:, 0] * splats.cholesky[:, 2]).astype(np.float64)
        colors = splats.colors.astype(np.float64)
        if reference is None:
            return _fit_codebooks(colors, areas, centred=False)
        return _fit_codebooks(colors - reference.colors, areas, centred=True)

    def _position_bits(self, lengths: NDArray[np.float64]) -> int:
        """Fraction bits whose step is a fair part of what most splats of the layer measure."""
        narrow = np.percentile(np.abs(lengths[:, [0, 2]]).min(axis=1), _NARROW_PERCENTILE)
        steps = max(self.size) / 2 / (_POSITION_STEP * narrow)  # per unit of a mean
        return int(np.clip(np.ceil(np.log2(steps)), 1, position_fraction_bits(*self.size)))


def split(splats: Splats, ends: Sequence[int]) -> list[Splats]:
    """The layers of splats that lie layer after layer."""
    return [splats[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def snap(
    splats: Splats, grids: Sequence[LayerGrid], ends: Sequence[int], rows: NDArray[np.intp] | None = None
) -> Splats:
    """Splats of all layers with the values that a decoder would have.

    Args:
        splats: layer after layer.
        grids: one per layer.
        ends: cumulative layer sizes.
        rows: those that are wanted, ascending; None = all.
    """
    if rows is None:
        rows = np.arange(len(splats))
    starts = [0, *ends[:-1]]
    wanted = np.split(rows, np.searchsorted(rows, ends[:-1]))
    parts = zip(grids, split(splats, ends), wanted, starts, strict=True)
    return Splats.concatenate([grid.snap(layer, chosen - start) for grid, layer, chosen, start in parts])
