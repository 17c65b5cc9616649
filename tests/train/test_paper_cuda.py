"""The paper's fit on a GPU: the descent that the CPU makes."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import growing_objective, objective_of, psnr, scene, some_splats

from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.cuda import passes, plain
from pgsvc_codec.train.descent import Descent
from pgsvc_codec.train.motion import estimate_motion
from pgsvc_codec.train.plain import PlainModel
from pgsvc_codec.train.schedule import all_levels, cyclic, emphasised, full_level, half_cosine, halving, uniform
from pgsvc_codec.train.stack import Reference, Stack
from pgsvc_codec.video import Chroma, VideoInfo

pytest.importorskip("pytorch_optimizer")

SIZE = (24, 20)
ENDS = [3, 5, 9]


def descended(rasterizer, objective, level_weights, scales):
    """Losses of two runs, with rows that go in between, and the model."""
    splats = some_splats(np.random.default_rng(11), 9)
    colors = np.ascontiguousarray(splats.colors[:, : objective.channels])
    mirrored = Splats(splats.means, -splats.cholesky, colors)  # lengths of either sign
    model = PlainModel(mirrored, ENDS, *SIZE)
    optimizer = Adan(model.parameters())
    background = np.full(objective.channels, 0.25, np.float32)
    descent = Descent(model, optimizer, objective, background, level_weights, scales)
    losses = descent.each(3)
    old, rows = model.parameters(), np.array([0, 2, 3, 5, 6, 8])
    model.keep(rows)
    optimizer.keep(old, model.parameters(), rows)
    losses.append(descent.run(2))
    assert descent.done == 5
    return losses, model


def assert_alike(made, cuda_device, level_weights, scales):
    """`made` is an objective for a rasteriser."""
    (wanted, on_host), (found, there) = (
        descended(rasterizer, made(rasterizer), level_weights, scales)
        for rasterizer in (cpu, CudaRasterizer(cuda_device))
    )
    assert found == pytest.approx(wanted, rel=1e-3)
    assert (on_host.weights != 1).all()
    for mine, theirs in zip(there.parameters(), on_host.parameters(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_a_plain_descent_on_cuda_is_that_of_the_cpu(cuda_device, monkeypatch):
    """With levels of two sizes, and room that is wanting."""
    monkeypatch.setattr(passes, "_ENTRIES", 0)
    sizes = [(12, 10), SIZE, SIZE]
    assert_alike(
        lambda rasterizer: growing_objective(scene(*SIZE), sizes, rasterizer), cuda_device, cyclic(3, 0), halving(2)
    )


@pytest.mark.parametrize(
    "level_weights",
    [emphasised(cyclic(3, 0), [2.0, 1.0, 0.5]), uniform(3, 1), full_level(3, 0), all_levels(3, 0)],
    ids=["cyclic", "uniform", "full", "all"],
)
def test_plain_descents_of_all_schedules_on_cuda(cuda_device, level_weights):
    """Of gray pictures, at rates that fall."""
    info, picture = VideoInfo(*SIZE, chroma=Chroma.GRAY), scene(*SIZE, planes=1)
    assert_alike(
        lambda rasterizer: objective_of(picture, info, 3, rasterizer), cuda_device, level_weights, half_cosine(6, 2)
    )


def test_a_plain_descent_in_two_sizes_of_planes_on_cuda(cuda_device):
    """Luma and chroma are passes of their own, which add to one loss."""
    info = VideoInfo(*SIZE, chroma=Chroma.YUV420)
    luma, *chroma = scene(*SIZE)
    picture = (luma, *(np.ascontiguousarray(plane[::2, ::2]) for plane in chroma))
    assert_alike(lambda rasterizer: objective_of(picture, info, 3, rasterizer), cuda_device, cyclic(3, 0), halving(2))


def test_the_papers_frames_on_cuda_are_about_those_of_the_cpu(cuda_device):
    """Pruned, and with quantisers that are learned; a P-frame with those that the I-frame has."""
    from pgsvc_codec.train import paper

    background, host = np.zeros(3, np.float32), objective_of(scene(16, 12), levels=2)
    still = np.zeros((12, 16), np.float32)
    frames = []
    for rasterizer in (cpu, CudaRasterizer(cuda_device)):
        objective = objective_of(scene(16, 12), levels=2, rasterizer=rasterizer)
        stack = Stack(objective, 0, [4, 4], cyclic(2, 0), 20, np.random.default_rng(0))
        intra = paper.intra(stack, background)
        reference = Reference(intra.layers, estimate_motion(still, still), intra.tables_intra, [])
        frames.append([intra, paper.inter(stack._replace(iterations=10), background, reference)])
    for on_host, there in zip(*frames, strict=True):
        assert [len(layer) for layer in there.layers] == [4, 4]
        quality = [psnr(host, fit.layers, background) for fit in (there, on_host)]
        np.testing.assert_allclose(*quality, atol=0.1)
    assert any(mask.any() for mask in frames[1][1].survivors)


def test_a_fit_on_cuda_ends_at_the_look_that_finds_it_still(cuda_device, monkeypatch):
    """Splats without colour on black have no gradient: nothing changes, and the device goes on till it is looked at."""
    from pgsvc_codec.train import paper

    for name, value in (("_PRUNING_INTER", 2), ("_PATIENCE", 3), ("_LOOK", 4)):
        monkeypatch.setattr(paper, name, value)
    runs = []
    monkeypatch.setattr(plain, "run", lambda going, device, run=plain.run: runs.append(run(going, device)) or runs[-1])
    black = tuple(np.zeros((12, 16), np.float32) for _ in range(3))
    objective = objective_of(black, levels=1, rasterizer=CudaRasterizer(cuda_device))
    stack = Stack(objective, 0, [1], full_level(1, 0), 40, np.random.default_rng(0))
    grey = some_splats(np.random.default_rng(1), 1)
    dark = Splats(grey.means, grey.cholesky, np.zeros((1, 3), np.float32))
    reference = Reference([dark], estimate_motion(black[0], black[0]), [None], [])
    fit = paper.inter(stack, np.zeros(3, np.float32), reference)
    assert runs == [[0.0] * 2, [0.0] * 4]
    assert len(fit.layers[0]) == 1
