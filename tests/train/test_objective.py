"""The loss over levels, of one size or of several."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, growing_objective, objective_of, rgb_info, scene, some_splats

from pgsvc_codec.picture import plane_grids
from pgsvc_codec.render import reference
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.objective import LevelTarget, Objective
from pgsvc_codec.video import Chroma, VideoInfo

BACKGROUND = np.full(3, 0.3, np.float32)
GROWING = [(12, 10), (18, 14), (24, 20)]
ENDS = [3, 5, 8]


@pytest.fixture
def splats(rng):
    return some_splats(rng, 8)


def test_levels_of_one_size_are_one_pass(splats):
    """Errors, and moments that sum over the levels that a splat is in."""
    picture, weights = scene(24, 20), [0.5, 0.0, 2.0]
    step = objective_of(picture, rasterizer=reference).step(splats, BACKGROUND, ENDS, weights)
    target = np.stack(picture) - BACKGROUND[:, None, None]
    plain = reference.fit_step(
        splats, 24, 20, plane_grids(rgb_info(24, 20))[0], slice(0, 3), target, ENDS, weights, [1.0] * 3
    )
    np.testing.assert_array_equal(step.squared_error, plain.squared_error)
    np.testing.assert_array_equal(step.moments, plain.moments.astype(np.float32))


def test_levels_of_several_sizes_are_a_pass_each_and_their_moments_add_up(splats):
    objective, weights = growing_objective(scene(24, 20), GROWING, reference), [0.5, 0.25, 2.0]
    step = objective.step(splats, BACKGROUND, ENDS, weights)
    moments = np.zeros((8, 8))
    for level, (target, end, weight) in enumerate(zip(objective.targets, ENDS, weights, strict=True)):
        width, height = GROWING[level]
        plain = reference.fit_step(
            splats[:end], 24, 20, target.grids[0], slice(0, 3), np.stack(target.picture) - BACKGROUND[:, None, None],
            [end], [weight], [24 * 20 / (width * height)] * 3,
        )  # fmt: skip
        np.testing.assert_allclose(step.squared_error[level], plain.squared_error[0])
        moments[:end] += plain.moments
    np.testing.assert_allclose(step.moments, moments, rtol=1e-5, atol=1e-5 * np.abs(moments).max())


def test_small_levels_weigh_as_much_as_large_ones(splats):
    """The loss is a sum of mean squared errors, whatever the sizes: a level's samples share its weight."""
    objective, weights = growing_objective(scene(24, 20), GROWING, reference), [0.5, 0.25, 2.0]
    squared = objective.step(splats, BACKGROUND, ENDS, weights).squared_error
    means = [errors.sum() / (width * height) for errors, (width, height) in zip(squared, GROWING, strict=True)]
    assert objective.loss(squared, weights) == pytest.approx(np.dot(weights, means))


@pytest.mark.parametrize("levels", [1, 3])
def test_the_loss_is_what_the_moments_are_the_slope_of(rng, levels):
    """Doubling a colour's change doubles the change of the loss: the first moments are d loss / d colour."""
    objective = growing_objective(scene(24, 20), GROWING[-levels:], reference)
    ends, weights = ENDS[-levels:], [0.5, 0.25, 2.0][-levels:]
    splats = some_splats(rng, 8)
    step = objective.step(splats, BACKGROUND, ends, weights)
    nudge = rng.normal(0, 1, (8, 3)).astype(np.float32)
    losses = []
    for sign in (1, -1):
        colors = splats.colors + np.float32(sign * 1e-2) * nudge
        shown = objective.step(Splats(splats.means, splats.cholesky, colors), BACKGROUND, ends, weights)
        losses.append(objective.loss(shown.squared_error, weights) * 24 * 20)
    slope = (losses[0] - losses[1]) / 2e-2
    assert slope == pytest.approx((step.moments[:, :3] * nudge).sum(), rel=1e-2)


