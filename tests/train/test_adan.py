"""Adan whose memory follows splats that come and go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.train.adan import Adan

SHAPES = [(6, 2), (6, 3), (6, 1)]


def parameters_of(rng, shapes=SHAPES):
    return [torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def take_steps(optimizer, parameters, gradients, scale=1.0):
    """One step for each list of gradients."""
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step(scale)


def rows_of(tensors, rows):
    return [tensor[torch.from_numpy(rows)].clone() for tensor in tensors]


def assert_equal_tensors(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@given(st.integers(0, 4), st.sets(st.integers(0, 5), min_size=1))
def test_who_stays_goes_on_as_if_nobody_else_had_been_there(before, kept):
    rng = np.random.default_rng(5)
    rows = np.array(sorted(kept))
    everyone = parameters_of(rng)
    few = rows_of(everyone, rows)
    early, late = [parameters_of(rng) for _ in range(before)], [parameters_of(rng) for _ in range(3)]
    optimizer, never_had_others = Adan(everyone), Adan(few)
    take_steps(optimizer, everyone, early)
    left = rows_of(everyone, rows)
    optimizer.keep(everyone, left, rows)
    gone = [parameter.clone() for parameter in everyone]
    take_steps(optimizer, left, [rows_of(step, rows) for step in late])
    take_steps(never_had_others, few, [rows_of(step, rows) for step in early + late])
    assert_equal_tensors(left, few)
    assert_equal_tensors(everyone, gone)


def test_memory_counts(rng):
    """What the test above rests on: a fresh optimiser would step elsewhere."""
    parameters = parameters_of(rng)
    steps = [parameters_of(rng) for _ in range(4)]
    fresh = [parameter.clone() for parameter in parameters]
    optimizer = Adan(parameters)
    take_steps(optimizer, parameters, steps[:3])
    moved = [parameter.clone() for parameter in parameters]
    take_steps(optimizer, parameters, steps[3:])
    take_steps(Adan(fresh), fresh, steps[3:])
    assert not torch.allclose(parameters[0] - moved[0], fresh[0] - moved[0], rtol=0.1)


def test_parameters_that_come_later_have_no_memory_and_disturb_nobody(rng):
    old, new = parameters_of(rng), parameters_of(rng, [(3,)])
    old_alone, new_alone = ([parameter.clone() for parameter in tensors] for tensors in (old, new))
    early, late = [parameters_of(rng) for _ in range(2)], [parameters_of(rng) for _ in range(3)]
    for_new = [parameters_of(rng, [(3,)]) for _ in range(3)]
    optimizer, on_old, on_new = Adan(old), Adan(old_alone), Adan(new_alone)
    take_steps(optimizer, old, early)
    optimizer.add(new)
    take_steps(optimizer, old + new, [a + b for a, b in zip(late, for_new, strict=True)], 0.5)
    take_steps(on_old, old_alone, early)
    take_steps(on_old, old_alone, late, 0.5)
    take_steps(on_new, new_alone, for_new, 0.5)
    assert_equal_tensors(old, old_alone)
    assert_equal_tensors(new, new_alone)


def test_adding_nothing_is_nothing(rng):
    """Where all quantisers are given there is nothing to learn about them."""
    with_nothing = parameters_of(rng)
    plain = [parameter.clone() for parameter in with_nothing]
    steps = [parameters_of(rng) for _ in range(2)]
    optimizer = Adan(with_nothing)
    optimizer.add([])
    take_steps(optimizer, with_nothing, steps)
    take_steps(Adan(plain), plain, steps)
    assert_equal_tensors(with_nothing, plain)


def test_what_has_no_gradient_rests(rng):
    parameters = parameters_of(rng)
    optimizer = Adan(parameters)
    take_steps(optimizer, parameters, [parameters_of(rng)])
    rests = parameters[2].clone()
    parameters[2].grad = None
    optimizer.step(1.0)
    np.testing.assert_array_equal(parameters[2].numpy(), rests.numpy())


def test_the_first_step_is_the_rate_against_the_gradient():
    """The paper's 1e-3, times the scale; every bias is corrected, so the first step has that length."""
    parameter = torch.zeros(3)
    optimizer = Adan([parameter])
    parameter.grad = torch.tensor([2.0, -0.5, 1e-3])
    optimizer.step(0.5)
    assert parameter.tolist() == pytest.approx([-0.5e-3, 0.5e-3, -0.5e-3], rel=1e-4)
