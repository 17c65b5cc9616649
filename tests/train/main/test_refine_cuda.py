"""Refinement on a GPU: the decisions of the CPU, where splats are settled in the same order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import growing_objective, objective_of, scene, some_splats

from pgsvc_codec.coding.main.state import STEPS, splats_of
from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer
from pgsvc_codec.splats import Splats, SplatState
from pgsvc_codec.train.cuda import residuals as cuda_residuals
from pgsvc_codec.train.cuda.residuals import CudaResiduals
from pgsvc_codec.train.cuda.tiles import Group, Tiles
from pgsvc_codec.train.main import host_field
from pgsvc_codec.train.main.host_field import HostResiduals
from pgsvc_codec.train.main.refine import Refined, refine_inter, refine_intra
from pgsvc_codec.train.main.residuals import Lattice
from pgsvc_codec.train.main.rounding import round_whole
from pgsvc_codec.train.main.visits import Tile, Visits
from pgsvc_codec.train.main.whole_layer import finely
from pgsvc_codec.train.objective import Objective
from pgsvc_codec.video import Chroma, Matrix, Range, VideoInfo

SIZE = (40, 32)
INDEX = 40  # D about 0.1
RATE = 0.1 * (STEPS[INDEX] / 4096) ** 2
COUNT = 5
BACKGROUND = np.full(3, 0.4, np.float32)
EVERYWHERE = [-np.inf, np.inf, -np.inf, np.inf]


class Frame(NamedTuple):
    """A picture of some splats and noise, to be refined on the CPU and on a GPU."""

    here: Objective
    there: Objective
    background: NDArray[np.float32]
    splats: Splats
    opponent: bool


def frame_of(kind: str, device, rng, levels: int = 1) -> Frame:
    channels = 1 if kind == "gray" else 3
    full = {"rgb": (Chroma.RGB, Matrix.RGB), "gray": (Chroma.GRAY, Matrix.BT709), "420": (Chroma.YUV420, Matrix.BT709)}
    info = VideoInfo(*SIZE, chroma=full[kind][0], matrix=full[kind][1], range=Range.FULL)
    splats = some_splats(rng, COUNT)
    splats = Splats(splats.means, splats.cholesky, splats.colors[:, :channels])
    empty = tuple(np.zeros(SIZE[::-1], np.float32) for _ in range(channels))
    shown = objective_of(empty).residuals(splats, np.zeros(channels, np.float32), [COUNT] * 3)[0]
    picture = tuple(np.float32(0.4) - plane + rng.normal(0, 0.02, plane.shape).astype(np.float32) for plane in shown)
    if kind == "420":
        picture = (picture[0], *(np.ascontiguousarray(plane[::2, ::2]) for plane in picture[1:]))
    objectives = (objective_of(picture, info, levels, CudaRasterizer(device)), objective_of(picture, info, levels))
    return Frame(objectives[1], objectives[0], BACKGROUND[:channels], splats, kind == "rgb")


@pytest.fixture
def same_order(request, monkeypatch) -> None:
    """Splats in order of their rows on the CPU and on the GPU, where either one program settles all, or many each."""
    large = request.param == "many programs"

    def cut(states, loose) -> Tiles:
        rows = np.arange(len(states[0][0]), dtype=np.int32)
        starts = np.array([0] if large else [0, len(rows)], np.int32)
        bounds = np.array([EVERYWHERE] * len(starts), np.float32)
        return Tiles(rows, starts, bounds, [] if large else [Group(0, 1, 4)])

    def visits(states, spacing) -> Visits:
        return Visits(Tile(np.arange(len(states[0][0])), np.array(EVERYWHERE)), [])

    monkeypatch.setattr(cuda_residuals, "cut", cut)
    monkeypatch.setattr(host_field, "visits", visits)


@pytest.fixture(autouse=True)
def few_programs(cuda_device, monkeypatch) -> None:
    """So that an interpreter is done with them soon."""
    if cuda_device.type == "cpu":
        monkeypatch.setattr(cuda_residuals, "_PARTS", 2)
        monkeypatch.setattr(cuda_residuals, "_BLOCK", {"rows": 16, "columns": 32, "num_warps": 4})
        monkeypatch.setattr(cuda_residuals, "_LARGE_BLOCK", {"rows": 8, "columns": 32, "num_warps": 4})


def assert_nearly_equal(one: SplatState, other: SplatState) -> None:
    """All but few, for which two choices cost the same."""
    assert len(one) == len(other)
    parts = [
        (mine == theirs).all(axis=1)
        for mine, theirs in zip(
            (one.positions, one.shapes, one.amplitudes),
            (other.positions, other.shapes, other.amplitudes),
            strict=True,
        )
    ]
    assert (~np.logical_and.reduce(parts)).sum() <= 1


@pytest.mark.parametrize(
    ("same_order", "kind"),
    [("a program", "rgb"), ("many programs", "420"), ("a program", "gray")],
    indirect=["same_order"],
)
def test_whole_splats_on_cuda_become_what_they_become_on_the_cpu(cuda_device, rng, request, same_order, kind) -> None:
    if kind != "rgb":
        request.getfixturevalue("any_order")
    frame = frame_of(kind, cuda_device, rng)
    here, there = (
        refine_intra(
            objective, frame.background, [frame.splats], [INDEX], [RATE], [1.0], opponent=frame.opponent, passes=2
        )
        for objective in (frame.here, frame.there)
    )
    assert_nearly_equal(here.layers[0], there.layers[0])
    assert there.cost == pytest.approx(here.cost, rel=2e-3)
    assert there.squared_error == pytest.approx(here.squared_error, rel=2e-3)


@pytest.mark.parametrize(
    ("same_order", "kind", "between"),
    [("many programs", "rgb", False), ("a program", "420", True), ("a program", "gray", False)],
    indirect=["same_order"],
)
def test_slots_on_cuda_become_what_they_become_on_the_cpu(cuda_device, rng, request, same_order, kind, between) -> None:
    """Slots that move, one that a fit has faded out, one that is wrong altogether, one reborn."""
    if kind == "gray":
        request.getfixturevalue("any_order")
    frame = frame_of(kind, cuda_device, rng)
    predicted = round_whole(frame.splats, STEPS[INDEX], SIZE, opponent=frame.opponent)
    splats = splats_of(predicted, *SIZE, opponent=frame.opponent)
    colors = splats.colors.copy()
    colors[1] = 0.0
    colors[2] *= -1.0
    splats = Splats(splats.means + np.float32([0.02, -0.04]), splats.cholesky, colors)
    reborn = None if between else [np.arange(len(splats)) == 3]
    here, there = (
        refine_inter(
            objective, frame.background, [predicted], [splats], reborn, [INDEX], [RATE], [1.0],
            opponent=frame.opponent, passes=2,
        )
        for objective in (frame.here, frame.there)
    )  # fmt: skip
    assert_nearly_equal(here.layers[0], there.layers[0])
    assert not here.layers[0].equals(predicted)
    assert there.cost == pytest.approx(here.cost, rel=2e-3)


def test_layers_on_cuda_cost_about_as_much_as_on_the_cpu(cuda_device, rng) -> None:
    """In the order of either; what is reported is what a rasteriser says of the levels."""
    frame = frame_of("420", cuda_device, rng, levels=2)
    layers = [frame.splats[:3], frame.splats[3:]]
    weights = [0.5, 1.0]
    here, there = (
        refine_intra(objective, frame.background, layers, [INDEX] * 2, [RATE] * 2, weights, opponent=False, passes=1)
        for objective in (frame.here, frame.there)
    )
    assert there.cost == pytest.approx(here.cost, rel=0.05)
    states = [splats_of(state, *SIZE, opponent=False) for state in there.layers]
    ends = np.cumsum([len(state) for state in states]).tolist()
    shown = frame.here.step(Splats.concatenate(states), frame.background, ends, weights, with_moments=False)
    errors = shown.squared_error @ np.array([1.0, 4.0, 4.0])
    np.testing.assert_allclose(there.squared_error, errors, rtol=1e-4)


@pytest.mark.usefixtures("any_order")
def test_residuals_on_cuda_of_levels_of_different_sizes(cuda_device, rng) -> None:
    """Splats are shown in all levels from their layer's on; births are those that the CPU finds."""
    picture, sizes = scene(*SIZE), [(20, 16), (30, 24), SIZE]
    splats, more = some_splats(rng, 6), some_splats(rng, 4)
    layers = [splats[:2], splats[2:4], splats[4:]]
    positions, shapes, painted = finely(more, SIZE, opponent=False)
    shapes[0] = 1800, 200, 1500  # larger than the tiles
    lattice = Lattice(STEPS[INDEX], np.array(SIZE) * 64, True)
    found = []
    for kind, rasterizer in ((HostResiduals, None), (CudaResiduals, CudaRasterizer(cuda_device))):
        objective = growing_objective(picture, sizes, *([rasterizer] if rasterizer else []))
        residuals = kind(objective, BACKGROUND, layers, (0.5, 0.25, 1.0), opponent=True)
        before = residuals.squared_error()
        field = residuals.of_layer(1)
        field.show(positions, shapes, painted, lattice)
        residuals.change(1, field)
        births = residuals.of_layer(0).births(SIZE, 4, 5)
        found.append((before, residuals.squared_error(), births.gains, births.splats.colors, field.weight))
    assert len(found[0][2]) > 0
    assert (found[0][0] != found[0][1]).tolist() == [False, True, True]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-3, atol=1e-5)