def test_levels_that_weigh_nothing_cost_no_pass(splats):
    """Errors of the others are those of a full step; a pass of its own is left out."""
    objective = growing_objective(scene(24, 20), GROWING, reference)
    every = objective.step(splats, BACKGROUND, ENDS, [1.0, 1.0, 1.0]).squared_error
    some = objective.step(splats, BACKGROUND, ENDS, [0.0, 1.0, 1.0]).squared_error
    np.testing.assert_array_equal(some, every * [[0], [1], [1]])
    alone = objective.step(splats, BACKGROUND, ENDS, [0.0, 0.0, 1.0])
    top = objective_of(scene(24, 20), levels=1, rasterizer=reference).step(splats, BACKGROUND, [8], [1.0])
    np.testing.assert_array_equal(alone.moments, top.moments)


def test_planes_of_half_size_weigh_alike(rng):
    info = VideoInfo(24, 20, chroma=Chroma.YUV420)
    luma, *chroma = scene(24, 20)
    picture = (luma, *(plane[::2, ::2] for plane in chroma))
    objective = Objective((24, 20), [LevelTarget(picture, plane_grids(info))], reference)
    nothing = Splats.empty(3)
    squared = objective.step(nothing, BACKGROUND, [0], [1.0]).squared_error
    means = [np.mean((plane - np.float32(0.3)) ** 2) for plane in picture]
    assert objective.loss(squared, [1.0]) == pytest.approx(sum(means), rel=1e-5)


def test_residuals_are_what_is_left_of_every_level(splats):
    for objective in (objective_of(scene(24, 20)), growing_objective(scene(24, 20), GROWING)):
        squared = objective.step(splats, BACKGROUND, ENDS, [1.0] * 3).squared_error
        residuals = objective.residuals(splats, BACKGROUND, ENDS)
        for planes, target, errors in zip(residuals, objective.targets, squared, strict=True):
            assert [plane.shape for plane in planes] == [plane.shape for plane in target.picture]
            assert [float((plane.astype(float) ** 2).sum()) for plane in planes] == pytest.approx(errors, rel=1e-4)


@pytest.mark.parametrize("sizes", [[(24, 20)] * 3, GROWING])
def test_errors_without_moments_are_the_same(splats, sizes):
    objective = growing_objective(scene(24, 20), sizes)
    weights = [0.5, 0.0, 1.0]
    whole = objective.step(splats, BACKGROUND, ENDS, weights)
    errors = objective.step(splats, BACKGROUND, ENDS, weights, with_moments=False)
    np.testing.assert_array_equal(errors.squared_error, whole.squared_error)
    assert errors.moments.shape == (0, whole.moments.shape[1])


@pytest.mark.parametrize("sizes", [[(24, 20)] * 3, GROWING])
def test_weighted_residuals_are_sums_of_residuals(splats, sizes):
    objective = growing_objective(scene(24, 20), sizes)
    weights = [0.5, 0.3, 1.0]
    residuals = objective.residuals(splats, BACKGROUND, ENDS)
    for level in range(3):
        summed = objective.weighted_residual(level, splats, BACKGROUND, ENDS, weights)
        for plane, got in enumerate(summed):
            wanted = sum(weights[k] * residuals[k][plane] for k in objective.peers(level))
            np.testing.assert_allclose(got, wanted, atol=2e-3)  # fainter splats are cut off sooner


@pytest.mark.parametrize("sizes", [[(24, 20)] * 3, GROWING])
def test_what_is_left_for_a_level_alone(splats, sizes):
    """Splats over those below err as both together do."""
    objective = growing_objective(scene(24, 20), sizes)
    for level in range(3):
        rest = objective.alone(level, splats[:3], BACKGROUND)
        assert rest.num_levels == 1
        above = splats[3 : ENDS[level]]
        own = rest.step(above, np.zeros(3, np.float32), [len(above)], [1.0])
        both = objective.step(splats, BACKGROUND, ENDS, [float(k == level) for k in range(3)])
        np.testing.assert_allclose(own.squared_error[0], both.squared_error[level], rtol=1e-4)
        np.testing.assert_allclose(own.moments, both.moments[3 : ENDS[level]], rtol=1e-3, atol=1e-3)


def test_peers_are_the_levels_above_of_one_size():
    picture = scene(*SIZE)
    assert [list(objective_of(picture).peers(level)) for level in range(3)] == [[0, 1, 2], [1, 2], [2]]
    growing = growing_objective(picture, [(36, 28), SIZE, SIZE])
    assert [list(growing.peers(level)) for level in range(3)] == [[0], [1, 2], [2]]
