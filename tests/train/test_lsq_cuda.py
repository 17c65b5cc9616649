"""Fine-tuning under quantisation on a GPU: the descent that the CPU makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import model_and_grids, objective_of, parts_of, scene

from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.cuda import passes
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.lsq import QuantizedModel
from pgsvc_codec.train.schedule import cyclic, halving
from pgsvc_codec.video import Chroma, VideoInfo

pytest.importorskip("pytorch_optimizer")

SIZE = (24, 20)
COUNTS = (12, 9, 7)


def tuned(rasterizer, planes, given):
    """A model and its parts after two runs."""
    model, grids, parts = model_and_grids(np.random.default_rng(11), COUNTS, SIZE, planes)
    if given:
        for part in parts:
            part.store()
        grids[0].whole = replace(grids[0].whole, position_fraction_bits=9)
        grids[1].differences = replace(grids[1].differences, position_fraction_bits=7)
        parts = parts_of(model, grids)
    shown = QuantizedModel(model, parts)
    optimizer = Adan(model.parameters())
    optimizer.add(shown.learned)
    info = VideoInfo(*SIZE, chroma=Chroma.GRAY) if planes == 1 else None
    objective = objective_of(scene(*SIZE, planes=planes), info, 2, rasterizer)
    descent = Descent(shown, optimizer, objective, np.zeros(planes, np.float32), cyclic(2, 0), halving(2))
    losses = [*descent.each(2), descent.run(1)]
    return losses, model, parts


@pytest.mark.parametrize(("planes", "given", "room"), [(3, False, 0), (1, False, 24), (3, True, 24)])
def test_tuning_on_cuda_is_that_of_the_cpu(cuda_device, monkeypatch, planes, given, room):
    """Whole splats and differences, in two runs, with room that is wanting; and quantisers that are given."""
    monkeypatch.setattr(passes, "_ENTRIES", room)
    (wanted, model, parts), (found, there, parts_there) = (
        tuned(rasterizer, planes, given) for rasterizer in (cpu, CudaRasterizer(cuda_device))
    )
    assert found == pytest.approx(wanted, rel=1e-3)
    for mine, theirs in zip(there.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    for mine, theirs in zip(parts_there, parts, strict=True):
        np.testing.assert_allclose(mine.scale, theirs.scale, atol=1e-5)
        np.testing.assert_allclose(mine.offset, theirs.offset, atol=1e-5)
        for stage, there in zip(mine.stages, theirs.stages, strict=True):
            np.testing.assert_allclose(stage, there, atol=1e-4)
