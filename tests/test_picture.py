from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.errors import ConfigError, InputError
from pgsvc_codec.picture import (
    PlaneGrid,
    UnitFrame,
    check_frame,
    color_transform,
    from_unit,
    luma_of,
    matching_info,
    plane_grids,
    resample,
    to_rgb,
    to_unit,
)
from pgsvc_codec.video import PIX_FMTS, Chroma, Matrix, Range, Siting, VideoInfo

YUV_MATRICES = [Matrix.BT601, Matrix.BT709, Matrix.BT2020NC]
SWSCALE_MATRIX = {Matrix.BT601: 5, Matrix.BT709: 1, Matrix.BT2020NC: 9}
SWSCALE_RANGE = {Range.LIMITED: 1, Range.FULL: 2}


def info_of(pix_fmt, width=32, height=24, **options):
    chroma, depth = PIX_FMTS[pix_fmt]
    matrix = Matrix.RGB if chroma is Chroma.RGB else Matrix.BT709
    return VideoInfo(width, height, **{"chroma": chroma, "depth": depth, "matrix": matrix} | options)


def random_frame(info, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.uint8 if info.depth == 8 else np.uint16
    return tuple(rng.integers(0, info.max_code, shape, dtype, endpoint=True) for shape in info.plane_shapes)


def apply(matrix, offset, planes):
    return tuple(np.tensordot(matrix, np.stack(planes), 1) + offset[:, None, None])


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_unit_round_trip_is_exact_for_every_code(pix_fmt):
    info = info_of(pix_fmt, 64, 32)
    codes = np.arange(64 * 32) % (info.max_code + 1)
    dtype = np.uint8 if info.depth == 8 else np.uint16
    frame = tuple(np.resize(codes, shape).astype(dtype) for shape in info.plane_shapes)
    unit = to_unit(frame, info)
    assert all(plane.dtype == np.float32 and plane.min() == 0 and plane.max() == 1 for plane in unit[:1])
    for before, after in zip(frame, from_unit(unit, info), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)


def test_from_unit_clips_and_rounds_half_up():
    info = info_of("gray", 5, 1)
    values = np.array([[-1.0, 0.5 / 255, 0.4999 / 255, 254.5 / 255, 2.0]], np.float32)
    np.testing.assert_array_equal(from_unit((values,), info)[0], [[0, 1, 0, 255, 255]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame[:2], "got 2 planes, allowed 3 for yuv420p"),
        (lambda frame: (frame[0][1:], *frame[1:]), r"plane 0: got uint8 \(23, 32\), allowed uint8 \(24, 32\)"),
        (lambda frame: (*frame[:2], frame[2].astype(np.uint16)), r"plane 2: got uint16 \(12, 16\), allowed uint8"),
    ],
)
def test_frames_that_do_not_fit_are_refused(change, message):
    info = info_of("yuv420p")
    with pytest.raises(InputError, match=message):
        check_frame(change(random_frame(info)), info)


def test_grids_at_full_size_follow_the_siting():
    luma, cb, cr = plane_grids(info_of("yuv420p", 65, 49, siting=Siting.LEFT))
    assert (luma.width, luma.height, luma.x0, luma.y0, luma.dx, luma.dy) == (65, 49, 0, 0, 1, 1)
    assert (cb.width, cb.height, cb.x0, cb.y0, cb.dx, cb.dy) == (33, 25, 0, 0.5, 2, 2)
    assert cb == cr
    center = plane_grids(info_of("yuv420p", siting=Siting.CENTER))[1]
    assert (center.x0, center.y0) == (0.5, 0.5)
    top_left = plane_grids(info_of("yuv420p", siting=Siting.TOP_LEFT))[1]
    assert (top_left.x0, top_left.y0) == (0, 0)


def test_grids_of_422_are_subsampled_along_rows_only():
    chroma = plane_grids(info_of("yuv422p", 65, 49, siting=Siting.CENTER))[1]
    assert (chroma.width, chroma.height, chroma.x0, chroma.y0, chroma.dx, chroma.dy) == (33, 49, 0.5, 0, 2, 1)


@pytest.mark.parametrize("pix_fmt", ["yuv444p", "rgb24", "gray"])
def test_planes_without_subsampling_share_one_grid(pix_fmt):
    grids = plane_grids(info_of(pix_fmt, siting=Siting.CENTER))
    assert len(set(grids)) == 1


