"""Bins of tiles: rectangles by sorting and by gsplat, and what the exact test leaves of them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from pgsvc_codec.picture import PlaneGrid  # noqa: E402
from pgsvc_codec.render import reference  # noqa: E402
from pgsvc_codec.render.cuda.binning import Binning  # noqa: E402
from pgsvc_codec.render.cuda.canvases import Canvas, Canvases, TileShape  # noqa: E402
from pgsvc_codec.render.cuda.gsplat_binning import GsplatBinning  # noqa: E402
from pgsvc_codec.render.cuda.raster import Raster  # noqa: E402
from pgsvc_codec.render.cuda.table import SplatTable, table_of  # noqa: E402
from pgsvc_codec.render.projection import project  # noqa: E402
from pgsvc_codec.splats import Splats  # noqa: E402

SIZES = ((50, 37), (19, 60))
SLOTS = (0, 1, -1)
ROWS, TILE = 30, TileShape(8, 8)


def any_splats(rng, count) -> Splats:
    """Of any size, some thin and leaning, some off screen, some that do not count."""
    lengths = np.exp(rng.uniform(np.log(0.05), np.log(60), (count, 2)))
    colors = rng.normal(0, 0.3, (count, 3)) * (rng.uniform(0, 1, (count, 1)) < 0.9)
    return Splats(
        rng.uniform(-1.3, 1.3, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 0.5, count) * lengths[:, 0], lengths[:, 1]], axis=1).astype(np.float32),
        colors.astype(np.float32),
    )


class Scene:
    def __init__(self, rng, device):
        canvases = [Canvas(n, size, PlaneGrid(*size, 0.0, 0.0, 1.0, 1.0)) for n, size in enumerate(SIZES)]
        self.canvases = Canvases(canvases, slice(0, 3), SLOTS, device, TILE)
        self.splats = [any_splats(rng, ROWS) for _ in SIZES]
        self.layers = np.sort(rng.integers(0, 3, ROWS))
        tables = [table_of(s, SIZES[n], self.layers, ROWS, device, n) for n, s in enumerate(self.splats)]
        self.table = SplatTable(*(torch.cat(columns) for columns in zip(*tables, strict=True)))

    def binned(self, binner, room=1 << 14):
        """Entries as rows of (tile, slot, splat), in the order of the bins, and their places."""
        wanted = torch.zeros(1, dtype=torch.int64, device=self.canvases.device)
        binner.grow(room)
        bins = binner.bin(self.table, wanted)
        starts = bins.starts.cpu().numpy()
        assert starts[0] == 0
        assert starts[-1] <= wanted.item() == bins.ends[-1].item()
        key = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        tile, slot = np.divmod(key, self.canvases.num_slots)
        splats, places = (array[: starts[-1]].cpu().numpy() for array in (bins.splats, bins.places))
        return np.stack([tile, slot, splats], axis=1), places

    def expected(self, touches):
        """The same in NumPy: rows of (tile, slot, splat) for which touches(mean, factor, q, corner of a tile, size)."""
        rows = []
        tile = 0
        for number, (width, height) in enumerate(SIZES):
            plane = project(self.splats[number], width, height, self.canvases.canvases[number].grid)
            for top in range(0, height, TILE.height):
                for left in range(0, width, TILE.width):
                    for n, (mean, factor, _, q) in enumerate(zip(*plane, strict=True)):
                        slot = SLOTS[self.layers[n]]
                        if slot >= 0 and q > 0 and touches(mean, factor, q, (left, top), (width, height)):
                            rows.append((tile, slot, number * ROWS + n))
                    tile += 1
        return np.array(sorted(rows))


def in_rectangle(mean, factor, q, corner, _size):
    radius = np.ceil(reference.half_extent(factor, q))
    low, high = (mean + 0.5 - radius) // TILE.width, -(-(mean + 0.5 + radius) // TILE.width)
    tile = np.array(corner) // TILE.width
    return (low <= tile).all() and (tile < high).all()


def least_q(mean, factor, corner, size, margin, steps):
    """Least q over a grid of a tile's points, `steps` between samples, and a little around it."""
    sides = [
        np.concatenate([[first - margin], np.linspace(first, last, (last - first) * steps + 1), [last + margin]])
        for first, last in (
            (corner[axis], min(corner[axis] + TILE.width, size[axis]) - 1) for axis in range(2)
        )
    ]  # fmt: skip
    u1 = (sides[0] - mean[0])[None] / factor[0]
    u2 = ((sides[1] - mean[1])[:, None] - factor[1] * u1) / factor[2]
    return (u1 * u1 + u2 * u2).min()


@pytest.fixture
def scene(rng, cuda_device):
    return Scene(rng, cuda_device)


def test_triton_rectangles_by_sorting(scene):
    binning = Binning(scene.canvases, 2 * ROWS, exact=False)
    entries, _ = scene.binned(binning)
    expected = scene.expected(in_rectangle)
    assert len(expected) > 300
    np.testing.assert_array_equal(entries, expected)