@pytest.mark.cuda
def test_refinement_on_cuda_is_the_same_every_time(cuda_device) -> None:
    """Many splats of all sizes, with births; J is about that of the CPU, whose order is another."""
    size, rng = (400, 300), np.random.default_rng(5)
    picture = scene(*size)
    splats = some_splats(rng, 600)
    lengths = rng.choice([0.5, 1.0, 3.0, 8.0], (600, 1)).astype(np.float32)
    splats = Splats(splats.means, splats.cholesky * lengths, splats.colors * np.float32(0.2))
    layers = [splats[:200], splats[200:400], splats[400:]]

    def refined(rasterizer) -> Refined:
        return refine_intra(
            objective_of(picture, rasterizer=rasterizer), BACKGROUND, layers, [INDEX] * 3, [RATE] * 3, (0.5, 0.5, 1.0),
            opponent=True, passes=6,
        )  # fmt: skip

    one, other = (refined(CudaRasterizer(cuda_device)) for _ in range(2))
    assert one.cost == other.cost
    assert all(first.equals(second) for first, second in zip(one.layers, other.layers, strict=True))
    assert one.cost == pytest.approx(refined(cpu).cost, rel=0.06)


def test_nothing_to_refine_on_cuda(cuda_device) -> None:
    objective = objective_of(scene(*SIZE), levels=1, rasterizer=CudaRasterizer(cuda_device))
    refined = refine_intra(objective, BACKGROUND, [Splats.empty(3)], [INDEX], [RATE], [1.0], opponent=True, passes=1)
    assert len(refined.layers[0]) == 0
    assert refined.cost > 0