def test_grids_at_another_size_divide_the_frame_evenly():
    luma, chroma, _ = plane_grids(info_of("yuv420p", 64, 48, siting=Siting.LEFT), 32, 16)
    assert (luma.width, luma.height, luma.x0, luma.y0, luma.dx, luma.dy) == (32, 16, 0.5, 1.0, 2, 3)
    # chroma sits on the output's even columns and midway between its rows
    assert (chroma.width, chroma.height, chroma.x0, chroma.y0) == (16, 8, 0.5, 1.0 + 3 * 0.5)
    assert (chroma.dx, chroma.dy) == (4, 6)


@given(
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    output=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    siting=st.sampled_from(Siting),
)
def test_luma_grids_are_centred_and_chroma_is_near_the_frame(size, output, siting):
    luma, chroma, _ = plane_grids(info_of("yuv420p", *size, siting=siting), *output)
    assert luma.x0 - luma.dx / 2 == pytest.approx(-0.5)
    assert luma.x0 + (luma.width - 0.5) * luma.dx == pytest.approx(size[0] - 0.5)
    assert luma.y0 + (luma.height - 0.5) * luma.dy == pytest.approx(size[1] - 0.5)
    assert -0.5 < chroma.x0 + (chroma.width - 1) * chroma.dx < size[0] - 0.5 + luma.dx
    assert -0.5 < chroma.y0 + (chroma.height - 1) * chroma.dy < size[1] - 0.5 + luma.dy


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
@pytest.mark.parametrize("value_range", Range)
def test_transform_to_the_same_colour_is_exactly_the_identity(pix_fmt, value_range):
    info = info_of(pix_fmt, range=value_range)
    matrix, offset = color_transform(info, replace(info, width=7, siting=Siting.CENTER))
    np.testing.assert_array_equal(matrix, np.eye(info.chroma.num_planes))
    np.testing.assert_array_equal(offset, np.zeros(info.chroma.num_planes))


def test_transform_ignores_subsampling():
    matrix, _ = color_transform(info_of("yuv420p"), info_of("yuv444p"))
    np.testing.assert_array_equal(matrix, np.eye(3))


@pytest.mark.parametrize("yuv_matrix", YUV_MATRICES)
def test_black_white_and_primaries_in_limited_range(yuv_matrix):
    rgb, yuv = info_of("rgb24", range=Range.FULL), info_of("yuv444p", matrix=yuv_matrix)
    matrix, offset = color_transform(rgb, yuv)
    np.testing.assert_allclose(255 * offset, [16, 128, 128], atol=1e-9)
    np.testing.assert_allclose(255 * (matrix @ [1, 1, 1] + offset), [235, 128, 128], atol=1e-9)
    assert 255 * (matrix @ [0, 0, 1] + offset)[1] == pytest.approx(240)
    assert 255 * (matrix @ [1, 0, 0] + offset)[2] == pytest.approx(240)


def test_bt601_luma_weights():
    matrix, _ = color_transform(
        info_of("rgb24", range=Range.FULL), info_of("yuv444p", matrix=Matrix.BT601, range=Range.FULL)
    )
    np.testing.assert_allclose(matrix[0], [0.299, 0.587, 0.114], atol=1e-12)


