"""Strategies: which layers are fitted together, to what, and for how long."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, assert_equal_splats, growing_objective, objective_of, plan_of, psnr, scene

from pgsvc_codec.config import STRATEGIES as STRATEGY_NAMES
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import STRATEGIES, fit_float, fit_inter, fit_intra
from pgsvc_codec.train.motion import estimate_motion
from pgsvc_codec.train.relocate import removal_costs
from pgsvc_codec.train.stack import Reference

GROWING = [(42, 32), (58, 46), SIZE]
PRESETS = ["medium", "paper"]


def rng_of(seed=4):
    return np.random.default_rng(seed)


def test_every_strategy_that_can_be_asked_for_is_there():
    assert set(STRATEGIES) == set(STRATEGY_NAMES)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("iterations", [1, 2, 20, 31])
def test_strategies_spend_the_same_iterations_and_splats(preset, strategy, iterations):
    seen = []
    plan = plan_of((24, 16), preset=preset, strategy=strategy, iterations=iterations, splats=30)
    objective = objective_of(scene(24, 16))
    fit = fit_float(objective, plan, rng_of(), seen.append)
    least = 3 if strategy == "sequential" else 1  # one for each layer
    assert len(seen) == max(iterations, least)
    assert all(np.isfinite(step.loss) and step.gradient_norm > 0 for step in seen)
    assert [len(layer) for layer in fit.layers] == [10, 10, 10]
    intra = fit_intra(objective, plan, rng_of())
    assert [len(layer) for layer in intra.whole] == [10, 10, 10]
    luma = objective.targets[-1].picture[0]
    reference = Reference(intra.whole, estimate_motion(luma, luma), intra.tables_intra, [])
    inter = fit_inter(objective, plan, rng_of(), intra.background, reference)
    assert [len(layer) for layer in inter.layers] == [10, 10, 10]
    assert len(inter.tables_inter) == len(inter.tables_intra) == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sequential_base_is_the_fit_of_one_layer(preset):
    """What comes later leaves it as it is, bit by bit."""
    objective = objective_of(scene(*SIZE))
    options = {"preset": preset, "scenecut": 0}
    plan = plan_of(strategy="sequential", splats=90, iterations=90, **options)
    single = plan_of(layers=1, splats=30, iterations=30, **options)
    alone = objective_of(scene(*SIZE), levels=1)
    three, one = fit_float(objective, plan, rng_of()), fit_float(alone, single, rng_of())
    assert_equal_splats(three.layers[0], one.layers[0])
    three, one = fit_intra(objective, plan, rng_of()), fit_intra(alone, single, rng_of())
    assert_equal_splats(three.whole[0], one.whole[0])
    assert three.tables_intra[0].matches(one.tables_intra[0])


@pytest.mark.parametrize("sizes", [[SIZE] * 3, GROWING])
def test_a_sequential_layer_is_fitted_over_those_below(sizes):
    """Its own loss starts where that of the layers below ended, whatever the size of the level."""
    seen = []
    objective = growing_objective(scene(*SIZE), sizes)
    plan = plan_of(strategy="sequential", splats=90, iterations=90)
    fit = fit_float(objective, plan, rng_of(), seen.append)
    below = Splats.concatenate(fit.layers[:2])
    step = objective.step(below, fit.background, [30, 60, 60], [0.0, 0.0, 1.0])
    left = objective.loss(step.squared_error, [0.0, 0.0, 1.0])
    assert seen[60].loss == pytest.approx(left, rel=0.1), "new splats have next to no colour"
    assert seen[89].loss < seen[60].loss


def test_layers_of_one_fit_are_ordered_by_what_they_contribute():
    objective, plan = objective_of(scene(*SIZE)), plan_of(strategy="pruning", splats=90)
    fit = fit_float(objective, plan, rng_of())
    splats = Splats.concatenate(fit.layers)
    step = objective_of(scene(*SIZE), levels=1).step(splats, fit.background, [90], [1.0])
    costs = removal_costs(splats, step, [1.0], [90])
    assert (np.diff(costs) <= 1e-4 * costs.max()).all()


def test_one_fit_is_cut_only_after_it_is_done():
    """The splats of strategy "pruning" are those of one layer."""
    pruned = fit_float(objective_of(scene(*SIZE)), plan_of(strategy="pruning"), rng_of())
    single = fit_float(objective_of(scene(*SIZE), levels=1), plan_of(layers=1), rng_of())
    one, other = (np.sort(Splats.concatenate(fit.layers).means, axis=0) for fit in (pruned, single))
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("sizes", [[SIZE] * 3, GROWING])
def test_supervised_levels_are_better_where_they_are_not_the_full_one(sizes):
    objective = growing_objective(scene(*SIZE), sizes)
    fits = {
        strategy: fit_float(objective, plan_of(strategy=strategy, iterations=150), rng_of())
        for strategy in ("joint", "joint-random", "monolithic")
    }
    levels = {strategy: psnr(objective, fit.layers, fit.background) for strategy, fit in fits.items()}
    for strategy in ("joint", "joint-random"):
        assert (levels[strategy][:2] > levels["monolithic"][:2] + 3).all()
    assert levels["monolithic"][2] > levels["joint"][2] - 0.3, "which has its price"


def test_the_same_seed_is_the_same_fit_and_another_is_not():
    objective = objective_of(scene(24, 16))
    for strategy in STRATEGIES:
        plan = plan_of((24, 16), strategy=strategy, iterations=20, splats=30)
        one, same, other = (fit_float(objective, plan, rng_of(seed)).layers[2] for seed in (4, 4, 5))
        assert_equal_splats(one, same)
        assert (one.means != other.means).any()


def test_random_levels_follow_the_plans_seed():
    objective = objective_of(scene(24, 16))
    one, other = (
        fit_float(objective, plan_of((24, 16), strategy="joint-random", splats=30, seed=seed), rng_of()).layers[0]
        for seed in (0, 1)
    )
    assert (one.means != other.means).any(), "the same start, other levels in between"


def test_a_level_with_more_weight_is_better_and_the_others_pay():
    objective = objective_of(scene(*SIZE), levels=3)

    def levels(weights):
        fit = fit_float(objective, plan_of(iterations=120, level_weights=weights), rng_of())
        return psnr(objective, fit.layers, fit.background)

    base, top = levels((8, 1, 1)), levels((0.2, 0.2, 1))
    assert base[0] > top[0] + 0.5
    assert top[2] > base[2] + 0.5
