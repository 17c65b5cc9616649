"""Smooth rate of splats: its slopes, and what it says against the coder."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.coding.main.layer import FrameHeader, LayerEncoder
from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.main.model import RatedModel
from pgsvc_codec.train.main.rate import Densities, rate_of
from pgsvc_codec.train.main.rounding import round_whole
from pgsvc_codec.train.tuning import FREE

AREA = 400.0 * 300.0


def parameters(seed: int, count: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    shapes = rng.normal([1.5, 0.0, 1.2], [0.8, 0.7, 0.8], (count, 3))
    amplitudes = rng.laplace(0, 0.6, (count, channels))
    return torch.from_numpy(shapes), torch.from_numpy(amplitudes)


@given(st.integers(0, 999), st.sampled_from([1, 3]), st.floats(0.05, 1.0))
def test_slopes_are_those_of_the_bits(seed: int, channels: int, step: float) -> None:
    shapes, amplitudes = parameters(seed, 20, channels)
    costs = Densities.of_layer(shapes, amplitudes, step, AREA)
    rate = rate_of(shapes, amplitudes, costs)
    tiny = 1e-6
    for tensor, slopes in ((shapes, rate.shapes), (amplitudes, rate.amplitudes)):
        for column in range(tensor.shape[1]):
            ends = []
            for sign in (-1, 1):
                moved = tensor.clone()
                moved[:, column] += sign * tiny
                both = (moved, amplitudes) if tensor is shapes else (shapes, moved)
                ends.append(rate_of(*both, costs).bits)
            measured = (ends[1] - ends[0]) / (2 * tiny)
            torch.testing.assert_close(slopes[:, column], measured, rtol=2e-3, atol=2e-3)


def test_stronger_splats_cost_more_and_larger_ones_less() -> None:
    shapes, amplitudes = parameters(3, 200, 3)
    costs = Densities.of_layer(shapes, amplitudes, 0.2, AREA)
    usual = rate_of(shapes, amplitudes, costs).bits
    assert (rate_of(shapes, 2 * amplitudes, costs).bits > usual).all()
    middle = costs.centers[:1].expand(200, 3)
    larger = middle + torch.tensor([0.1, 0.0, 0.1])
    assert (rate_of(larger, amplitudes, costs).bits < rate_of(middle, amplitudes, costs).bits).sum() > 150


def test_a_layer_costs_about_its_payload() -> None:
    """Within a fifth: the coder has contexts, the surrogate halves of steps."""
    rng = np.random.default_rng(5)
    count, size = 600, (400, 300)
    lengths = np.exp(rng.normal(1.4, 0.5, (count, 2)))
    amplitudes = rng.laplace(0, 0.8, (count, 3)) * [1, 0.4, 0.3]
    colors = amplitudes / np.sqrt(np.pi * lengths.prod(axis=1))[:, None]
    splats = Splats(
        rng.uniform(-1, 0.99, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 0.5, count) * lengths[:, 1], lengths[:, 1]], axis=1).astype(np.float32),
        colors.astype(np.float32),
    )
    index = 52
    model = RatedModel(splats, [count], *size, FREE, opponent=False)
    estimate = float(model.rate(model.densities([STEPS[index] / (1 << AMPLITUDE_BITS)])).bits.sum())
    state = round_whole(splats, STEPS[index], size, opponent=False)
    payload = LayerEncoder(0, 3, *size).encode_intra(state, index, FrameHeader((0, 0, 0)))
    assert 0.8 < estimate / (8 * len(payload)) < 1.25


def test_layers_have_densities_of_their_own_and_may_be_empty() -> None:
    shapes, amplitudes = parameters(4, 30, 3)
    parts = [
        Densities.of_layer(shapes[:20], amplitudes[:20], 0.1, AREA),
        Densities.of_layer(shapes[20:20], amplitudes[20:20], 0.1, AREA),
        Densities.of_layer(shapes[20:], amplitudes[20:], 0.4, AREA),
    ]
    together = Densities.concatenate(parts)
    assert [len(column) for column in together] == [30] * 5
    bits = rate_of(shapes, amplitudes, together).bits
    torch.testing.assert_close(bits[20:], rate_of(shapes[20:], amplitudes[20:], parts[2]).bits)
