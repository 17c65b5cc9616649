"""The CPU rasteriser against the reference, and the reference's gradients against finite differences."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgsvc_codec.picture import PlaneGrid
from pgsvc_codec.render import cpu, reference
from pgsvc_codec.render.projection import project
from pgsvc_codec.splats import MIN_LENGTH, Splats

FULL = slice(0, 3)
ROUNDING = 3e-5  # a float32 position near sample 1000 is 6e-5 samples coarse


def luma_grid(width: int, height: int) -> PlaneGrid:
    return PlaneGrid(width, height, 0.0, 0.0, 1.0, 1.0)


def random_splats(rng: np.random.Generator, count: int, channels: int = 3, size: float = 3.0, spread: float = 1.1):
    lengths = rng.lognormal(np.log(size), 0.6, (count, 2))
    return Splats(
        rng.uniform(-spread, spread, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 2, count), lengths[:, 1]], axis=1).astype(np.float32),
        rng.normal(0, 0.2, (count, channels)).astype(np.float32),
    )


def one_splat(mean, cholesky, color) -> Splats:
    return Splats(*(np.array([row], np.float32) for row in (mean, cholesky, color)))


def both(splats, width, height, grid=None, channels=FULL, ends=None, background=None):
    grid = grid or luma_grid(width, height)
    planes = splats.colors[:, channels].shape[1]
    under = np.zeros(planes) if background is None else background
    arguments = (splats, width, height, grid, channels, under, ends or [len(splats)])
    return cpu.render(*arguments), reference.render(*arguments)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (17, 33), (64, 48), (1050, 19)])
def test_pixels_agree_with_the_reference_at_odd_sizes(rng, size):
    width, height = size
    fast, exact = both(random_splats(rng, 60), width, height, ends=[20, 45, 60])
    np.testing.assert_allclose(fast, exact, atol=ROUNDING)


def test_levels_are_prefixes(rng):
    splats = random_splats(rng, 50)
    together, _ = both(splats, 40, 30, ends=[0, 10, 50])
    for picture, end in zip(together, [0, 10, 50], strict=True):
        alone, _ = both(splats[:end], 40, 30)
        np.testing.assert_array_equal(picture, alone[0])


def test_no_splats_leave_the_background():
    fast, exact = both(Splats.empty(3), 9, 7, background=np.array([0.25, 0.5, 0.75]))
    np.testing.assert_array_equal(fast, exact)
    assert fast[0, 1].tolist() == np.full((7, 9), 0.5).tolist()


@pytest.mark.parametrize(
    "splat",
    [
        one_splat([0, 0], [MIN_LENGTH, 0, MIN_LENGTH], [0.5, 0.5, 0.5]),  # smaller than a sample
        one_splat([0.01, 0.02], [0.02, 0, 60], [0.5, -0.5, 0.1]),  # upright needle
        one_splat([0.01, 0.02], [60, 0, 0.02], [0.5, -0.5, 0.1]),  # lying needle
        one_splat([0.0, 0.0], [40, 39.9, 0.05], [0.5, -0.5, 0.1]),  # diagonal needle
        one_splat([0.0, 0.0], [3000, 100, 2500], [0.7, -0.5, 0.1]),  # far larger than the picture
        one_splat([3.0, -5.0], [3, 1, 3], [0.5, 0.5, 0.5]),  # off screen, does not reach
        one_splat([1.1, 0.0], [9, 1, 3], [0.5, 0.5, 0.5]),  # off screen, reaches
        one_splat([0.1, 0.1], [-4, 2, -3], [0.5, 0.5, 0.5]),  # signs of the diagonal do not matter
        one_splat([0.1, 0.1], [4, 1, 3], [1e-5, -1e-5, 0.0]),  # too faint to count
        one_splat([0.1, 0.1], [4, 1, 3], [0.0, 0.0, 0.0]),
        one_splat([0.1, 0.1], [4, 1, 3], [30.0, -30.0, 0.0]),  # very strong
    ],
)
def test_extreme_splats(splat):
    fast, exact = both(splat, 50, 37)
    np.testing.assert_allclose(fast, exact, atol=2e-5 * max(1.0, float(np.abs(splat.colors).max())))


def test_planes_of_their_own_grid(rng):
    splats = random_splats(rng, 80)
    grid = PlaneGrid(33, 21, 0.0, 0.5, 2.0, 2.0)
    fast, exact = both(splats, 65, 42, grid=grid, channels=slice(1, 3))
    assert fast.shape == (1, 2, 21, 33)
    np.testing.assert_allclose(fast, exact, atol=ROUNDING)


@pytest.mark.parametrize(
    "cholesky", [(1e33, 0, 1e33), (1e33, 1e14, 1e11), (1 / 64, 1e30, 1), (1e38, 1 / 64, 1 / 64), (1e30, 1e30, 1)]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_splats_beyond_all_bounds_do_no_harm(cholesky, smoothing):
    splats = one_splat((0.1, 0.2), cholesky, (0.5, -0.25, 0.125))
    grid = PlaneGrid(20, 10, 0.0, 0.0, 1.0, 1.0, smoothing, smoothing)
    fast, _ = both(splats, 20, 10, grid)
    assert np.isfinite(fast).all()
    codes = cpu.render(splats, 20, 10, grid, FULL, np.full(3, 0.5), [1], 255)
    assert codes.dtype == np.uint8


def test_a_splat_larger_than_any_plane_is_flat():
    fast, _ = both(one_splat((0, 0), (1e30, 0, 1e30), (0.5, -0.25, 0.125)), 20, 10)
    np.testing.assert_allclose(fast[0].min(axis=(1, 2)), [0.5, -0.25, 0.125])
    np.testing.assert_allclose(fast[0].max(axis=(1, 2)), [0.5, -0.25, 0.125])


def test_smoothing_loses_no_digits_of_needles():
    plane = project(one_splat((0, 0), (2**13, 2**20, 1 / 64), (1, 1, 1)), 8, 8, PlaneGrid(8, 8, 0, 0, 1, 1, 0.25, 0.5))
    # determinant of the covariance with 1/4 and 1/2 added on its diagonal, in exact integers
    determinant = Fraction(4 * 2**26 + 1, 4) * (2**40 + Fraction(1, 2**12) + Fraction(1, 2)) - 2**66
    assert (plane.cholesky[0, 0] * plane.cholesky[0, 2]) ** 2 == pytest.approx(float(determinant), rel=1e-13)


def test_smoothing_keeps_the_integral_and_agrees_with_the_reference(rng):
    splats = random_splats(rng, 40, size=1.0, spread=0.5)
    coarse = PlaneGrid(16, 12, 1.5, 1.5, 4.0, 4.0, (16 - 1) / 12, (16 - 1) / 12)
    fast, exact = both(splats, 64, 48, grid=coarse)
    np.testing.assert_allclose(fast, exact, atol=ROUNDING)
    fine, _ = both(splats, 64, 48)
    np.testing.assert_allclose(16 * fast.sum(axis=(2, 3)), fine.sum(axis=(2, 3)), rtol=0.02, atol=0.5)
    averages = fine.reshape(3, 12, 4, 16, 4).mean(axis=(2, 4))
    points, _ = both(splats, 64, 48, grid=PlaneGrid(16, 12, 1.5, 1.5, 4.0, 4.0))
    assert np.abs(fast[0] - averages).max() < 0.5 * np.abs(points[0] - averages).max()


@pytest.mark.parametrize(("max_code", "dtype"), [(255, np.uint8), (1023, np.uint16)])
def test_codes_are_within_one_of_the_reference(rng, max_code, dtype):
    splats = random_splats(rng, 300)
    arguments = (splats, 80, 60, luma_grid(80, 60), FULL, np.full(3, 0.5), [300])
    codes = cpu.render(*arguments, max_code=max_code)
    exact = np.floor(np.clip(reference.render(*arguments), 0, 1) * max_code + 0.5)
    assert codes.dtype == dtype
    difference = np.abs(codes.astype(int) - exact)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def any_lengths():
    """Rows of a Cholesky factor from a tenth of a sample to beyond the plane, leaning either way."""
    length = st.floats(-1.0, 2.3).map(lambda exponent: 10.0**exponent)
    return st.tuples(length, st.floats(-50.0, 50.0), length, st.sampled_from([-1.0, 1.0]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), any_lengths()), min_size=1, max_size=5),
    st.integers(1, 200),
    st.integers(1, 150),
)
def test_codes_of_any_splats_are_within_one_of_the_reference(rows, width, height):
    splats = Splats(
        np.array([row[:2] for row in rows], np.float32),
        np.array([(sign * l1, l2, l3) for *_, (l1, l2, l3, sign) in rows], np.float32),
        np.array([(0.3, -0.2, 0.1)] * len(rows), np.float32),
    )
    arguments = (splats, width, height, luma_grid(width, height), FULL, np.full(3, 0.5), [len(splats)])
    exact = np.floor(np.clip(reference.render(*arguments), 0, 1) * 255 + 0.5)
    assert np.abs(cpu.render(*arguments, max_code=255) - exact).max() <= 1


@settings(max_examples=40, deadline=None)
@given(any_lengths(), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_moments_of_any_splat_agree_with_the_reference(lengths, x, y):
    l1, l2, l3, sign = lengths
    splats = one_splat((x, y), (sign * l1, l2, l3), (0.3, -0.2, 0.1))
    target = np.random.default_rng(3).uniform(0.2, 0.5, (3, 90, 150)).astype(np.float32)
    arguments = (splats, 150, 90, luma_grid(150, 90), FULL, target, [1], [1.0], [1.0, 0.5, 2.0])
    fast, exact = cpu.fit_step(*arguments).moments, reference.fit_step(*arguments).moments
    # a sample at the rim of a needle, which float32 may see on the other side, weighs 1/4080 of the strongest colour
    np.testing.assert_allclose(fast, exact, rtol=2e-3, atol=3e-3 * np.abs(exact).max() + 1e-2)


def test_more_runs_than_are_planned_at_once(rng):
    """Leaning needles of which each row is a run of its own, enough of them for several plans per tile and layer."""
    count = 120
    splats = Splats(
        rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        np.tile(np.array([[40.0, 30.0, 0.05]], np.float32), (count, 1)),
        rng.normal(0, 0.2, (count, 3)).astype(np.float32),
    )
    fast, exact = both(splats, 128, 64)
    np.testing.assert_allclose(fast, exact, atol=30 * ROUNDING)
    arguments = step_arguments(rng, splats, 128, 64)
    fast, exact = cpu.fit_step(*arguments), reference.fit_step(*arguments)
    np.testing.assert_allclose(fast.squared_error, exact.squared_error, rtol=1e-4)
    scale = np.abs(exact.moments).max(axis=0)
    assert (np.abs(fast.moments - exact.moments) < 2e-3 * scale).all()


def test_splats_that_miss_a_tile_within_their_box_hide_none_that_follow(rng):
    """Leaning needles through the middle of four tiles: two of those lie in their boxes, but have no sample of them."""
    needle = one_splat((0.0, 0.0), (20.0, 19.9, 0.03), (0.3, -0.2, 0.1))
    behind = [one_splat((x, y), (5.0, 1.0, 4.0), (0.2, 0.1, -0.3)) for x in (-0.4, 0.4) for y in (-0.4, 0.4)]
    splats = Splats.concatenate([*[needle] * 40, *behind])
    fast, exact = both(splats, 256, 128)
    np.testing.assert_allclose(fast, exact, atol=40 * ROUNDING)
    arguments = step_arguments(rng, splats, 256, 128)
    moments = cpu.fit_step(*arguments).moments[-4:], reference.fit_step(*arguments).moments[-4:]
    np.testing.assert_allclose(*moments, rtol=1e-3, atol=1e-3 * np.abs(moments[1]).max())


@pytest.mark.parametrize("rasterizer", [cpu, reference])
def test_errors_are_the_same_without_moments(rng, rasterizer):
    arguments = step_arguments(rng, random_splats(rng, 60), 150, 90)
    whole, errors = rasterizer.fit_step(*arguments), rasterizer.fit_step(*arguments, with_moments=False)
    np.testing.assert_array_equal(errors.squared_error, whole.squared_error)
    assert errors.moments.shape == (0, 8)


def test_passes_may_run_at_the_same_time(rng):
    arguments = [step_arguments(rng, random_splats(rng, 200), 200, 130) for _ in range(4)]
    alone = [cpu.fit_step(*each) for each in arguments]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: cpu.fit_step(*each), arguments * 4))
    for result, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(result.moments, expected.moments)
        np.testing.assert_array_equal(result.squared_error, expected.squared_error)


def test_a_sum_is_additive(rng):
    a, b = random_splats(rng, 30), random_splats(rng, 40)
    whole, _ = both(Splats.concatenate([a, b]), 32, 32)
    parts = both(a, 32, 32)[0] + both(b, 32, 32)[0]
    np.testing.assert_allclose(whole, parts, atol=2e-6)


def step_arguments(rng, splats, width, height, channels=FULL, grid=None):
    grid = grid or luma_grid(width, height)
    planes = splats.colors[:, channels].shape[1]
    target = rng.uniform(-0.5, 0.5, (planes, grid.height, grid.width)).astype(np.float32)
    third = len(splats) // 3
    ends = [third, 2 * third, len(splats)]
    return splats, width, height, grid, channels, target, ends, [0.5, 0.0, 1.0], [1.0, 0.5, 2.0][:planes]


@pytest.mark.parametrize("size", [(1, 1), (30, 23), (600, 18), (128, 97)])
def test_backward_agrees_with_the_reference(rng, size):
    arguments = step_arguments(rng, random_splats(rng, 60), *size)
    fast, exact = cpu.fit_step(*arguments), reference.fit_step(*arguments)
    np.testing.assert_allclose(fast.squared_error, exact.squared_error, rtol=1e-5)
    scale = np.abs(exact.moments).max()
    np.testing.assert_allclose(fast.moments, exact.moments, rtol=2e-4, atol=2e-5 * scale)


def test_backward_of_subsampled_planes_and_needles(rng):
    splats = Splats.concatenate([random_splats(rng, 29), one_splat([0, 0], [40, 39.9, 0.05], [0.5, -0.5, 0.1])])
    grid = PlaneGrid(20, 15, 0.0, 0.5, 2.0, 2.0)
    arguments = step_arguments(rng, splats, 40, 30, channels=slice(1, 3), grid=grid)
    fast, exact = cpu.fit_step(*arguments), reference.fit_step(*arguments)
    scale = np.abs(exact.moments).max()
    np.testing.assert_allclose(fast.moments, exact.moments, rtol=1e-3, atol=5e-5 * scale)


def loss(arguments) -> float:
    squared = reference.fit_step(*arguments).squared_error
    return float(np.asarray(arguments[7]) @ squared @ np.asarray(arguments[8]))


def test_moments_are_the_gradient_of_the_loss(rng):
    """Finite differences in float64 of colour, whitened position and the three whitened shape coordinates."""
    arguments = step_arguments(rng, random_splats(rng, 9, size=2.5, spread=0.7), 24, 20)
    splats = arguments[0]
    moments = reference.fit_step(*arguments).moments
    size = np.array([24.0, 20.0])

    class Exact(Splats):
        """Splats in float64: differences of 1e-6 would drown in float32."""

        def __post_init__(self):
            pass

    def moved(n, color=(0, 0, 0), offset=(0, 0), shape=(0, 0, 0)):
        means, cholesky, colors = (array.astype(np.float64) for array in (splats.means, splats.cholesky, splats.colors))
        l1, l2, l3 = cholesky[n]
        means[n] += np.array([l1 * offset[0], l2 * offset[0] + l3 * offset[1]]) * 2 / size
        log1, shear, log3 = shape
        cholesky[n] = l1 * np.exp(log1), (l2 / l3 + shear) * l3 * np.exp(log3), l3 * np.exp(log3)
        colors[n] += color
        return loss((Exact(means, cholesky, colors), *arguments[1:]))

    def slope(n, **step):
        key, value = next(iter(step.items()))
        step_size = 1e-5
        plus = moved(n, **{key: step_size * np.array(value)})
        return (plus - moved(n, **{key: -step_size * np.array(value)})) / (2 * step_size)

    for n in range(len(splats)):
        color, (m1, m2, m11, m12, m22) = moments[n, :3], moments[n, 3:]
        shear = float(splats.cholesky[n, 1]) / float(splats.cholesky[n, 2])
        expected = [*color, m1, m2, m11 - shear * m12, m12, shear * m12 + m22]
        measured = [slope(n, color=row) for row in np.eye(3)]
        measured += [slope(n, offset=row) for row in np.eye(2)]
        measured += [slope(n, shape=row) for row in np.eye(3)]
        # the cut-off makes the loss jump by under 1/16 step at the rim, hence not tighter
        np.testing.assert_allclose(measured, expected, rtol=2e-2, atol=2e-2 * np.abs(expected).max())


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    script = (
        "import sys, numpy as np; sys.path[:0] = ['tests/render', 'tests']\n"
        "from test_cpu import random_splats, step_arguments\n"
        "from pgsvc_codec.render import cpu\n"
        "rng = np.random.default_rng(5)\n"
        "a = step_arguments(rng, random_splats(rng, 500), 300, 200)\n"
        "r = cpu.fit_step(*a)\n"
        "import hashlib; print(hashlib.sha256(r.moments.tobytes() + r.squared_error.tobytes()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "NUMBA_NUM_THREADS": threads, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(digests) == 1
