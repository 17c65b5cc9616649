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
