"""Fits of I-frames by squared error and rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import SIZE, assert_equal_splats, growing_objective, objective_of, psnr, scene

from pgsvc_codec.coding.main.state import AMPLITUDE_BITS, STEPS
from pgsvc_codec.train.main.aim import CODED_STEP, Aim, coded_step, level_weights, step_of_quality
from pgsvc_codec.train.main.fit import IntraFit, fit_intra_main, variation
from pgsvc_codec.train.main.refine import refine_intra
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

SHARES = (0.41, 0.33, 0.26)


def textured(width: int, height: int, planes: int = 3):
    """A scene with detail enough for several hundred splats."""
    noise = np.random.default_rng(1).normal(0, 0.05, (height, width)).astype(np.float32)
    return tuple(np.clip(plane + noise, 0, 1) for plane in scene(width, height, planes=planes))


def aim_of(step: float = 0.08, shares=SHARES, splats: int | None = None) -> Aim:
    return Aim(step, shares, level_weights(len(shares)), splats)


def fitted(objective: Objective, aim: Aim, iterations: int = 120, seed: int = 0, *, opponent: bool = True) -> IntraFit:
    return fit_intra_main(objective, aim, iterations, np.random.default_rng(seed), opponent=opponent)


def bits_of(objective: Objective, fit: IntraFit) -> list[float]:
    refined = refine_intra(
        objective, fit.background, fit.layers, fit.step_indices, fit.prices, fit.level_weights, opponent=True
    )
    return refined.bits


def test_finer_steps_mean_more_splats_and_better_pictures() -> None:
    objective = objective_of(textured(*SIZE))
    coarse, fine = (fitted(objective, aim_of(step)) for step in (0.3, 0.08))
    assert sum(map(len, fine.layers)) > 1.5 * sum(map(len, coarse.layers))
    quality = [psnr(objective, fit.layers, fit.background) for fit in (coarse, fine)]
    assert (quality[1] > quality[0] + 1).all()
    assert (np.diff(quality[1]) > 0.2).all()


@pytest.mark.parametrize("shares", [SHARES, (0.2, 0.3, 0.5)])
def test_layers_have_about_their_shares_of_the_bits(shares: tuple[float, ...]) -> None:
    objective = objective_of(textured(144, 112))
    bits = np.array(bits_of(objective, fitted(objective, aim_of(0.06, shares), 300)))
    assert np.abs(bits / bits.sum() - shares).max() < 0.13
    assert (bits / bits.sum()).min() > 0.15


@pytest.mark.parametrize("wanted", [60, 200])
def test_a_number_of_splats_is_met(wanted: int) -> None:
    fit = fitted(objective_of(textured(*SIZE)), aim_of(splats=wanted), 300)
    assert 0.8 * wanted < sum(map(len, fit.layers)) < 1.25 * wanted


@pytest.mark.parametrize("wanted", [30, 60])
def test_a_number_of_splats_is_met_where_most_of_the_picture_is_black(wanted: int) -> None:
    x, y = np.meshgrid(np.arange(96), np.arange(72))
    disc, bar = np.hypot(x - 29, y - 29) < 14, (np.abs(x - 67) < 12) & (np.abs(y - 43) < 7)
    picture = tuple(
        (red * disc + green * bar).astype(np.float32) for red, green in ((0.9, 0.0), (0.2, 0.6), (0.0, 0.8))
    )
    objective = objective_of(picture)
    fits = [fitted(objective, aim_of(splats=wanted), iterations) for iterations in (60, 120)]
    for fit in fits:
        assert 0.7 * wanted < sum(map(len, fit.layers)) < 1.3 * wanted
    brief, longer = (psnr(objective, fit.layers, fit.background)[-1] for fit in fits)
    assert longer > brief


def test_the_same_seed_gives_the_same_fit() -> None:
    objective = objective_of(textured(*SIZE))
    one, other = (fitted(objective, aim_of(), 60, seed=4) for _ in range(2))
    for layer, again in zip(one.layers, other.layers, strict=True):
        assert_equal_splats(layer, again)
    assert one.prices == other.prices


@pytest.mark.parametrize("num_layers", [1, 2, 8])
def test_any_number_of_layers(num_layers: int) -> None:
    objective = objective_of(textured(*SIZE), levels=num_layers)
    fit = fitted(objective, aim_of(0.05, (1 / num_layers,) * num_layers))
    assert len(fit.layers) == len(fit.step_indices) == len(fit.prices) == num_layers
    assert all(len(layer) for layer in fit.layers)


def test_gray_subsampled_and_growing_pictures() -> None:
    planes = textured(*SIZE)
    gray = VideoInfo(*SIZE, chroma=Chroma.GRAY, matrix=Matrix.BT709, range=Range.FULL)
    halved = VideoInfo(*SIZE, chroma=Chroma.YUV420, matrix=Matrix.BT709, range=Range.LIMITED)
    subsampled = (planes[0], *(np.ascontiguousarray(plane[::2, ::2]) for plane in planes[1:]))
    for objective, opponent in (
        (objective_of(planes[:1], gray), False),
        (objective_of(subsampled, halved), False),
        (growing_objective(planes, [(36, 28), (54, 42), SIZE]), True),
    ):
        fit = fitted(objective, aim_of(), opponent=opponent)
        assert all(len(layer) for layer in fit.layers)
        start = psnr(objective, [layer[:0] for layer in fit.layers], fit.background)
        assert (psnr(objective, fit.layers, fit.background) > start + 2).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (5, 3)])
def test_tiny_and_flat_pictures(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    noisy = tuple(rng.random(size[::-1]).astype(np.float32) for _ in range(3))
    flat = tuple(np.full(size[::-1], 0.5, np.float32) for _ in range(3))
    for picture in (noisy, flat):
        fit = fitted(objective_of(picture), aim_of(), 40)
        assert all(np.isfinite(layer.colors).all() and np.isfinite(layer.cholesky).all() for layer in fit.layers)


def test_a_given_background_is_kept() -> None:
    black = np.zeros(3, np.float32)
    fit = fit_intra_main(
        objective_of(textured(*SIZE)), aim_of(), 40, np.random.default_rng(0), opponent=True, background=black
    )
    np.testing.assert_array_equal(fit.background, black)


def test_no_iterations_leave_the_start() -> None:
    assert sum(map(len, fitted(objective_of(textured(*SIZE)), aim_of(), 0).layers)) > 0


def test_variation_grows_with_area_and_contrast() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32) / 8, (6, 1))
    assert variation(objective_of((ramp,) * 3)) == pytest.approx(3 * 48 / 8)
    assert variation(objective_of((ramp / 2,) * 3)) == pytest.approx(3 * 48 / 16)


@given(st.floats(0, 99), st.floats(0.1, 1))
def test_steps_fall_with_quality(quality: float, more: float) -> None:
    assert step_of_quality(quality + more) < step_of_quality(quality)


@given(st.floats(1e-4, 50))
def test_coded_steps_are_the_nearest_there_are(step: float) -> None:
    index = coded_step(step)
    wanted = CODED_STEP * step * (1 << AMPLITUDE_BITS)
    errors = [abs(np.log(wanted / known)) for known in STEPS]
    assert errors[index] <= min(errors) + 0.02


def test_prices_rise_towards_the_base() -> None:
    aim = aim_of()
    assert (np.diff(aim.ratios) < 0).all()
    assert aim.ratios[-1] == aim.step_ratios[-1] == 1
    np.testing.assert_allclose(aim.weights, [1.75, 1.5, 1])
    assert level_weights(3, [2, 1, 1]) == [0.5, 0.5, 1]
