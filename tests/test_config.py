"""Options: what they resolve to, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsvc_codec.config import PRESETS, STRATEGIES, EncodeConfig, layer_ends
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


def test_layers_share_the_splats():
    assert layer_ends(9, (1, 1, 1)) == (3, 6, 9)
    assert layer_ends(10, (1, 1, 2)) == (2, 5, 10)
    assert layer_ends(3, (1000, 1, 1)) == (1, 2, 3), "no layer is empty"
    assert layer_ends(7, (2,)) == (7,)
    plan = resolve(splats=10, layer_split=(1, 1, 2))
    assert (plan.level_splats, plan.layer_splats, plan.splats, plan.num_layers) == ((2, 5, 10), (2, 3, 5), 10, 3)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.integers(8, 10_000))
def test_no_layer_is_empty_whatever_the_shares(shares, splats):
    ends = layer_ends(splats, shares)
    assert all(start < end for start, end in pairwise((0, *ends)))
    assert ends[-1] == splats


def test_the_paper_is_a_preset():
    """Its own training, its cycle of levels, until it has converged."""
    plan = resolve(preset="paper")
    assert (plan.method, plan.strategy, plan.level_schedule) == ("paper", "joint", "cyclic")
    assert plan.iterations_intra == 100_000
    assert resolve(preset="paper", level_schedule="all").level_schedule == "all"
    for preset in set(PRESETS) - {"paper"}:
        assert (resolve(preset=preset).method, resolve(preset=preset).level_schedule) == ("natural", "all")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_strategies_go_with_every_training(strategy, preset):
    assert resolve(strategy=strategy, preset=preset).strategy == strategy


def test_levels_of_quality_scalability_have_the_full_size():
    plan = resolve(96, 64, layers=2)
    assert (plan.scalability, plan.level_sizes) == ("quality", ((96, 64), (96, 64)))


def test_levels_of_resolution_scalability_grow_as_their_splats_do():
    """A side is the root of the level's share, rounded to even (paper, section 4.1)."""
    plan = resolve(scalability="resolution")
    assert plan.level_sizes == ((1108, 624), (1568, 882), (1920, 1080))
    assert resolve(100, 60, scalability="resolution", layers=2, layer_split=(1, 3)).level_sizes == ((50, 30), (100, 60))
    assert resolve(33, 17, scalability="resolution", layers=1).level_sizes == ((33, 17),), "the full size as it is"
    assert resolve(3, 1, scalability="resolution").level_sizes == ((2, 1), (2, 1), (3, 1))


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_level_sizes_never_shrink(width, height, shares):
    plan = resolve(width, height, scalability="resolution", layers=len(shares), layer_split=shares)
    assert plan.level_sizes[-1] == (width, height)
    for size, larger in pairwise(plan.level_sizes):
        assert 1 <= size[0] <= larger[0]
        assert 1 <= size[1] <= larger[1]