def test_triton_culling_is_exact(scene):
    """All tiles with samples that count, and none that the ellipse, with a little slack, does not touch."""
    entries, places = scene.binned(Binning(scene.canvases, 2 * ROWS))
    painted = scene.expected(
        lambda mean, factor, q, corner, size: least_q(mean, factor, corner, size, 0.0, 1) <= q
    )  # fmt: skip
    listed = set(map(tuple, entries))
    assert set(map(tuple, painted)) <= listed
    near = scene.expected(
        lambda mean, factor, q, corner, size: least_q(mean, factor, corner, size, 0.02, 16) <= q * 1.2 + 0.5
    )
    assert listed <= set(map(tuple, near))
    assert len(listed) < 0.8 * len(scene.expected(in_rectangle))
    # bins in order, within each splats in theirs; places are the order of splats, then tiles
    np.testing.assert_array_equal(entries, np.array(sorted(listed)))
    np.testing.assert_array_equal(places[np.lexsort((entries[:, 0], entries[:, 2]))], np.arange(len(entries)))


def test_triton_room_is_kept_for_the_first_splats(scene):
    entries, _ = scene.binned(Binning(scene.canvases, 2 * ROWS))
    few, places = scene.binned(Binning(scene.canvases, 2 * ROWS), room=100)
    kept = np.lexsort((entries[:, 0], entries[:, 2]))[:100]
    np.testing.assert_array_equal(few, entries[np.sort(kept)])
    assert places.max() == 99


@pytest.mark.parametrize("side", [1500, 2080])  # more bins than int16 has natural numbers, than it has numbers
def test_triton_many_bins(cuda_device, side):
    size = side, side
    canvases = Canvases([Canvas(0, size, PlaneGrid(*size, 0.0, 0.0, 1.0, 1.0))], slice(0, 3), [0], cuda_device, TILE)
    assert canvases.num_bins > (2**15 if side == 1500 else 2**16)
    splats = Splats(*(np.array([row] * 2, np.float32) for row in ((0.99, 0.99), (1, 0, 1), (1, 1, 1))))
    splats.means[0] = -0.99, -0.99
    binning = Binning(canvases, 2)
    binning.grow(32)
    wanted = torch.zeros(1, dtype=torch.int64, device=cuda_device)
    bins = binning.bin(table_of(splats, size, np.zeros(2, int), 2, cuda_device), wanted)
    counts = bins.starts.diff().cpu().numpy()
    (used,) = np.nonzero(counts)
    assert counts.sum() == wanted.item()
    assert used[0] < canvases.num_bins // 50
    assert used[-1] > canvases.num_bins - canvases.num_bins // 50


def with_gsplat(scene, monkeypatch) -> GsplatBinning:
    """gsplat's binning; on the CPU, where gsplat has none, its own model of it in torch."""
    gsplat = pytest.importorskip("gsplat")
    if scene.canvases.device.type == "cpu":
        model = pytest.importorskip("gsplat.cuda._torch_impl")
        monkeypatch.setattr(gsplat, "isect_tiles", model._isect_tiles)
        monkeypatch.setattr(gsplat, "isect_offset_encode", model._isect_offset_encode)
    return GsplatBinning(scene.canvases, 2 * ROWS)


def check_gsplat(scene, monkeypatch):
    binning = with_gsplat(scene, monkeypatch)
    for room in (1 << 14, 100):
        sorted_, listed = scene.binned(Binning(scene.canvases, 2 * ROWS), room), scene.binned(binning, room)
        np.testing.assert_array_equal(listed[0], sorted_[0])
        np.testing.assert_array_equal(listed[1], sorted_[1])
    canvas, cell, row = (column.cpu().numpy() for column in binning.rectangles(scene.table))
    entries, _ = scene.binned(Binning(scene.canvases, 2 * ROWS, exact=False))
    shapes = scene.canvases.shapes.cpu().numpy()
    across = shapes[:, 2].max()
    tile = shapes[canvas, 3] + cell // across * shapes[canvas, 2] + cell % across
    np.testing.assert_array_equal(np.stack([tile, row], axis=1), entries[:, [0, 2]])


def test_triton_bins_from_a_model_of_gsplat(scene, monkeypatch):
    check_gsplat(scene, monkeypatch)


@pytest.mark.cuda
def test_cuda_bins_from_gsplat(scene, monkeypatch):
    check_gsplat(scene, monkeypatch)


def test_triton_pictures_do_not_depend_on_the_binning(scene, monkeypatch):
    with_gsplat(scene, monkeypatch)
    background = torch.zeros(2, 3, device=scene.canvases.device)
    rasters = [Raster(scene.canvases, 2 * ROWS, 2000, binning) for binning in (Binning, GsplatBinning)]
    first, second = (raster.paint(scene.table, background, 255).cpu().numpy() for raster in rasters)
    np.testing.assert_array_equal(first, second)
