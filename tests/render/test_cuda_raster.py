"""The CUDA rasteriser against the reference: compiled where there is a GPU, under Triton's interpreter elsewhere."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from pgsvc_codec.picture import PlaneGrid, plane_grids, plane_groups  # noqa: E402
from pgsvc_codec.render import reference  # noqa: E402
from pgsvc_codec.render.cuda.binning import Projection  # noqa: E402
from pgsvc_codec.render.cuda.canvases import Canvas, Canvases, TileShape  # noqa: E402
from pgsvc_codec.render.cuda.device import capture  # noqa: E402
from pgsvc_codec.render.cuda.raster import Raster  # noqa: E402
from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer  # noqa: E402
from pgsvc_codec.render.cuda.table import SplatTable, table_of  # noqa: E402
from pgsvc_codec.splats import MIN_LENGTH, Splats  # noqa: E402
from pgsvc_codec.video import Chroma, Siting, VideoInfo  # noqa: E402

FULL = slice(0, 3)
ROUNDING = 3e-5
SMALL = TileShape(8, 8)  # so that little pictures have many


def luma_grid(width: int, height: int) -> PlaneGrid:
    return PlaneGrid(width, height, 0.0, 0.0, 1.0, 1.0)


def random_splats(rng: np.random.Generator, count: int, channels: int = 3, size: float = 3.0, spread: float = 1.1):
    lengths = rng.lognormal(np.log(size), 0.6, (count, 2))
    return Splats(
        rng.uniform(-spread, spread, (count, 2)).astype(np.float32),
        np.stack([lengths[:, 0], rng.normal(0, 2, count), lengths[:, 1]], axis=1).astype(np.float32),
        rng.normal(0, 0.2, (count, channels)).astype(np.float32),
    )


def splats_of(*rows) -> Splats:
    """Rows of mean, Cholesky factor, colour."""
    return Splats(*(np.array(column, np.float32) for column in zip(*rows, strict=True)))


EXTREME = splats_of(
    ([0, 0], [MIN_LENGTH, 0, MIN_LENGTH], [0.5, 0.5, 0.5]),  # smaller than a sample
    ([0.01, 0.02], [0.02, 0, 60], [0.5, -0.5, 0.1]),  # upright needle
    ([0.01, 0.02], [60, 0, 0.02], [0.5, -0.5, 0.1]),  # lying needle
    ([0.0, 0.0], [40, 39.9, 0.05], [0.5, -0.5, 0.1]),  # diagonal needle
    ([0.0, 0.0], [3000, 100, 2500], [0.7, -0.5, 0.1]),  # far larger than the picture
    ([0.2, -0.3], [1e30, 0, 1e30], [0.1, -0.05, 0.02]),  # flat
    ([3.0, -5.0], [3, 1, 3], [0.5, 0.5, 0.5]),  # off screen, does not reach
    ([1.1, 0.0], [9, 1, 3], [0.5, 0.5, 0.5]),  # off screen, reaches
    ([0.1, 0.1], [-4, 2, -3], [0.5, 0.5, 0.5]),  # signs of the diagonal do not matter
    ([0.1, 0.1], [-4, 2, 3], [0.3, 0.2, 0.1]),
    ([0.1, 0.1], [4, 1, 3], [1e-5, -1e-5, 0.0]),  # too faint to count
    ([0.1, 0.1], [4, 1, 3], [0.0, 0.0, 0.0]),
    ([0.1, 0.1], [4, 1, 3], [3.0, -3.0, 0.0]),  # strong
)


def step_arguments(rng, splats, width, height, ends, grid=None, channels=FULL):
    grid = grid or luma_grid(width, height)
    planes = splats.colors[:, channels].shape[1]
    target = rng.uniform(-0.5, 0.5, (planes, grid.height, grid.width)).astype(np.float32)
    level_weights = np.linspace(1.0, 0.5, len(ends)) * (np.arange(len(ends)) != 1)
    return splats, width, height, grid, channels, target, ends, level_weights, [1.0, 0.5, 2.0][:planes]


def assert_same_step(result, exact, rtol=3e-4, atol=5e-5):
    np.testing.assert_allclose(result.squared_error, exact.squared_error, rtol=1e-5)
    scale = np.abs(exact.moments).max()
    np.testing.assert_allclose(result.moments, exact.moments, rtol=rtol, atol=atol * scale)


@pytest.mark.parametrize(
    ("size", "tile"),
    [((1, 1), SMALL), ((17, 1), None), ((21, 19), SMALL), ((21, 19), TileShape(16, 16)), ((40, 70), None)],
)
def test_triton_pixels_and_moments_agree_with_the_reference(rng, cuda_device, size, tile):
    splats = random_splats(rng, 14)
    rasterizer = CudaRasterizer(cuda_device, tile)
    arguments = (splats, *size, luma_grid(*size), FULL, np.full(3, 0.25), [4, 4, 14])
    drawn = rasterizer.render(*arguments)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, reference.render(*arguments), atol=ROUNDING)
    arguments = step_arguments(rng, splats, *size, [4, 9, 14])
    assert_same_step(rasterizer.fit_step(*arguments), reference.fit_step(*arguments))


@pytest.mark.parametrize("tile", [SMALL, None])
def test_triton_extreme_splats(rng, cuda_device, tile):
    rasterizer = CudaRasterizer(cuda_device, tile)
    for n in range(len(EXTREME)) if tile is None else [slice(None)]:
        splats = EXTREME[n : n + 1] if tile is None else EXTREME
        arguments = (splats, 30, 23, luma_grid(30, 23), FULL, np.zeros(3), [len(splats)])
        np.testing.assert_allclose(rasterizer.render(*arguments), reference.render(*arguments), atol=2e-4)
    arguments = step_arguments(rng, EXTREME, 30, 23, [5, len(EXTREME)])
    assert_same_step(rasterizer.fit_step(*arguments), reference.fit_step(*arguments), 2e-3, 2e-3)


@pytest.mark.parametrize("chroma", [Chroma.YUV420, Chroma.YUV422])
@pytest.mark.parametrize("siting", list(Siting))
def test_triton_chroma_planes(rng, cuda_device, chroma, siting):
    info = VideoInfo(21, 18, Fraction(25), chroma=chroma, siting=siting)
    splats = random_splats(rng, 6)
    rasterizer = CudaRasterizer(cuda_device)
    for grid, channels in plane_groups(plane_grids(info)):
        arguments = step_arguments(rng, splats, 21, 18, [2, 6], grid, channels)
        assert_same_step(rasterizer.fit_step(*arguments), reference.fit_step(*arguments))


def test_triton_smaller_outputs_are_smoothed(rng, cuda_device):
    splats = Splats.concatenate([random_splats(rng, 8, size=1.0), EXTREME[:4]])
    coarse = PlaneGrid(16, 12, 1.5, 1.5, 4.0, 4.0, (16 - 1) / 12, (16 - 1) / 12)
    arguments = (splats, 64, 48, coarse, FULL, np.zeros(3), [12])
    drawn = CudaRasterizer(cuda_device).render(*arguments)
    np.testing.assert_allclose(drawn, reference.render(*arguments), atol=ROUNDING)


@pytest.mark.parametrize(("max_code", "dtype"), [(255, np.uint8), (1023, np.uint16)])
def test_triton_codes_are_within_one_of_the_reference(rng, cuda_device, max_code, dtype):
    splats = random_splats(rng, 20, size=6.0)
    arguments = (splats, 40, 30, luma_grid(40, 30), FULL, np.full(3, 0.8), [20])
    codes = CudaRasterizer(cuda_device).render(*arguments, max_code=max_code)
    exact = np.floor(np.clip(reference.render(*arguments), 0, 1) * max_code + 0.5)
    assert codes.dtype == dtype
    assert exact.max() == max_code
    assert np.abs(codes - exact).max() <= 1


def any_lengths():
    """Rows of a Cholesky factor from a tenth of a sample to beyond the plane, leaning either way."""
    length = st.floats(-1.0, 2.3).map(lambda exponent: 10.0**exponent)
    return st.tuples(length, st.floats(-50.0, 50.0), length, st.sampled_from([-1.0, 1.0]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), any_lengths()), min_size=1, max_size=3),
    st.integers(1, 90),
    st.integers(1, 90),
)
def test_triton_any_splats_agree_with_the_reference(cuda_device, rows, width, height):
    splats = splats_of(*(((x, y), (sign * l1, l2, l3), (0.3, -0.2, 0.1)) for x, y, (l1, l2, l3, sign) in rows))
    rasterizer = CudaRasterizer(cuda_device)
    shape = splats, width, height, luma_grid(width, height), FULL
    arguments = (*shape, np.full(3, 0.5), [len(splats)])
    exact = np.floor(np.clip(reference.render(*arguments), 0, 1) * 255 + 0.5)
    assert np.abs(rasterizer.render(*arguments, max_code=255) - exact).max() <= 1
    target = np.random.default_rng(3).uniform(0.2, 0.5, (3, height, width)).astype(np.float32)
    arguments = (*shape, target, [len(splats)], [1.0], [1.0, 0.5, 2.0])
    moments, exact = rasterizer.fit_step(*arguments).moments, reference.fit_step(*arguments).moments
    # a sample at the rim of a needle, which float32 may see on the other side, weighs 1/4080 of the strongest colour
    np.testing.assert_allclose(moments, exact, rtol=2e-3, atol=3e-3 * np.abs(exact).max() + 1e-2)


@pytest.mark.parametrize("ends", [[0], [0, 0]])
def test_triton_no_splats_leave_the_background(cuda_device, ends):
    splats = random_splats(np.random.default_rng(1), 3)[: ends[-1]]
    drawn = CudaRasterizer(cuda_device).render(splats, 9, 7, luma_grid(9, 7), FULL, np.array([0.25, 0.5, 0.75]), ends)
    assert drawn.shape == (len(ends), 3, 7, 9)
    np.testing.assert_array_equal(drawn[-1], np.broadcast_to([[[0.25]], [[0.5]], [[0.75]]], (3, 7, 9)))


@pytest.mark.parametrize("cholesky", [(1e33, 0, 1e33), (1e33, 1e14, 1e11), (1e38, 1 / 64, 1 / 64), (1e30, 1e30, 1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_triton_splats_beyond_all_bounds_do_no_harm(cuda_device, cholesky, smoothing):
    splats = splats_of(
        ((0.1, 0.2), cholesky, (0.5, -0.25, 0.125)),
        ((np.nan, 0), (1, 0, 1), (1, 1, 1)),
        ((0, 0), (1, 0, 1), (1, np.nan, 1)),
    )
    grid = PlaneGrid(20, 10, 0.0, 0.0, 1.0, 1.0, smoothing, smoothing)
    rasterizer = CudaRasterizer(cuda_device)
    assert np.isfinite(rasterizer.render(splats, 20, 10, grid, FULL, np.zeros(3), [3])).all()
    if not smoothing:
        step = rasterizer.fit_step(splats, 20, 10, grid, FULL, np.ones((3, 10, 20), np.float32), [3], [1], [1, 1, 1])
        assert np.isfinite(step.moments).all()


def test_triton_errors_alone(rng, cuda_device):
    arguments = step_arguments(rng, random_splats(rng, 6), 20, 18, [3, 6])
    rasterizer = CudaRasterizer(cuda_device)
    whole, errors = rasterizer.fit_step(*arguments), rasterizer.fit_step(*arguments, with_moments=False)
    np.testing.assert_array_equal(errors.squared_error, whole.squared_error)
    assert errors.moments.shape == (0, 8)


class Launch:
    """Several pictures of different sizes, five layers each, of which some show."""

    sizes = ((23, 17), (9, 30))
    slots = (0, 1, 1, 2, -1)  # levels of one, three and four layers

    def __init__(self, rng, device, channels=FULL):
        self.device, self.channels = device, channels
        self.planes = channels.stop - channels.start
        canvases = [Canvas(n, size, self.grid(size)) for n, size in enumerate(self.sizes)]
        self.canvases = Canvases(canvases, channels, self.slots, device, TileShape(16, 16))
        self.splats = [random_splats(rng, 10) for _ in self.sizes]
        self.layers = np.repeat(np.arange(5), 2)
        tables = [
            table_of(splats, size, self.layers, 12, device, picture)
            for picture, (splats, size) in enumerate(zip(self.splats, self.sizes, strict=True))
        ]
        self.table = SplatTable(*(torch.cat(columns) for columns in zip(*tables, strict=True)))
        self.background = rng.uniform(0, 1, (2, self.planes)).astype(np.float32)
        self.weights = rng.uniform(0, 1, (2, 3, self.planes)).astype(np.float32)
        self.target = rng.uniform(-0.5, 0.5, self.canvases.total).astype(np.float32)

    @staticmethod
    def grid(size):
        return PlaneGrid(size[0], size[1], 0.25, 0.0, 1.0, 1.0)

    def paint(self, raster):
        return raster.paint(self.table, torch.from_numpy(self.background).to(self.device), 0)

    def fit(self, raster):
        """Squared errors [2, 3, C], moments [24, 8], added to ones."""
        squared_error = torch.ones(2, 3, self.planes, dtype=torch.float64, device=self.device)
        moments = torch.ones(24, 8, device=self.device)
        weights, target = (torch.from_numpy(array).to(self.device) for array in (self.weights, self.target))
        raster.fit(self.table, target, weights, squared_error, moments)
        return squared_error.cpu().numpy(), moments.cpu().numpy()

    def exact(self):
        """What should come out: planes, squared errors and moments per picture."""
        for picture, size in enumerate(self.sizes):
            splats, grid, ends = self.splats[picture], self.grid(size), [2, 6, 8]
            drawn = reference.render(splats, *size, grid, self.channels, self.background[picture], ends)
            target = self.canvases.planes(torch.from_numpy(self.target), picture).numpy()
            squares, moments = [], np.zeros((10, self.planes + 5))
            for channel in range(self.planes):  # levels weigh differently in every plane
                one = slice(self.channels.start + channel, self.channels.start + channel + 1)
                step = reference.fit_step(
                    splats[:8], *size, grid, one, target[channel : channel + 1], ends,
                    self.weights[picture, :, channel], [1.0],
                )  # fmt: skip
                squares.append(step.squared_error[:, 0])
                moments[:8, channel] = step.moments[:, 0]
                moments[:8, self.planes :] += step.moments[:, 1:]
            yield drawn, np.stack(squares, axis=1), moments


@pytest.mark.parametrize("channels", [FULL, slice(0, 1), slice(1, 3)])
def test_triton_several_pictures_in_one_launch(rng, cuda_device, channels):
    launch = Launch(rng, cuda_device, channels)
    raster = Raster(launch.canvases, 24, 200)
    drawn = launch.paint(raster)
    squared_error, moments = launch.fit(raster)
    columns = [*range(channels.start, channels.stop), *range(3, 8)]
    untouched = np.setdiff1d(np.arange(8), columns)
    for picture, (planes, squares, pulled) in enumerate(launch.exact()):
        own = moments[12 * picture : 12 * picture + 12]
        np.testing.assert_allclose(launch.canvases.planes(drawn, picture).cpu().numpy(), planes, atol=ROUNDING)
        np.testing.assert_allclose(squared_error[picture] - 1, squares, rtol=1e-5)
        np.testing.assert_allclose(own[:10, columns] - 1, pulled, rtol=3e-4, atol=5e-5 * np.abs(pulled).max())
        assert (own[10:] == 1).all()
        assert (own[:, untouched] == 1).all()


def test_triton_counts_samples(rng, cuda_device):
    launch = Launch(rng, cuda_device)
    raster = Raster(launch.canvases, 24, 400)
    counts = raster.count(launch.table)
    painted = 0
    for splats, size in zip(launch.splats, launch.sizes, strict=True):
        for n in np.flatnonzero(launch.layers < 4):
            white = Splats(splats.means[n : n + 1], splats.cholesky[n : n + 1], splats.colors[n : n + 1])
            drawn = reference.render(white, *size, launch.grid(size), FULL, np.zeros(3), [1])
            painted += np.count_nonzero(drawn[0, 0])
    assert counts.painted == pytest.approx(painted, abs=2)
    assert counts.entries == int(raster.wanted)
    assert counts.tested == 256 * counts.entries
    assert min(counts.paint_bytes, counts.fit_bytes) > 4 * launch.canvases.total > counts.bin_bytes > 0


def test_triton_too_little_room_is_noticed(rng, cuda_device):
    launch = Launch(rng, cuda_device)
    raster = Raster(launch.canvases, 24, 5)
    launch.fit(raster)
    wanted = int(raster.wanted)
    assert wanted > raster.entries >= 5
    raster.grow(wanted)
    roomy = Raster(launch.canvases, 24, 3 * wanted)
    for tight, wide in zip(launch.fit(raster), launch.fit(roomy), strict=True):
        np.testing.assert_array_equal(tight, wide)
    assert int(roomy.wanted) == int(raster.wanted) == wanted


def test_triton_entries_beyond_32_bits_are_counted(rng, cuda_device, monkeypatch):
    launch = Launch(rng, cuda_device)
    narrow = launch.fit(Raster(launch.canvases, 24, 400))
    monkeypatch.setattr("pgsvc_codec.render.cuda.binning._MOST_NARROW", 24 * 4 - 1)
    assert Projection(launch.canvases, 24).ends.dtype == torch.int64
    for one, other in zip(launch.fit(Raster(launch.canvases, 24, 400)), narrow, strict=True):
        np.testing.assert_array_equal(one, other)


def test_cuda_rasterizer_grows(rng, cuda_device, monkeypatch):
    monkeypatch.setattr("pgsvc_codec.render.cuda.rasterizer._ENTRIES_PER_ROW", 0)
    splats = random_splats(rng, 5)
    arguments = (splats, 20, 18, luma_grid(20, 18), FULL, np.zeros(3), [5])
    drawn = CudaRasterizer(cuda_device).render(*arguments)
    np.testing.assert_allclose(drawn, reference.render(*arguments), atol=ROUNDING)
    arguments = step_arguments(rng, splats, 20, 18, [2, 5])
    assert_same_step(CudaRasterizer(cuda_device).fit_step(*arguments), reference.fit_step(*arguments))


def test_triton_gradients_of_the_paper_follow_from_the_moments(rng, cuda_device):
    """Mean, Cholesky factor, colour and the weight that is folded into it, against finite differences."""
    width, height, planes = 24, 20, 3
    splats = random_splats(rng, 3, size=2.5, spread=0.7)
    weight = rng.uniform(0.5, 1.5, len(splats))
    target = rng.uniform(-0.5, 0.5, (planes, height, width)).astype(np.float32)
    shape = width, height, luma_grid(width, height), FULL
    levels = [1, 3], [0.5, 1.0], [1.0, 1.0, 1.0]

    class Exact(Splats):
        """In float64: differences of 1e-5 would drown in float32."""

        def __post_init__(self):
            pass

    def loss(means, cholesky, colors, weight):
        seen = Exact(means, cholesky, colors * weight[:, None])
        squares = reference.fit_step(seen, *shape, target, *levels, with_moments=False).squared_error
        return float(levels[1] @ squares.sum(axis=1))

    parameters = [array.astype(np.float64) for array in (splats.means, splats.cholesky, splats.colors)] + [weight]
    folded = Splats(splats.means, splats.cholesky, (splats.colors * weight[:, None]).astype(np.float32))
    moments = CudaRasterizer(cuda_device).fit_step(folded, *shape, target, *levels).moments.astype(np.float64)
    color, (m1, m2, m11, m12, m22) = moments[:, :planes], moments[:, planes:].T
    l1, l2, l3 = parameters[1].T
    over = l2 / l3
    # d loss / d mean in pixels is L^-T m, and / d L is the lower triangle of L^-T M
    gradients = [
        np.stack([(m1 - over * m2) / l1 * width / 2, m2 / l3 * height / 2], axis=1),
        np.stack([(m11 - over * m12) / l1, m12 / l3, m22 / l3], axis=1),
        color * weight[:, None],
        (color * parameters[2]).sum(axis=1),
    ]
    step = 1e-4
    for number, gradient in enumerate(gradients):
        measured = np.empty_like(gradient)
        for place in np.ndindex(gradient.shape):
            values = []
            for sign in (1, -1):
                moved = [array.copy() for array in parameters]
                moved[number][place] += sign * step
                values.append(loss(*moved))
            measured[place] = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradient, measured, rtol=2e-2, atol=2e-2 * np.abs(measured).max())


@pytest.mark.cuda
def test_cuda_runs_are_equal_to_the_last_bit(rng, cuda_device):
    splats = random_splats(rng, 4000, size=20.0)
    arguments = step_arguments(rng, splats, 640, 360, [1000, 2500, 4000])
    first, second = (CudaRasterizer(cuda_device).fit_step(*arguments) for _ in range(2))
    np.testing.assert_array_equal(first.moments, second.moments)
    np.testing.assert_array_equal(first.squared_error, second.squared_error)


@pytest.mark.cuda
def test_cuda_full_hd(rng, cuda_device):
    splats = random_splats(rng, 600, size=30.0)
    size = 1920, 1080
    rasterizer = CudaRasterizer(cuda_device)
    arguments = (splats, *size, luma_grid(*size), FULL, np.full(3, 0.5), [200, 600])
    exact = np.floor(np.clip(reference.render(*arguments), 0, 1) * 255 + 0.5)
    assert np.abs(rasterizer.render(*arguments, max_code=255) - exact).max() <= 1
    arguments = step_arguments(rng, splats, *size, [100, 200, 600])
    assert_same_step(rasterizer.fit_step(*arguments), reference.fit_step(*arguments))


@pytest.mark.cuda
def test_cuda_graphs_repeat_a_pass(rng, cuda_device):
    launch = Launch(rng, cuda_device)
    raster = Raster(launch.canvases, 24, 400)
    squared_error, moments = launch.fit(raster)
    weights, target = (torch.from_numpy(array).to(cuda_device) for array in (launch.weights, launch.target))
    again = torch.ones(2, 3, 3, dtype=torch.float64, device=cuda_device), torch.ones(24, 8, device=cuda_device)
    replay = capture(lambda: raster.fit(launch.table, target, weights, *again), cuda_device)
    replay()
    np.testing.assert_array_equal(again[0].cpu().numpy(), squared_error)
    np.testing.assert_array_equal(again[1].cpu().numpy(), moments)
