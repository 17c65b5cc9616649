"""GOPs of the `baseline` profile: an I-frame and P-frames, each from the frame before, coded as they come."""

from __future__ import annotations

import numpy as np

from pgsvc_codec.coding.baseline.payload import LayerEncoder
from pgsvc_codec.coding.baseline.quant import QuantTables
from pgsvc_codec.config import EncodePlan
from pgsvc_codec.encoder.gop import InputFrame, Measure
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_inter, fit_intra
from pgsvc_codec.train.keyframes import is_foreign
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.motion import Motion
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.train.stack import FloatFit, FrameFit, Reference


class BaselineGop:
    """One GOP; a `gop.GopCoder`.

    Args:
        plan: of the encode.
        channels: C, 1 or 3.
        levels: how frames and levels become pictures.
        measure: told of every frame.
        start: a float fit of the I-frame, only to be quantised.
    """

    def __init__(
        self, plan: EncodePlan, channels: int, levels: LevelSizes, measure: Measure, start: FloatFit | None
    ) -> None:
        layers = range(plan.num_layers)
        self._plan = plan
        self._levels = levels
        self._measure = measure
        self._start = start
        self._coders = [LayerEncoder(layer, channels) for layer in layers]
        self._payloads: list[list[bytes]] = [[] for _ in layers]
        self._tables_intra: list[QuantTables] = []
        self._tables_inter: list[QuantTables] = []

    def add(self, frame: InputFrame) -> None:
        """As `gop.GopCoder.add`."""
        objective, references = self._levels.read(frame.planes)
        # a seed per frame: a GOP then does not depend on how many random numbers earlier ones drew
        rng = np.random.default_rng([self._plan.seed, frame.number])
        if not self._payloads[0] or frame.motion is None:
            self._code_intra(fit_intra(objective, self._plan, rng, self._start))
        else:
            self._code_inter(self._fit_inter(objective, frame.motion, rng))
        size = sum(len(frames[-1]) for frames in self._payloads)
        self._measure(references, self._decoded, self._coders[0].background, size)

    def finish(self) -> list[list[bytes]]:
        """As `gop.GopCoder.finish`."""
        return self._payloads

    @property
    def _decoded(self) -> list[Splats]:
        """What the decoder has after the last frame, layer by layer."""
        decoded = [coder.decoded for coder in self._coders]
        assert all(splats is not None for splats in decoded), "no frame has been coded"
        return [splats for splats in decoded if splats is not None]

    def _fit_inter(self, objective: Objective, motion: Motion, rng: np.random.Generator) -> FrameFit:
        layers = self._decoded
        if is_foreign(motion):  # all splats are new
            none = [np.zeros(len(splats), np.bool_) for splats in layers]
            return fit_intra(objective, self._plan, rng)._replace(survivors=none)
        reference = Reference(layers, motion, self._tables_intra, self._tables_inter)
        return fit_inter(objective, self._plan, rng, self._coders[0].background, reference)

    def _code_intra(self, fit: FrameFit) -> None:
        self._tables_intra = fit.tables_intra
        for layer, (coder, splats) in enumerate(zip(self._coders, fit.whole, strict=True)):
            background = fit.background if layer == 0 else None
            self._payloads[layer].append(coder.encode_intra(splats, fit.tables_intra[layer], background=background))

    def _code_inter(self, fit: FrameFit) -> None:
        self._tables_intra = fit.tables_intra
        self._tables_inter = fit.tables_inter or self._tables_inter
        for layer, coder in enumerate(self._coders):
            payload = coder.encode_inter(
                fit.targets[layer],
                fit.tables_inter[layer] if fit.tables_inter else None,
                survivors=fit.survivors[layer],
                injected=fit.whole[layer],
                tables_intra=fit.tables_intra[layer],
                background=fit.background if layer == 0 else None,
            )
            self._payloads[layer].append(payload)