@given(
    formats=st.lists(st.sampled_from(["rgb24", "yuv444p", "yuv420p10le"]), min_size=2, max_size=2),
    matrices=st.lists(st.sampled_from(YUV_MATRICES), min_size=2, max_size=2),
    ranges=st.lists(st.sampled_from(Range), min_size=2, max_size=2),
)
def test_transforms_invert_each_other(formats, matrices, ranges):
    a, b = (
        info_of(pix_fmt, range=value_range, **({} if pix_fmt == "rgb24" else {"matrix": yuv_matrix}))
        for pix_fmt, yuv_matrix, value_range in zip(formats, matrices, ranges, strict=True)
    )
    there, there_offset = color_transform(a, b)
    back, back_offset = color_transform(b, a)
    np.testing.assert_allclose(back @ there, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(back @ there_offset + back_offset, 0, atol=1e-12)


def test_gray_spreads_and_colour_folds_to_gray():
    gray, rgb = info_of("gray", range=Range.FULL), info_of("rgb24", range=Range.FULL)
    matrix, offset = color_transform(gray, rgb)
    np.testing.assert_allclose(matrix, np.ones((3, 1)), atol=1e-12)
    np.testing.assert_allclose(offset, 0, atol=1e-12)
    matrix, offset = color_transform(gray, info_of("yuv444p10le"))
    np.testing.assert_allclose(matrix[:, 0], [876 / 1023, 0, 0], atol=1e-12)
    np.testing.assert_allclose(offset, [64 / 1023, 512 / 1023, 512 / 1023], atol=1e-12)
    matrix, offset = color_transform(info_of("yuv444p"), info_of("gray"))
    np.testing.assert_allclose(matrix, [[1, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("yuv_matrix", YUV_MATRICES)
@pytest.mark.parametrize("value_range", Range)
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le"])
def test_to_rgb_agrees_with_swscale(yuv_matrix, value_range, pix_fmt):
    info = info_of(pix_fmt, 64, 48, matrix=yuv_matrix, range=value_range)
    rgb = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    matrix, offset = color_transform(info_of("rgb24", range=Range.FULL), info)
    frame = from_unit(apply(matrix, offset, np.moveaxis(rgb / np.float64(255), -1, 0)), info)
    picture = av.VideoFrame(64, 48, pix_fmt)
    for plane, codes in zip(picture.planes, frame, strict=True):
        padded = np.zeros((48, plane.line_size // codes.itemsize), codes.dtype)
        padded[:, :64] = codes
        plane.update(padded.tobytes())
    swscale = picture.reformat(
        format="rgb24",
        src_colorspace=SWSCALE_MATRIX[yuv_matrix],
        dst_colorspace=SWSCALE_MATRIX[yuv_matrix],
        src_color_range=SWSCALE_RANGE[value_range],
        dst_color_range=2,
    ).to_ndarray()
    ours = to_rgb(frame, info)
    assert np.abs(ours.astype(int) - swscale.astype(int)).max() <= 2
    assert np.abs(ours.astype(int) - rgb).max() <= 2


def test_to_rgb_leaves_rgb_alone():
    info = info_of("rgb24", range=Range.FULL)
    frame = random_frame(info)
    np.testing.assert_array_equal(to_rgb(frame, info), np.stack(frame, axis=-1))


def test_to_rgb_of_gray_is_the_gray_three_times():
    info = info_of("gray", range=Range.FULL)
    frame = random_frame(info)
    np.testing.assert_array_equal(to_rgb(frame, info), np.stack(frame * 3, axis=-1))


@pytest.mark.parametrize("siting", Siting)
@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le"])
def test_a_linear_chroma_ramp_is_reproduced_where_the_siting_puts_it(siting, pix_fmt):
    info = info_of(pix_fmt, 41, 31, siting=siting, range=Range.FULL, matrix=Matrix.BT601)

    def ramp(x, y):
        return 300 + 8 * x + 4 * y

    grid = plane_grids(info)[1]
    y, x = np.mgrid[: grid.height, : grid.width]
    chroma = ramp(grid.x0 + x * grid.dx, grid.y0 + y * grid.dy).astype(np.uint16)
    luma = np.full((31, 41), 512, np.uint16)
    rgb = to_rgb((luma, chroma, np.full_like(chroma, 512)), info)

    full = replace(info, chroma=Chroma.YUV444)
    y, x = np.mgrid[:31, :41]
    expected = to_rgb((luma, ramp(x, y).astype(np.uint16), np.full_like(luma, 512)), full)
    inside = np.s_[1:-1, 1:-1]  # beyond the outermost chroma samples their value holds
    np.testing.assert_array_equal(rgb[inside], expected[inside])


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3)])
def test_to_rgb_of_tiny_subsampled_frames(size):
    info = info_of("yuv420p", *size)
    frame = tuple(np.full(shape, 128, np.uint8) for shape in info.plane_shapes)
    assert to_rgb(frame, info).tolist() == [[[130, 130, 130]] * size[0]] * size[1]


def test_matching_info_changes_matrix_and_range_with_the_kind_of_planes():
    yuv = info_of("yuv420p10le", 1280, 720, range=Range.LIMITED, matrix=Matrix.BT2020NC)
    rgb = matching_info(yuv, "rgb24")
    assert (rgb.pix_fmt, rgb.matrix, rgb.range, rgb.width) == ("rgb24", Matrix.RGB, Range.FULL, 1280)
    back = matching_info(rgb, "yuv444p")
    assert (back.pix_fmt, back.matrix, back.range) == ("yuv444p", Matrix.BT709, Range.LIMITED)
    assert matching_info(replace(rgb, height=576), "yuv420p").matrix is Matrix.BT601
    deeper = matching_info(replace(yuv, range=Range.FULL), "yuv422p")
    assert (deeper.pix_fmt, deeper.matrix, deeper.range) == ("yuv422p", Matrix.BT2020NC, Range.FULL)


def test_matching_info_refuses_unknown_formats():
    with pytest.raises(ConfigError, match="pixel format: got yuv420p12le, allowed gray, gray10le, yuv420p"):
        matching_info(info_of("yuv420p"), "yuv420p12le")


def test_only_planes_coarser_than_the_stream_are_smoothed() -> None:
    full = VideoInfo(64, 48, chroma=Chroma.YUV420)
    assert all(grid.smoothing_x == grid.smoothing_y == 0 for grid in plane_grids(full, native=full))
    luma, chroma, _ = plane_grids(full, 32, 48, native=full)
    assert (luma.smoothing_x, luma.smoothing_y) == ((4 - 1) / 12, 0)
    assert (chroma.smoothing_x, chroma.smoothing_y) == ((16 - 4) / 12, 0)
    rgb = matching_info(full, "rgb24")
    assert [grid.smoothing_x for grid in plane_grids(rgb, 32, 24, native=full)] == [(4 - 1) / 12] * 3, "planes alike"
    dense = matching_info(full, "yuv444p")
    assert plane_grids(dense, native=full)[1].smoothing_x == 0, "more chroma samples than the stream has"
    assert plane_grids(full, native=dense)[1].smoothing_x == (4 - 1) / 12, "fewer"
    assert all(grid.smoothing_x == 0 for grid in plane_grids(full, 16, 12)), "a fit sees its splats as they are"


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(size=SIZES, level=SIZES)
def test_a_level_is_not_smoothed_at_its_own_size(size: tuple[int, int], level: tuple[int, int]) -> None:
    full = VideoInfo(*size)
    native = replace(full, width=level[0], height=level[1])
    assert plane_grids(full, *level, native=native) == plane_grids(full, *level), "what was fitted is what is shown"


def test_a_level_is_smoothed_beyond_its_own_samples() -> None:
    full = VideoInfo(64, 48)
    native = replace(full, width=32, height=16)
    assert all(grid.smoothing_x == grid.smoothing_y == 0 for grid in plane_grids(full, native=native)), "enlarged"
    luma, chroma, _ = plane_grids(full, 16, 8, native=native)
    assert (luma.smoothing_x, luma.smoothing_y) == ((16 - 4) / 12, (36 - 9) / 12)
    assert (chroma.smoothing_x, chroma.smoothing_y) == ((64 - 16) / 12, (144 - 36) / 12)
    rgb = plane_grids(matching_info(full, "rgb24"), 32, 8, native=native)
    assert [(grid.smoothing_x, grid.smoothing_y) for grid in rgb] == [(0, (36 - 9) / 12)] * 3


def unit_planes(info: VideoInfo, seed: int = 0) -> UnitFrame:
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(-0.2, 1.2, shape).astype(np.float32) for shape in info.plane_shapes)


def resampled(planes: UnitFrame, info: VideoInfo, *size: int) -> UnitFrame:
    return resample(planes, plane_grids(info), plane_grids(info, *size))


def gray_row(*values: float) -> UnitFrame:
    return (np.array([values], np.float32),)


def test_halving_averages_blocks() -> None:
    info = info_of("yuv444p", 12, 6)
    planes = unit_planes(info)
    for plane, half in zip(planes, resampled(planes, info, 4, 3), strict=True):
        blocks = plane.astype(np.float64).reshape(3, 2, 4, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(half, blocks, atol=1e-7)
        assert (half.dtype, half.shape) == (np.float32, (3, 4))


def test_cells_that_are_cut_count_by_their_part() -> None:
    info = info_of("gray", 3, 1)
    two = resampled(gray_row(3, 6, 12), info, 2, 1)
    np.testing.assert_allclose(two[0], [[(3 + 6 / 2) / 1.5, (6 / 2 + 12) / 1.5]], rtol=1e-6)
    five = resampled(gray_row(3, 6, 12), info, 5, 1)  # cells of 3/5
    np.testing.assert_allclose(five[0], [[3, (3 * 2 + 6) / 3, 6, (6 + 12 * 2) / 3, 12]], rtol=1e-6)
    tall = info_of("gray", 1, 3)
    np.testing.assert_allclose(resampled((gray_row(3, 6, 12)[0].T,), tall, 1, 2)[0].T, two[0])


def test_chroma_is_averaged_around_its_own_place() -> None:
    """Left siting: cells of chroma reach from −1 to 1, 1 to 3, … and, at half the size, from −3/2 to 5/2, …"""
    info = info_of("yuv420p", 8, 4, siting=Siting.LEFT)
    chroma = np.array([[8, 16, 32, 64]] * 2, np.float32)
    planes = (np.zeros((4, 8), np.float32), chroma, chroma)
    expected = [[(8 * 2.5 + 16 * 1.5) / 4, (16 * 0.5 + 32 * 2 + 64 * 1.5) / 4]]
    np.testing.assert_array_equal(resampled(planes, info, 4, 2)[1], expected)
    centred = resampled(planes, replace(info, siting=Siting.CENTER), 4, 2)[1]
    np.testing.assert_array_equal(centred, [[12, 48]])


@pytest.mark.parametrize("siting", Siting)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_a_ramp_is_sampled_where_the_samples_lie(pix_fmt: str, siting: Siting) -> None:
    info = info_of(pix_fmt, 48, 36, siting=siting)
    source, target = plane_grids(info), plane_grids(info, 16, 12)

    def ramp(grid: PlaneGrid) -> np.ndarray:
        y, x = np.mgrid[: grid.height, : grid.width]
        return (0.1 + (grid.x0 + x * grid.dx) / 50 - (grid.y0 + y * grid.dy) / 70).astype(np.float32)

    planes = resample(tuple(map(ramp, source)), source, target)
    inside = np.s_[1:-1, 1:-1]  # beyond the outermost samples their value holds
    for plane, grid in zip(planes, target, strict=True):
        np.testing.assert_allclose(plane[inside], ramp(grid)[inside], atol=1e-6)


@given(
    size=SIZES,
    other=SIZES,
    pix_fmt=st.sampled_from(["gray", "yuv420p", "yuv422p", "rgb24"]),
    siting=st.sampled_from(Siting),
    value=st.floats(-4, 4, width=32),
)
def test_constants_stay_and_nothing_overshoots(
    size: tuple[int, int], other: tuple[int, int], pix_fmt: str, siting: Siting, value: float
) -> None:
    info = info_of(pix_fmt, *size, siting=siting)
    for plane in resampled(tuple(np.full(shape, value, np.float32) for shape in info.plane_shapes), info, *other):
        np.testing.assert_array_equal(plane, np.float32(value))
    planes = unit_planes(info)
    shapes = replace(info, width=other[0], height=other[1]).plane_shapes
    for plane, outcome, shape in zip(planes, resampled(planes, info, *other), shapes, strict=True):
        assert outcome.shape == shape
        assert plane.min() - 1e-6 <= outcome.min() <= outcome.max() <= plane.max() + 1e-6


@given(size=SIZES, other=SIZES)
def test_means_are_kept_where_cells_tile_the_frame(size: tuple[int, int], other: tuple[int, int]) -> None:
    info = info_of("gray", *size)
    planes = unit_planes(info)
    (outcome,) = resampled(planes, info, *other)
    assert outcome.mean(dtype=np.float64) == pytest.approx(planes[0].mean(dtype=np.float64), abs=1e-6)


@given(size=SIZES, factors=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_enlarged_by_whole_factors_and_back_is_the_same(size: tuple[int, int], factors: tuple[int, int]) -> None:
    info = info_of("gray", *size)
    planes = unit_planes(info)
    large = plane_grids(info, size[0] * factors[0], size[1] * factors[1])
    there = resample(planes, plane_grids(info), large)
    np.testing.assert_allclose(there[0], np.kron(planes[0], np.ones(factors[::-1])), atol=1e-6)
    np.testing.assert_allclose(resample(there, large, plane_grids(info))[0], planes[0], atol=1e-6)


@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_planes_that_stay_on_their_grid_stay_as_they_are(pix_fmt: str) -> None:
    info = info_of(pix_fmt, 33, 21)
    planes = unit_planes(info)
    for plane, same in zip(planes, resampled(planes, info, 33, 21), strict=True):
        np.testing.assert_array_equal(same, plane)
        assert same is not plane


def test_planes_that_do_not_fit_their_grids_are_refused() -> None:
    info = info_of("yuv420p")
    grids, planes = plane_grids(info), unit_planes(info)
    with pytest.raises(InputError, match="frame: got 2 planes on 3 grids, allowed 3 of both"):
        resample(planes[:2], grids, grids)
    with pytest.raises(InputError, match=r"frame plane 1: got \(12, 15\), allowed \(12, 16\)"):
        resample((planes[0], planes[1][:, :-1], planes[2]), grids, grids)


def test_luma_of_rgb_is_weighted_and_limited() -> None:
    info = VideoInfo(3, 1, chroma=Chroma.RGB, matrix=Matrix.RGB, range=Range.FULL)
    frame = tuple(np.array([row], np.uint8) for row in ([0, 255, 255], [0, 255, 0], [0, 255, 0]))
    # BT.601 below 720 rows: 16 + 219 * (0, 1, 0.299)
    np.testing.assert_array_equal(luma_of(frame, info), [[16, 235, 81]])


def test_luma_of_the_rest_is_their_first_plane() -> None:
    info = VideoInfo(4, 2)
    frame = tuple(np.full(shape, 7, np.uint8) for shape in info.plane_shapes)
    assert luma_of(frame, info) is frame[0]
