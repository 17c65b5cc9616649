"""Options: what they resolve to, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pgsvc_codec.config import PRESETS, EncodeConfig
from pgsvc_codec.errors import ConfigError


def resolve(width=1920, height=1080, rate=Fraction(25), still=False, **options):
    return EncodeConfig(**options).resolve(width, height, rate, still=still)


def test_the_budget_follows_the_area():
    assert resolve().splats == 12_000
    assert resolve(960, 540).splats == 3_000
    assert resolve(1, 1).splats == 24, "eight a layer at least"
    assert resolve(splats=500).splats == 500


@pytest.mark.parametrize(("rate", "keyint"), [(Fraction(5), 16), (Fraction(30000, 1001), 30), (Fraction(120), 64)])
def test_a_gop_is_about_a_second(rate, keyint):
    assert resolve(rate=rate).keyint == keyint


def test_stills_lie_layer_by_layer_and_clips_gop_by_gop():
    assert resolve(still=True).progression == "layer"
    assert resolve(still=False).progression == "gop"
    assert resolve(still=True, progression="gop").progression == "gop"


def test_presets_spend_more_and_more():
    iterations = [resolve(preset=preset).iterations_intra for preset in PRESETS]
    assert iterations == sorted(iterations)
    assert len(set(iterations)) == len(PRESETS)
    assert resolve(preset="placebo", iterations=7).iterations_intra == 7
    assert resolve(iterations=1).iterations_inter == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, r"layers: got 0, allowed 1\.\.8"),
        ({"layers": 9}, r"layers: got 9, allowed 1\.\.8"),
        ({"layer_split": (1, 1)}, "layer split: got 2 shares, allowed 3, one per layer"),
        ({"layer_split": (1, 0, 1)}, "layer split: .* allowed shares > 0"),
        ({"splats": 2}, r"splats: got 2, allowed 3\.\."),
        ({"preset": "mediun"}, "preset: got mediun, allowed ultrafast, .*placebo"),
        ({"iterations": 0}, "iterations: got 0"),
        ({"profile": "main"}, "profile: got main, allowed baseline"),
        ({"level_schedule": "random"}, "level schedule: got random, allowed all, cyclic"),
        ({"keyint": 0}, r"keyint: got 0, allowed 1\.\.1024"),
        ({"keyint": 10, "min_keyint": 11}, r"min-keyint: got 11, allowed 1\.\.10 \(keyint\)"),
        ({"scenecut": 101}, r"scenecut: got 101, allowed 0\.\.100"),
        ({"progression": "frame"}, "progression: got frame, allowed gop, layer"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        EncodeConfig(**options)
