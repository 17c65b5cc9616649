"""Where GOPs begin: by motion, and by two small fits."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
from scenes import objective_of, plan_of, scene

from pgsvc_codec.train.keyframes import DynamicKeyframes, is_cut, is_foreign, keyframe_rule
from pgsvc_codec.train.motion import Motion, estimate_motion


@pytest.fixture
def texture(rng):
    coarse = rng.random((40, 48))
    return np.kron(coarse, np.ones((4, 4))).astype(np.float32)


def motion_of(residual: float, texture: float) -> Motion:
    """Motion that a rule judges by these two numbers."""
    plane = np.zeros((4, 4), np.float32)
    return estimate_motion(plane, plane)._replace(residual=residual, texture=texture)


def test_another_scene_is_a_cut_and_motion_is_not(rng, texture):
    other = np.kron(rng.random((40, 48)), np.ones((4, 4))).astype(np.float32)
    moved = estimate_motion(texture, np.roll(texture, 4, axis=1))
    changed = estimate_motion(texture, other)
    assert not is_cut(moved, 10, 25, 2, 40)
    assert is_cut(changed, 10, 25, 2, 40)
    assert not is_cut(changed, 1, 25, 2, 40), "closer to the last cut than min_keyint"
    assert not is_cut(changed, 10, 25, 2, 0), "switched off"


def test_the_longer_a_gop_is_the_weaker_the_evidence_that_ends_it():
    doubtful = motion_of(residual=0.07, texture=0.1)
    assert not is_cut(doubtful, 2, 25, 2, 40)
    assert is_cut(doubtful, 25, 25, 2, 40)


def test_a_flash_is_foreign_and_noise_on_a_flat_picture_is_not():
    assert is_foreign(motion_of(residual=0.3, texture=0.2))
    assert not is_foreign(motion_of(residual=0.1, texture=0.2))
    assert not is_foreign(motion_of(residual=0.002, texture=0.001))


SMALL = (36, 28)


def dynamic(**options):
    """The paper's rule with small fits that are good enough: a fit from scratch must tell one scene from another."""
    return DynamicKeyframes(plan_of(SMALL, **{"preset": "paper", "splats": 120, "iterations": 500, **options}))


def scenes_of(*lengths, speed=0.0):
    """So many frames of a slowly moving scene, then of its negative upside down, and so on."""
    moving = [scene(*SMALL, shift=(speed * number, 0)) for number in range(max(lengths))]
    return [
        tuple(1 - plane[::-1, ::-1] for plane in picture) if other % 2 else picture
        for other, length in enumerate(lengths)
        for picture in moving[:length]
    ]


def cuts_of(rule, pictures):
    """Which of the pictures the rule makes key frames, all in GOPs that are long enough."""
    return [number for number, picture in enumerate(pictures) if rule(partial(objective_of, picture), None, 99)]


MOVING = scenes_of(6, 3, speed=0.25)


@pytest.fixture(scope="module")
def after_one_scene():
    rule = dynamic(min_keyint=7)
    assert cuts_of(rule, MOVING[:6]) == [], "motion is no cut"
    return rule


def test_a_hard_cut_is_a_key_frame_and_what_follows_is_not(after_one_scene):
    assert cuts_of(deepcopy(after_one_scene), MOVING[6:]) == [0]


@pytest.mark.parametrize("frames", [6, 7])
def test_a_cut_too_close_to_the_last_is_none(after_one_scene, frames):
    assert deepcopy(after_one_scene)(partial(objective_of, MOVING[6]), None, frames) == (frames >= 7)


def test_a_still_clip_has_no_cut():
    assert cuts_of(dynamic(), scenes_of(5)) == []


def test_the_first_frame_is_no_cut():
    """It is a key frame whatever the rule says."""
    assert not dynamic(iterations=1)(partial(objective_of, scene(*SMALL)), None, 0)


def test_which_rule_a_plan_asks_for():
    moving, foreign = (motion_of(residual, 0.1) for residual in (0.01, 0.2))
    by_motion = keyframe_rule(plan_of(min_keyint=1))
    assert [by_motion(None, motion, 5) for motion in (None, moving, foreign)] == [False, False, True]
    never = keyframe_rule(plan_of(preset="paper", scenecut=0))
    assert not never(None, foreign, 5)
    assert isinstance(keyframe_rule(plan_of(preset="paper")), DynamicKeyframes)
