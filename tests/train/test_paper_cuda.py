"""The paper's fit on a GPU: the descent that the CPU makes."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import growing_objective, objective_of, psnr, scene, some_splats

from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.cuda import passes
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.schedule import cyclic, halving
from pgsvc_codec.train.stack import Stack

pytest.importorskip("pytorch_optimizer")

SIZE = (24, 20)
ENDS = [3, 5, 9]
BACKGROUND = np.zeros(3, np.float32)


def test_a_plain_descent_on_cuda_is_that_of_the_cpu(cuda_device, rng, monkeypatch):
    """In two runs, with rows that go in between, levels that take turns, and room that was wanting."""
    from pgsvc_codec.train.adan import Adan

    monkeypatch.setattr(passes, "_ENTRIES", 0)
    splats = some_splats(rng, 9)
    mirrored = Splats(splats.means, -splats.cholesky, splats.colors)  # lengths of either sign
    ends = []
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        objective = growing_objective(scene(*SIZE), [(12, 10), SIZE, SIZE], rasterizer)
        model = PlainModel(mirrored, ENDS, *SIZE)
        optimizer = Adan(model.parameters())
        descent = Descent(model, optimizer, objective, BACKGROUND, cyclic(3, 0), halving(2))
        losses = descent.each(3)
        old, rows = model.parameters(), np.array([0, 2, 3, 5, 6, 8])
        model.keep(rows)
        optimizer.keep(old, model.parameters(), rows)
        losses.append(descent.run(2))
        assert descent.done == 5
        ends.append((losses, model))
    (wanted, on_host), (found, there) = ends
    assert found == pytest.approx(wanted, rel=1e-3)
    assert (on_host.weights != 1).all()
    for mine, theirs in zip(there.parameters(), on_host.parameters(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_the_papers_frames_on_cuda_are_about_those_of_the_cpu(cuda_device):
    """Pruned, and with quantisers that are learned, on the host."""
    from pgsvc_codec.train import paper

    fits, host = [], objective_of(scene(16, 12), levels=2)
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        objective = objective_of(scene(16, 12), levels=2, rasterizer=rasterizer)
        stack = Stack(objective, 0, [4, 4], cyclic(2, 0), 20, np.random.default_rng(0))
        fits.append(paper.intra(stack, BACKGROUND))
    quality = [psnr(host, fit.layers, BACKGROUND) for fit in fits]
    assert [len(layer) for layer in fits[1].layers] == [4, 4]
    np.testing.assert_allclose(quality[1], quality[0], atol=0.1)
