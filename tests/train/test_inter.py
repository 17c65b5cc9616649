"""P-frames in natural coordinates: motion, what is skipped, and what a change of a splat costs."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, objective_of, plan_of, psnr, scene, some_splats

from pgsvc_codec.coding.baseline.quant import QuantTables, ScalarQuantizer
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_inter, fit_intra
from pgsvc_codec.train.inter import InterFit, change_energies
from pgsvc_codec.train.model import SplatModel
from pgsvc_codec.train.motion import estimate_motion
from pgsvc_codec.train.schedule import all_levels
from pgsvc_codec.train.stack import Reference, Stack


@pytest.fixture(scope="module")
def still():
    """An I-frame of the scene as it stands."""
    return fit_intra(objective_of(scene(*SIZE)), plan_of(iterations=150), np.random.default_rng(0))


def reference_of(fit, old, new):
    return Reference(fit.whole, estimate_motion(old[0], new[0]), fit.tables_intra, [])


def test_a_p_frame_follows_motion_and_keeps_order(still):
    first, second = scene(*SIZE), scene(*SIZE, shift=(3, 2))
    objective = objective_of(second)
    before = psnr(objective, still.whole, still.background)
    fit = fit_inter(
        objective, plan_of(iterations=150), np.random.default_rng(1), still.background,
        reference_of(still, first, second),
    )  # fmt: skip
    for layer, old in enumerate(still.whole):
        assert fit.survivors[layer].sum() == len(fit.targets[layer])
        assert len(fit.targets[layer]) + len(fit.whole[layer]) == len(old)
    after = psnr(objective, fit.layers, fit.background)
    own = psnr(objective_of(first), still.whole, still.background)
    assert after[2] > before[2] + 2
    assert after[2] > own[2] - 1.5


def test_changes_too_small_for_their_bits_are_not_made(still):
    """Three steps on a picture that stays change every splat a little; nearly all go back to their reference."""
    picture = scene(*SIZE)
    fit = fit_inter(
        objective_of(picture), plan_of(iterations=10), np.random.default_rng(1), still.background,
        reference_of(still, picture, picture),
    )  # fmt: skip
    changed = [
        (new.colors != old[alive].colors).any(axis=1).mean()
        for new, old, alive in zip(fit.targets, still.whole, fit.survivors, strict=True)
    ]
    assert np.mean(changed) < 0.2


def fit_of(still, picture):
    """A P-frame of a picture, before its first iteration."""
    ends = [len(layer) for layer in still.whole]
    stack = Stack(objective_of(picture), 0, ends, all_levels(3, 0), 1, np.random.default_rng(0))
    return InterFit(stack, still.background, reference_of(still, picture, picture))


def test_what_leaves_goes_behind_the_survivors_of_its_layer(still):
    fit = fit_of(still, scene(*SIZE))
    splats, ends = Splats.concatenate(still.whole), [40, 80, 120]
    model = fit.part(SplatModel(splats, ends, *SIZE), np.arange(120) % 40 == 3)
    model = fit.part(model, np.arange(120) == 45)  # has become that of row 46
    order = [*range(3), *range(4, 40), 3, *(row for row in range(40, 80) if row not in (43, 46)), 46, 43]
    order += [*range(80, 83), *range(84, 120), 83]
    np.testing.assert_allclose(model.splats().means, splats.means[order], atol=1e-6)
    gone = np.flatnonzero(~np.concatenate(fit.survivors))
    assert gone.tolist() == [3, 43, 46, 83]


def test_splats_that_no_difference_reaches_are_coded_whole(still):
    """Differences of a third of a pixel at most; a splat becomes as long as another one of its layer is."""
    fine = ScalarQuantizer(np.full(3, 0.02, np.float32), np.zeros(3, np.float32), -16, 15)
    tables = [QuantTables(fine, whole.colors, whole.position_fraction_bits) for whole in still.tables_intra]
    fit = fit_of(still, scene(*SIZE))
    fit.reference = fit.reference._replace(tables_inter=tables)
    ends = [40, 80, 120]
    layers = [layer.cholesky.copy() for layer in still.whole]
    shortest, longest = np.argsort(np.abs(layers[1][:, 0] * layers[1][:, 2]))[[0, -1]]
    layers[1][shortest] = layers[1][longest]
    layers[1][np.arange(40) != shortest] += np.float32(0.1)
    splats = Splats.concatenate(still.whole)
    stray = fit.strays(SplatModel(Splats(splats.means, np.concatenate(layers), splats.colors), ends, *SIZE))
    assert np.flatnonzero(stray).tolist() == [40 + shortest]


def test_change_energy_is_the_error_of_showing_the_old_splat(rng):
    old = some_splats(rng, 8, signs=False)
    old = Splats(old.means * np.float32(0.5), old.cholesky, old.colors)
    new = Splats(
        old.means + rng.normal(0, 0.002, (8, 2)).astype(np.float32),
        old.cholesky * (1 + rng.normal(0, 0.03, (8, 3))).astype(np.float32),
        old.colors + rng.normal(0, 0.01, (8, 3)).astype(np.float32),
    )
    energies = change_energies(new, old, SIZE)
    black = np.zeros(3, np.float32)
    for n in range(8):
        blank = tuple(np.zeros(SIZE[::-1], np.float32) for _ in range(3))
        shown = objective_of(blank, levels=1).residuals(old[n : n + 1], black, [1])[0]
        target = tuple(-plane for plane in shown)
        squared = objective_of(target, levels=1).step(new[n : n + 1], black, [1], [1.0]).squared_error.sum()
        assert squared == pytest.approx(energies[n], rel=0.3)