def test_level_sizes_may_be_given():
    sizes = [(10, 6), (10, 7), (33, 17)]
    assert resolve(33, 17, scalability="resolution", layer_res=sizes).level_sizes == tuple(sizes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(10, 6), (10, 5), (33, 17)], r"size of level 1: got 10x6, allowed 1x1\.\.10x5"),
        ([(10, 6), (34, 6), (33, 17)], r"size of level 2: got 34x6, allowed 1x1\.\.33x17"),
        ([(0, 6), (10, 6), (33, 17)], r"size of level 1: got 0x6, allowed 1x1"),
        ([(10, 6), (20, 9), (30, 16)], "size of level 3: got 30x16, allowed 33x17"),
        ([(10, 6), (20, 9), (66, 34)], "size of level 3: got 66x34, allowed"),
    ],
)
def test_level_sizes_must_grow_to_the_full_one(sizes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(33, 17, scalability="resolution", layer_res=sizes)


def test_a_level_of_its_own_has_the_splats_that_it_would_have_in_a_stream_of_all():
    config = EncodeConfig(
        splats=100, layer_split=(1, 1, 3), scalability="resolution", strategy="monolithic", iterations=9, seed=5
    )
    plan = config.resolve(96, 64, Fraction(25), still=False)
    for level, splats in enumerate((20, 40, 100), start=1):
        width, height = plan.level_sizes[level - 1]
        single = config.of_level(level, plan).resolve(width, height, Fraction(25), still=False)
        assert (single.level_splats, single.level_sizes) == ((splats,), ((width, height),))
        assert (single.iterations_intra, single.seed, single.strategy) == (9, 5, "monolithic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, r"layers: got 0, allowed 1\.\.8"),
        ({"layers": 9}, r"layers: got 9, allowed 1\.\.8"),
        ({"layer_split": (1, 1)}, "layer split: got 2 shares, allowed 3, one per layer"),
        ({"layer_split": (1, 0, 1)}, "layer split: .* allowed shares > 0"),
        ({"level_weights": (1, 1)}, "level weights: got 2 numbers, allowed 3, one per level"),
        ({"level_weights": (1, 0, 1)}, "level weights: .* allowed numbers > 0"),
        (
            {"strategy": "sequential", "level_weights": (1, 1, 1)},
            "level weights: got some with strategy sequential, allowed strategy joint, joint-random",
        ),
        ({"splats": 2}, r"splats: got 2, allowed 3\.\."),
        ({"preset": "mediun"}, "preset: got mediun, allowed ultrafast, .*placebo"),
        ({"iterations": 0}, "iterations: got 0"),
        ({"profile": "extended"}, "profile: got extended, allowed main, baseline"),
        ({"profile": "main", "preset": "paper"}, "profile: got main with preset paper, allowed baseline"),
        ({"profile": "main", "strategy": "pruning"}, "profile: got main with strategy pruning, allowed baseline"),
        ({"quality": 101}, r"quality: got 101, allowed 0\.\.100"),
        ({"quality": 30, "splats": 500}, "quality: got 30 beside a number of splats, allowed one of the two"),
        ({"quality": 30, "profile": "baseline"}, "quality: got 30 with profile baseline, allowed profile main"),
        ({"level_schedule": "random"}, "level schedule: got random, allowed all, cyclic"),
        ({"strategy": "layerwise"}, "strategy: got layerwise, allowed joint, joint-random, sequential, .*pruning"),
        ({"scalability": "spatial"}, "scalability: got spatial, allowed quality, resolution"),
        (
            {"strategy": "sequential", "level_schedule": "cyclic"},
            "level schedule: got one with strategy sequential, allowed strategy joint",
        ),
        ({"layer_res": [(8, 8)] * 3}, "level sizes: got some, allowed scalability resolution"),
        (
            {"layer_res": [(8, 8)] * 2, "scalability": "resolution"},
            "level sizes: got 2, allowed 3, one per level",
        ),
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


@pytest.mark.parametrize(
    ("options", "profile", "quality"),
    [
        ({}, "main", 50.0),
        ({"quality": 30}, "main", 30.0),
        ({"splats": 500}, "main", None),
        ({"preset": "paper"}, "baseline", None),
        ({"strategy": "pruning"}, "baseline", None),
        ({"level_schedule": "cyclic"}, "baseline", None),
        ({"profile": "baseline"}, "baseline", None),
    ],
)
def test_profile_and_quality_that_options_mean(options, profile, quality):
    plan = EncodeConfig(**options).resolve(64, 48, Fraction(25), still=True)
    assert (plan.profile, plan.quality) == (profile, quality)


def test_shares_of_the_layers():
    main, baseline, asked = (
        EncodeConfig(**options).resolve(64, 48, Fraction(25), still=True).layer_shares
        for options in ({}, {"profile": "baseline"}, {"layer_split": (3, 1, 1)})
    )
    assert main[0] > main[1] > main[2] > 0.2
    assert baseline == (1 / 3, 1 / 3, 1 / 3)
    assert asked == pytest.approx((0.6, 0.2, 0.2))
