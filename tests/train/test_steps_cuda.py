"""Steps of Adan on a GPU, by the same moments, and what is shown: those of the CPU, all but to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import model_and_grids, objective_of, parts_of, scene

from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.table import pixels_of
from pgsvc_codec.train.adan import Adan
from pgsvc_codec.train.cuda.coded import CodedBuffers
from pgsvc_codec.train.cuda.plain import Going, PlainBuffers
from pgsvc_codec.train.lsq import QuantizedModel
from pgsvc_codec.train.plain import LAST_MEAN
from pgsvc_codec.train.schedule import half_cosine
from pgsvc_codec.video import Chroma, VideoInfo

pytest.importorskip("pytorch_optimizer")

SIZE = (24, 20)
STEPS = 6


def fitted(planes):
    """A model, its parts, and an optimiser that both are given."""
    model, _, parts = model_and_grids(np.random.default_rng(5), (20, 14, 12), SIZE, planes)
    model.weights += torch.linspace(-0.5, 0.5, len(model))[:, None]
    return model, parts, Adan(model.parameters())


def moments_of(planes):
    """Of 46 splats in each step: those of other signs now and then, and small where colours' own pull shows."""
    signs = np.random.default_rng(6).choice([-1, 1], (STEPS, 46, planes + 5), p=[0.3, 0.7])
    sizes = np.random.default_rng(7).uniform(0.5, 2, (STEPS, 46, planes + 5))
    sizes[..., :planes] *= 0.05
    return (signs * sizes).astype(np.float32)


def step_there(buffers, going, moments):
    """As `buffers.run`, by these moments."""
    buffers.load([going])
    buffers.done.zero_()
    for one in moments:
        buffers._show()
        buffers.moments[: len(one)] = torch.from_numpy(one)
        buffers._step()
    buffers.store([going])


def going_of(model, optimizer, objective, parts=()):
    scales = [half_cosine(STEPS, 2)(number) for number in range(STEPS)]
    background = np.zeros(objective.channels, np.float32)
    return Going(model, optimizer, objective, background, [[0.0, 1.0]] * STEPS, scales, parts)


def objective_in(planes):
    info = VideoInfo(*SIZE, chroma=Chroma.GRAY) if planes == 1 else None
    return objective_of(scene(*SIZE, planes=planes), info, 2, cpu)


def step_here(shown, optimizer, moments, scales):
    for one, scale in zip(moments, scales, strict=True):
        shown.splats()
        shown.set_gradients(one)
        optimizer.step(scale)
        shown.settle()


def assert_close(there, here, tolerance):
    for one, other in zip(there, here, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("planes", [1, 3])
def test_steps_of_plain_models_on_cuda(cuda_device, planes):
    objective, moments = objective_in(planes), moments_of(planes)
    model, _, optimizer = fitted(planes)
    there, _, optimizer_there = fitted(planes)
    going = going_of(there, optimizer_there, objective)
    step_there(PlainBuffers(objective, 64, cuda_device), going, moments)
    before = [parameter.clone() for parameter in model.parameters()]
    step_here(model, optimizer, moments, going.scales)
    for old, new in zip(before, model.parameters(), strict=True):
        assert (old != new).float().mean() > 0.9
    assert_close(there.parameters(), model.parameters(), 2e-6)
    for mine, theirs in zip(there.parameters(), model.parameters(), strict=True):
        assert_close(optimizer_there.memory(mine), optimizer.memory(theirs), 1e-5)


@pytest.mark.parametrize("planes", [1, 3])
def test_steps_under_quantisation_on_cuda(cuda_device, planes):
    """Quantisers learn at paces of their own, which begin with the tuning."""
    objective, moments = objective_in(planes), moments_of(planes)
    tuned = []
    for is_there in (False, True):
        model, parts, optimizer = fitted(planes)
        step_here(model, optimizer, moments[:2], [1.0, 1.0])
        model.fold_weights()
        shown = QuantizedModel(model, parts)
        optimizer.add(shown.learned)
        started = [part.scale.clone() for part in parts]
        going = going_of(model, optimizer, objective, parts)
        if is_there:
            buffers = CodedBuffers(objective, 64, cuda_device, len(parts), len(parts[0].stages), 8)
            step_there(buffers, going, moments)
        else:
            step_here(shown, optimizer, moments, going.scales)
        for part, scale in zip(parts, started, strict=True):
            assert (part.scale != scale).all()
        tuned.append((model, parts))
    (model, parts), (there, parts_there) = tuned
    assert_close(there.parameters(), model.parameters(), 2e-6)
    for mine, theirs in zip(parts_there, parts, strict=True):
        assert_close([mine.scale, mine.offset, *mine.stages], [theirs.scale, theirs.offset, *theirs.stages], 2e-6)
        for own, others in zip(mine.averages, theirs.averages, strict=True):
            assert_close(own, others, 1e-5)


@pytest.mark.parametrize("given", [False, True])
def test_splats_under_quantisation_on_cuda(cuda_device, given):
    """As a decoder has them, to the ends of the frame; coarser where the quantisers that are given are."""
    model, grids, parts = model_and_grids(np.random.default_rng(5), (20, 14, 12), SIZE)
    if given:
        for part in parts:
            part.store()
        grids[0].whole = replace(grids[0].whole, position_fraction_bits=7)
        grids[1].differences = replace(grids[1].differences, position_fraction_bits=9)
        parts = parts_of(model, grids)
    model.means[:3] = torch.tensor([[-1.0, LAST_MEAN], [LAST_MEAN, 0.999], [1e-6, -3e-8]])
    model.means[20:22] += torch.tensor([[1e-5, -3e-6], [0.25, -1.0]])  # differences
    model.cholesky[[4, 30], 0] = 0.0
    going = going_of(model, Adan(model.parameters()), objective_in(3), parts)
    buffers = CodedBuffers(going.objective, 64, cuda_device, len(parts), len(parts[0].stages), 8)
    buffers.load([going])
    buffers._show()
    means, cholesky, colors = (part.cpu().numpy() for part in buffers.table[:3])
    shown = QuantizedModel(model, parts).splats()
    assert_close([pixels_of(shown, SIZE), shown.cholesky, shown.colors], [means[:46], cholesky[:46], colors[:46]], 2e-6)
    assert not colors[46:].any()
