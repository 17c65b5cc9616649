"""Refinement and float fit in turn."""

from __future__ import annotations

import numpy as np
from scenes import objective_of, plan_of, scene

from pgsvc_codec.coding.main.state import STEPS, symbols_of
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.main.alternate import alternate

SIZE = (72, 56)
WEIGHTS = (0.5, 0.5, 1.0)
INDEX = 45
LAMBDAS = [0.1 * (STEPS[INDEX] / 4096) ** 2] * 3


def test_rounds_make_a_frame_cheaper() -> None:
    objective = objective_of(scene(*SIZE))
    fit = fit_float(objective, plan_of(splats=90, iterations=40), np.random.default_rng(3))
    once, thrice = (
        alternate(objective, fit.background, fit.layers, [INDEX] * 3, LAMBDAS, WEIGHTS, opponent=True, rounds=rounds)
        for rounds in (0, 3)
    )
    assert thrice.cost < 0.97 * once.cost
    for state in thrice.layers:
        symbols_of(state, STEPS[INDEX])


def test_layers_without_splats() -> None:
    objective = objective_of(scene(*SIZE))
    background = np.full(3, 0.5, np.float32)
    empty = [Splats.empty(3)] * 3
    found = alternate(objective, background, empty, [INDEX] * 3, [1e6] * 3, WEIGHTS, opponent=True, rounds=1, passes=5)
    assert [len(state) for state in found.layers] == [0, 0, 0]
    born = alternate(objective, background, empty, [INDEX] * 3, LAMBDAS, WEIGHTS, opponent=True, rounds=1)
    assert min(map(len, born.layers)) > 0
    assert born.cost < found.cost


def test_rounds_do_not_spoil_what_is_almost_perfect() -> None:
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    centers, deviations = [(20, 30), (36, 26), (50, 34)], [5.0, 9.0, 3.0]
    places = zip(centers, deviations, strict=True)
    spots = [0.4 * np.exp(-0.5 * (np.square(x - a) + np.square(y - b)) / d**2) for (a, b), d in places]
    means = (np.array(centers) / np.array(SIZE) * 2 - 1).astype(np.float32)
    cholesky = np.array([[d, 0, d] for d in deviations], np.float32)
    perfect = Splats(means, cholesky, np.full((3, 3), 0.4, np.float32))
    objective = objective_of((np.sum(spots, axis=0).astype(np.float32),) * 3)
    lambdas = [0.1 * (STEPS[0] / 4096) ** 2] * 3
    layers = [perfect[:1], perfect[1:2], perfect[2:]]
    once, often = (
        alternate(objective, np.zeros(3, np.float32), layers, [0] * 3, lambdas, WEIGHTS, opponent=True, rounds=rounds)
        for rounds in (0, 3)
    )
    assert often.cost < 1.02 * once.cost
