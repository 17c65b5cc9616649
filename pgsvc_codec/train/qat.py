"""Quantisation-aware end of a fit: splats take their coded values group by group while the others make up for it.

Rounding all splats at once costs several decibels, because neighbours are tuned to each other.  Here a part of the
splats is put on the quantiser's grid and held; the rest goes on descending against the true residual, errors of the
held ones included; then the next part follows.  Shapes and positions first, then, with codebooks fitted to what the
colours have become, colours.  What comes out is on the grid, so what was trained for is what is decoded.

The quantiser's own numbers are learned: scale and offset of Eq. 10 by weighted least squares alternating with the
levels (each splat counts by the error energy its rounding causes), codebooks of Eq. 11 by k-means weighted by area.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pgsvc_codec.coding.quant import (
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
from pgsvc_codec.train.descent import Held, descend
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.schedule import LevelWeights

NUM_STAGES = 2  # M of the paper's residual vector quantiser
_MOST_ENTRIES = 64  # B, 6 bits
_SPLATS_PER_ENTRY = 10  # an entry costs C fp16 numbers in the stream, which fewer splats do not repay
_LEAST_ENTRIES = 8

_RATE = 0.2  # learning rates between groups, in units of the free fit's
_GEOMETRY_ROUNDS = 8
_COLOR_ROUNDS = 8

_CLIPS = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0)  # percentiles cut off either end that the search starts from
_LEAST_SCALE = 1e-3  # pixels


def _fit_scale(
    values: NDArray[np.float64], weights: NDArray[np.float64], low: int, high: int, *, centred: bool
) -> tuple[float, float]:
    """γ and β of one component that minimise the weighted squared error of Eq. 10; β = 0 where `centred`."""
    best = (np.inf, 1.0, 0.0)
    for below in _CLIPS:
        for above in _CLIPS:
            first, last = np.percentile(values, [below, 100 - above])
            scale = max((last - first) / (high - low), _LEAST_SCALE)
            offset = 0.0 if centred else first - low * scale
            for _ in range(6):
                levels = np.clip(np.rint((values - offset) / scale), low, high)
                level_mean = 0.0 if centred else np.average(levels, weights=weights)
                value_mean = 0.0 if centred else np.average(values, weights=weights)
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
    from sklearn.cluster import KMeans  # a second to import, encoder only
    from threadpoolctl import threadpool_limits

    entries = int(np.clip(len(colors) // _SPLATS_PER_ENTRY, _LEAST_ENTRIES, _MOST_ENTRIES))
    stages = []
    residual = colors
    with threadpool_limits(1):  # sums over threads would depend on how many there are
        for _ in range(NUM_STAGES):
            distinct = len(np.unique(residual, axis=0))
            means = KMeans(min(entries, distinct), n_init=1, max_iter=40, random_state=0)
            means.fit(residual, sample_weight=areas)
            centres = means.cluster_centers_
            if centred:
                centres[np.argmin((centres**2).sum(axis=1))] = 0.0
            stages.append(centres)
            residual = residual - centres[((residual[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)]
    return Codebooks.on_grid(stages)


class LayerGrids:
    """The values that coded splats can have, layer by layer: whole (I) or as differences to a reference (P).

    Args:
        ends: cumulative layer sizes.
        size: width and height of the frame in pixels.
        reference: decoded splats of the previous frame, row by row those to be coded; None for an I-frame.
        tables: quantisers to keep using, one per layer; None fits them.
    """

    def __init__(
        self,
        ends: Sequence[int],
        size: tuple[int, int],
        reference: Splats | None = None,
        tables: Sequence[QuantTables] | None = None,
    ) -> None:
        self.slices = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.size = size
        self.reference = reference
        self.tables: list[QuantTables] = list(tables or [])

    def fit(self, splats: Splats) -> None:
        """Fit the tables of every layer to its splats."""
        self.tables = [self._fit_layer(splats[rows], layer, rows) for layer, rows in enumerate(self.slices)]

    def refit_colors(self, splats: Splats) -> None:
        """Fit only the codebooks again."""
        self.tables = [
            QuantTables(tables.cholesky, self._fit_colors(splats[rows], rows), tables.position_fraction_bits)
            for tables, rows in zip(self.tables, self.slices, strict=True)
        ]

    def snap(self, splats: Splats) -> Splats:
        """All splats with the values that a decoder would have."""
        parts = []
        for rows, tables in zip(self.slices, self.tables, strict=True):
            if self.reference is None:
                parts.append(dequantize_intra(quantize_intra(splats[rows], tables), tables))
            else:
                base = self.reference[rows]
                parts.append(dequantize_inter(quantize_inter(splats[rows], base, tables), base, tables))
        return Splats.concatenate(parts)

    def _fit_layer(self, splats: Splats, layer: int, rows: slice) -> QuantTables:
        inter = self.reference is not None
        low, high = cholesky_levels(layer, inter=inter)
        lengths = splats.cholesky.astype(np.float64)
        energy = (splats.colors.astype(np.float64) ** 2).sum(axis=1) * np.abs(lengths[:, 0] * lengths[:, 2])
        # relative errors of l1 and l3, and of l2 relative to l3, cost the same energy each
        weights = energy[:, None] / lengths[:, [0, 2, 2]] ** 2 + 1e-12
        values = lengths - self.reference.cholesky[rows] if self.reference is not None else lengths
        scales = [_fit_scale(values[:, k], weights[:, k], low, high, centred=inter) for k in range(3)]
        scale, offset = np.array(scales, np.float32).T
        cholesky = ScalarQuantizer(np.ascontiguousarray(scale), np.ascontiguousarray(offset), low, high)
        return QuantTables(cholesky, self._fit_colors(splats, rows), position_fraction_bits(*self.size))

    def _fit_colors(self, splats: Splats, rows: slice) -> Codebooks:
        areas = np.abs(splats.cholesky[:, 0] * splats.cholesky[:, 2]).astype(np.float64)
        colors = splats.colors.astype(np.float64)
        if self.reference is None:
            return _fit_codebooks(colors, areas, centred=False)
        return _fit_codebooks(colors - self.reference.colors[rows], areas, centred=True)


def settle_on_grid(
    model: SplatModel,
    objective: Objective,
    background: NDArray[np.float32],
    grids: LayerGrids,
    iterations: int,
    level_weights: LevelWeights,
    rng: np.random.Generator,
) -> Splats:
    """Bring all splats of `model` onto `grids`, in at most `iterations` further iterations.

    Returns:
        The splats as a decoder will have them.  `grids.tables` are then final.
    """
    fresh = not grids.tables
    if fresh:
        grids.fit(model.splats())
    geometry_rounds, color_rounds = (min(rounds, iterations // 4 + 1) for rounds in (_GEOMETRY_ROUNDS, _COLOR_ROUNDS))
    share = iterations // (geometry_rounds + color_rounds)
    held = Held(np.zeros(len(model), np.bool_), np.zeros(len(model), np.bool_))

    def rest() -> None:
        descend(model, objective, background, share, level_weights, rate=_RATE, warmup=3, held=held)

    for part in np.array_split(rng.permutation(len(model)), geometry_rounds):
        snapped, free = grids.snap(model.splats()), model.splats()
        model.put(Splats(snapped.means, snapped.cholesky, free.colors), part)
        held.geometry[part] = True
        rest()
    if fresh:
        grids.refit_colors(model.splats())
    for part in np.array_split(rng.permutation(len(model)), color_rounds):
        model.put(grids.snap(model.splats()), part)
        held.amplitudes[part] = True
        if not held.amplitudes.all():
            rest()
    return grids.snap(model.splats())
