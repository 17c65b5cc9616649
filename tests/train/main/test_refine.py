"""Splats of an I-frame to integers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import growing_objective, objective_of, plan_of, scene

from pgsvc_codec.coding.main.state import MAX_AMPLITUDE, STEPS, splats_of, symbols_of
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.main.refine import Refined, refine_intra
from pgsvc_codec.train.main.rounding import round_whole
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

SIZE = (72, 56)
WEIGHTS = (0.5, 0.5, 1.0)
STEP_INDEX = 45  # D about 0.19


def pictures() -> dict[str, tuple[Objective, bool]]:
    gray = VideoInfo(*SIZE, chroma=Chroma.GRAY, matrix=Matrix.BT709, range=Range.FULL)
    halved = VideoInfo(*SIZE, chroma=Chroma.YUV420, matrix=Matrix.BT709, range=Range.LIMITED)
    planes = scene(*SIZE)
    subsampled = (planes[0], *(np.ascontiguousarray(plane[::2, ::2]) for plane in planes[1:]))
    return {
        "rgb": (objective_of(planes), True),
        "gray": (objective_of(planes[:1], gray), False),
        "420": (objective_of(subsampled, halved), False),
        "growing": (growing_objective(planes, [(36, 28), (54, 42), SIZE]), True),
    }


@pytest.fixture(scope="module", params=["rgb", "gray", "420", "growing"])
def fitted(request: pytest.FixtureRequest) -> tuple[Objective, bool, NDArray[np.float32], list[Splats]]:
    objective, opponent = pictures()[request.param]
    fit = fit_float(objective, plan_of(splats=90, iterations=60), np.random.default_rng(3))
    return objective, opponent, fit.background, fit.layers


def refine(fitted, passes: int, rate: float = 0.2) -> Refined:
    objective, opponent, background, layers = fitted
    lambdas = [rate * (STEPS[STEP_INDEX] / 4096) ** 2] * 3
    indices = [STEP_INDEX] * 3
    return refine_intra(objective, background, layers, indices, lambdas, WEIGHTS, opponent=opponent, passes=passes)


def painted_error(fitted, states: list[SplatState]) -> NDArray[np.float64]:
    """What a rasteriser says of the levels."""
    objective, opponent, background, _ = fitted
    layers = [splats_of(state, objective.width, objective.height, opponent=opponent) for state in states]
    ends = np.cumsum([len(state) for state in states]).tolist()
    error = objective.step(Splats.concatenate(layers), background, ends, [1.0] * 3, with_moments=False).squared_error
    weights = [[objective.width * objective.height / p.size for p in t.picture] for t in objective.targets]
    return (error * np.array(weights)).sum(axis=1)


def test_reported_errors_are_those_of_the_pictures(fitted) -> None:
    refined = refine(fitted, 3)
    np.testing.assert_allclose(refined.squared_error, painted_error(fitted, refined.layers), rtol=1e-4)
    assert refined.cost == pytest.approx(
        np.dot(WEIGHTS, refined.squared_error) + 0.2 * (STEPS[STEP_INDEX] / 4096) ** 2 * sum(refined.bits), rel=1e-9
    )


def test_cost_falls_from_pass_to_pass(fitted) -> None:
    costs = [refine(fitted, passes).cost for passes in range(4)]
    assert costs == sorted(costs, reverse=True)
    assert costs[1] < 0.97 * costs[0]


def test_splats_lie_on_their_lattices_within_the_frame(fitted) -> None:
    objective = fitted[0]
    for state in refine(fitted, 2).layers:
        symbols = symbols_of(state, STEPS[STEP_INDEX])
        assert symbols.amplitudes.any(axis=1).all()
        assert (state.positions >= 0).all()
        assert (state.positions >> 9 <= np.array([objective.width - 1, objective.height - 1]) >> 3).all()


def test_errors_alone_are_refined_where_bits_cost_nothing(fitted) -> None:
    none, some = (refine(fitted, passes, rate=0.0) for passes in (0, 3))
    assert np.dot(WEIGHTS, some.squared_error) < 0.93 * np.dot(WEIGHTS, none.squared_error)


def test_bits_that_cost_more_are_fewer(fitted) -> None:
    cheap, dear = (sum(refine(fitted, 3, rate).bits) for rate in (0.1, 1.0))
    assert dear < 0.9 * cheap


def test_births_take_off_what_is_worth_more_than_their_bits(fitted) -> None:
    objective, opponent, background, layers = fitted
    half = [layer[: len(layer) // 2] for layer in layers]
    lambdas = [0.05 * (STEPS[STEP_INDEX] / 4096) ** 2] * 3
    none, some = (
        refine_intra(objective, background, half, [STEP_INDEX] * 3, lambdas, WEIGHTS, opponent=opponent, passes=passes)
        for passes in (3, 5)  # three are too few for births
    )
    assert some.cost < 0.98 * none.cost
    assert sum(map(len, some.layers)) > sum(map(len, none.layers))


def test_layers_get_the_shares_of_bits_that_they_should_have_at_least(fitted) -> None:
    objective, opponent, background, layers = fitted
    lambdas = [0.2 * (STEPS[STEP_INDEX] / 4096) ** 2] * 3
    free, held = (
        refine_intra(
            objective, background, layers, [STEP_INDEX] * 3, lambdas, WEIGHTS, opponent=opponent, passes=8, shares=least
        )
        for least in (None, (0.2, 0.2, 0.2))
    )
    assert free.prices == lambdas
    assert all(0 < price <= highest for price, highest in zip(held.prices, lambdas, strict=True))
    least_free, least_held = (min(refined.bits) / sum(refined.bits) for refined in (free, held))
    assert least_held > min(0.16, 2 * least_free)


def test_nothing_to_refine() -> None:
    objective = objective_of(scene(*SIZE))
    empty = [Splats.empty(3)] * 3
    refined = refine((objective, True, np.full(3, 0.5, np.float32), empty), 2)
    assert [len(state) for state in refined.layers] == [0, 0, 0]
    np.testing.assert_allclose(
        refined.squared_error, painted_error((objective, True, np.full(3, 0.5, np.float32), empty), refined.layers)
    )


@pytest.mark.parametrize("step_index", [0, STEP_INDEX, len(STEPS) - 1])
def test_amplitudes_stay_within_those_of_a_state(step_index: int) -> None:
    """A splat so long that the best amplitude of all could not be coded: it becomes shorter."""
    objective = objective_of(tuple(np.ones((24, 32), np.float32) for _ in range(3)))
    mean, form, color = np.zeros((1, 2)), np.array([[4000.0, 0.0, 4000.0]]), np.full((1, 3), 0.3)
    layers = [Splats(*(part.astype(np.float32) for part in (mean, form, color))), Splats.empty(3), Splats.empty(3)]
    refined = refine_intra(
        objective, np.zeros(3, np.float32), layers, [step_index] * 3, [1e-9] * 3, WEIGHTS, opponent=True, passes=3
    )
    amplitudes = refined.layers[0].amplitudes
    assert amplitudes.any()
    assert np.abs(amplitudes).max() <= MAX_AMPLITUDE
    assert refined.squared_error[0] < 1.0


def test_rounding_leaves_out_what_rounds_to_nothing(rng) -> None:
    splats = Splats(
        rng.uniform(-1, 1, (40, 2)).astype(np.float32),
        np.tile(np.array([3.0, 0.5, 2.0], np.float32), (40, 1)),
        np.full((40, 3), 1e-3, np.float32),
    )
    assert len(round_whole(splats, 1024, SIZE, opponent=True)) == 0


def test_rounding_keeps_within_half_a_step(rng) -> None:
    count, step = 200, 400
    lengths = rng.uniform(1.0, 20.0, (count, 2))
    splats = Splats(
        rng.uniform(-0.99, 0.99, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 3, count), lengths[:, 1]], axis=1).astype(np.float32),
        (rng.choice([-1, 1], (count, 3)) * rng.uniform(0.2, 0.6, (count, 3))).astype(np.float32),
    )
    state = round_whole(splats, step, SIZE, opponent=True)
    assert len(state) == count
    found = splats_of(state, *SIZE, opponent=True)
    octaves = np.log2(found.cholesky[:, ::2] / splats.cholesky[:, ::2])
    assert np.abs(octaves).max() <= 0.5
    assert np.abs((found.means - splats.means)[:, 0]).max() * SIZE[0] / 2 <= 4.0
    energy = np.square(splats.colors * np.sqrt(np.pi * lengths.prod(axis=1))[:, None]).sum(axis=1)
    moved = (found.means - splats.means) * np.array(SIZE) / 2
    whitened = moved[:, 0] / lengths[:, 0]
    assert (np.abs(whitened) <= 1.3 * step / 4096 / np.sqrt(energy)).all()
