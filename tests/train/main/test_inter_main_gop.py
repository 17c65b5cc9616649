"""Frames of a GOP: what the fits give can be coded, decodes to itself, and lies as far apart as pays."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import SIZE, objective_of, plan_of, rgb_info, scene

from pgsvc_codec.coding.main.gop import coding_order
from pgsvc_codec.coding.main.layer import FrameHeader, LayerDecoder, LayerEncoder
from pgsvc_codec.coding.main.predict import Slots
from pgsvc_codec.coding.main.state import splats_of
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.main import gop
from pgsvc_codec.train.main.gop import Effort, choose_distance, field_spacing, fit_anchor, fit_between, held_price
from pgsvc_codec.train.main.problem import InterProblem
from pgsvc_codec.train.main.refine import refine_intra

STEP_INDICES = [38, 36, 34]
WEIGHTS = [0.5, 0.5, 1.0]
EFFORT = Effort(25, 8, 2)


def problem_of(picture, background) -> InterProblem:
    objective = objective_of(picture, rgb_info(*SIZE))
    return InterProblem(objective, background, STEP_INDICES, WEIGHTS, opponent=True)


@pytest.fixture(scope="module")
def first():
    """Background codes, background and layers of an I-frame of the scene."""
    objective = objective_of(scene(*SIZE), rgb_info(*SIZE))
    fit = fit_float(objective, plan_of(iterations=120), np.random.default_rng(3))
    codes = tuple(int(code) for code in np.rint(fit.background * 255))
    background = np.array(codes, np.float32) / np.float32(255)
    refined = refine_intra(
        objective, background, fit.layers, STEP_INDICES, [0.002, 0.001, 0.001], WEIGHTS, opponent=True, passes=2
    )
    return codes, background, refined.layers


def psnr_of(problem: InterProblem, layers) -> float:
    shown = [splats_of(slots.state, *SIZE, opponent=True) for slots in layers]
    ends = np.cumsum([len(layer) for layer in shown]).tolist()
    step = problem.objective.step(Splats.concatenate(shown), problem.background, ends, WEIGHTS, with_moments=False)
    return float(-10 * np.log10(step.squared_error[-1].sum() / (3 * SIZE[0] * SIZE[1])))


def pan(frames: int, pace: float = 1.0):
    return [scene(*SIZE, shift=(pace * number, -0.5 * pace * number)) for number in range(frames)]


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_frames_decode_to_what_was_fitted(first, distance):
    codes, background, layers = first
    problems = [problem_of(picture, background) for picture in pan(5)]
    encoders = [LayerEncoder(layer, 3, *SIZE) for layer in range(3)]
    decoders = [LayerDecoder(layer, 3, *SIZE) for layer in range(3)]
    first_payloads = []
    for layer, (encoder, decoder) in enumerate(zip(encoders, decoders, strict=True)):
        header = FrameHeader(codes, distance) if layer == 0 else None
        first_payloads.append(encoder.encode_intra(layers[layer], STEP_INDICES[layer], header))
        decoder.decode_intra(first_payloads[layer])
    field, sizes = None, {}
    first_shown = [encoder.frames[0] for encoder in encoders]
    whole = sum(len(payload) for payload in first_payloads)
    for step in coding_order(5, distance)[1:]:
        problem = problems[step.display]
        if step.future is None:
            reference = [encoder.frames[step.past] for encoder in encoders]
            luma = problems[step.past].objective.targets[-1].picture[0]
            targets = fit_anchor(problem, reference, luma, EFFORT, field)
            field = targets.field
        else:
            predicted = [encoder.predicted(step, None) for encoder in encoders]
            targets = fit_between(problem, predicted, step.depth, EFFORT)
            assert targets.reborn is None
            assert targets.field is None
        payloads = [
            encoder.encode_inter(
                step,
                targets.slots[layer],
                STEP_INDICES[layer],
                reborn=targets.reborn and targets.reborn[layer],
                field=targets.field,
            )
            for layer, encoder in enumerate(encoders)
        ]
        for encoder, decoder, payload in zip(encoders, decoders, payloads, strict=True):
            decoder.decode_inter(payload, step, targets.field)
            assert decoder.frames[step.display].state.equals(encoder.frames[step.display].state)
        sizes[step.display] = sum(len(payload) for payload in payloads)
        shown = [encoder.frames[step.display] for encoder in encoders]
        assert psnr_of(problem, shown) > psnr_of(problems[0], first_shown) - 4
    assert max(sizes.values()) < 0.6 * whole


def test_what_is_estimated_is_what_is_shown(first):
    _, background, layers = first
    reference = [Slots(layer, np.zeros(len(layer), np.int32)) for layer in layers]
    problem = problem_of(scene(*SIZE, shift=(1.0, 0.0)), background)
    targets = fit_anchor(problem, reference, scene(*SIZE)[0], EFFORT)
    shown = [splats_of(state, *SIZE, opponent=True) for state in targets.slots]
    ends = np.cumsum([len(layer) for layer in shown]).tolist()
    step = problem.objective.step(Splats.concatenate(shown), background, ends, WEIGHTS, with_moments=False)
    np.testing.assert_allclose(targets.squared_error, step.squared_error.sum(axis=1), rtol=2e-2)
    assert all(bits >= 0 for bits in targets.bits)


def test_what_comes_back_wants_anchors_apart(first):
    _, background, layers = first
    reference = [Slots(layer, np.zeros(len(layer), np.int32)) for layer in layers]
    # two scenes in turn: every other frame is that of the references
    pictures = [scene(*SIZE), tuple(np.ascontiguousarray(plane[:, ::-1]) for plane in scene(*SIZE))]
    problems = [problem_of(pictures[number % 2], background) for number in range(9)]
    assert choose_distance(problems, reference) > 1


def test_leaps_want_anchors_side_by_side(first, rng):
    _, background, layers = first
    reference = [Slots(layer, np.zeros(len(layer), np.int32)) for layer in layers]
    # the camera shakes: a frame lies nowhere between its neighbours
    shifts = rng.uniform(-9, 9, (9, 2))
    problems = [problem_of(scene(*SIZE, shift=tuple(shift)), background) for shift in shifts]
    assert choose_distance(problems, reference) <= 2


def test_a_distance_that_is_worse_already_is_not_tried_to_its_end(first, monkeypatch):
    _, background, layers = first
    reference = [Slots(layer, np.zeros(len(layer), np.int32)) for layer in layers]
    problems = [problem_of(scene(*SIZE), background) for _ in range(4)]
    problems += [problem_of(tuple(plane[::-1].copy() for plane in scene(*SIZE)), background) for _ in range(5)]
    tried = []
    for name in ("fit_inter", "fit_changes"):
        fit = getattr(gop, name)
        monkeypatch.setattr(gop, name, lambda problem, *rest, fit=fit: tried.append(problem) or fit(problem, *rest))
    distance = choose_distance(problems, reference)
    assert len(tried) < 3 * 8
    # the same as that of whole trials
    monkeypatch.setattr(gop._Trial, "is_lost", lambda *_: False)
    tried.clear()
    assert choose_distance(problems, reference) == distance
    assert len(tried) == 3 * 8


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_gops_have_a_distance(first, frames):
    _, background, layers = first
    reference = [Slots(layer, np.zeros(len(layer), np.int32)) for layer in layers]
    problems = [problem_of(picture, background) for picture in pan(frames)]
    assert choose_distance(problems, reference) <= max(frames - 1, 1)


@pytest.mark.parametrize(
    ("size", "spacing"), [((1, 1), 16), ((352, 288), 16), ((640, 360), 32), ((1280, 720), 32), ((1920, 1080), 64)]
)
def test_fields_are_coarser_in_larger_frames(size, spacing):
    assert field_spacing(size) == spacing


def test_prices_hold_the_quality():
    assert held_price(2.0, 2.0) == 1.0
    assert held_price(0.0, 0.0) == 1.0
    prices = [held_price(error, 2.0) for error in (0.0, 1.0, 1.9, 2.0, 2.2, 2.5, 9.0)]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] == 2.0
    assert prices[-1] == 0.4
