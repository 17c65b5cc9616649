"""Motion fields of splats: the same lookup as the decoder's, its transpose, and where a fit may begin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import scene

from pgsvc_codec.coding.main.predict import MAX_VECTOR, carried, field_shape
from pgsvc_codec.render import cpu
from pgsvc_codec.train.main.motion_field import Nodes, candidates, coded, field_bits, in_pixels, roughness


@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    spacing=st.sampled_from([8, 16, 32, 64]),
    seed=st.integers(0, 99),
)
def test_places_go_where_the_decoder_takes_them(size, spacing, seed):
    rng = np.random.default_rng(seed)
    field = rng.normal(0, 9, (*field_shape(*size, spacing), 2))
    positions = rng.integers(-500, np.array(size) * 64 + 500, (30, 2)).astype(np.int32)
    vectors = coded(field, spacing)
    moved = (carried(positions, vectors) - positions) / 64
    nodes = Nodes(positions / 64, spacing, size)
    np.testing.assert_allclose(nodes.shifts(in_pixels(vectors)), moved, atol=1 / 64)


def test_collecting_is_the_transpose_of_shifting(rng):
    nodes = Nodes(rng.uniform(-9, 90, (40, 2)), 16, (80, 60))
    field, pull = rng.normal(size=(4, 5, 2)), rng.normal(size=(40, 2))
    assert (nodes.shifts(field) * pull).sum() == pytest.approx((field * nodes.collect(pull)).sum())


def test_places_that_are_let_go_stay(rng):
    nodes = Nodes(rng.uniform(0, 60, (9, 2)), 16, (80, 60))
    nodes.let_go(np.array([2, 5]))
    shifts = nodes.shifts(np.ones((4, 5, 2)))
    assert shifts[[2, 5]].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(np.delete(shifts, [2, 5], axis=0), 1.0)


def test_roughness_pulls_neighbours_together(rng):
    field = rng.normal(0, 3, (4, 6, 2))

    def length(values):
        # the knee is a parabola, of which log cosh is the integral
        return sum(0.25 * np.log(np.cosh(np.diff(values, axis=axis) / 0.25)).sum() for axis in range(2))

    slope = roughness(field)
    for index in np.ndindex(*field.shape):
        sides = []
        for offset in (-1e-4, 1e-4):
            moved = field.copy()
            moved[index] += offset
            sides.append(length(moved))
        assert slope[index] == pytest.approx((sides[1] - sides[0]) / 2e-4, abs=1e-5)
    assert not roughness(np.full((4, 6, 2), 2.5)).any()


def test_vectors_stay_within_what_can_be_coded():
    vectors = coded(np.array([[[1e4, -1e4]]]), 64).vectors
    assert vectors.tolist() == [[[MAX_VECTOR, -MAX_VECTOR]]]


@pytest.mark.parametrize("spacing", [8, 16, 32, 64])
@pytest.mark.parametrize("shift", [(0, 0), (6, -9), (-24, 14)])
def test_a_pan_is_proposed(rng, spacing, shift):
    texture = np.kron(rng.random((20, 24)), np.ones((8, 8))).astype(np.float32)
    moved = np.roll(texture, (shift[1], shift[0]), axis=(0, 1))
    whole, local = candidates(texture, moved, spacing, cpu)
    height, width = texture.shape
    assert whole.shape == local.shape == (*field_shape(width, height, spacing), 2)
    assert (whole == shift).all()
    assert (np.median(local, axis=(0, 1)) == shift).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (65, 3)])
def test_small_pictures_have_fields(size):
    plane = scene(*size)[0]
    for field in candidates(plane, plane, 32, cpu):
        assert field.shape == (*field_shape(*size, 32), 2)
        assert not field.any()


def test_bits_grow_with_roughness(rng):
    still, pan = np.zeros((6, 9, 2)), np.full((6, 9, 2), 2.5)
    rough = [rng.normal(0, spread, (6, 9, 2)) for spread in (0.5, 5.0)]
    bits = [field_bits(coded(field, 16)) for field in (still, pan, *rough)]
    assert bits[0] == 0
    assert bits == sorted(bits)
    assert bits[1] < 20
    assert bits[3] > 300
