"""What an encode is asked to do: options, presets, and the numbers they resolve to (stdlib only)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, get_args

from pgsvc_codec.errors import ConfigError

MAX_LAYERS = 8
MAX_SPLATS = 1 << 20  # of a frame and layer (spec, "Limits")
MAX_KEYINT = 1024  # frames of a GOP (spec, "Limits")

PROFILES = ("main", "baseline")
Progression = Literal["gop", "layer"]
PROGRESSIONS: tuple[str, ...] = get_args(Progression)
LEVEL_SCHEDULES = ("all", "cyclic")
STRATEGIES = ("joint", "joint-random", "sequential", "monolithic", "pruning")
SCALABILITIES = ("quality", "resolution")
MAIN_STRATEGIES = ("joint", "monolithic")  # the others are the paper's comparisons
DEFAULT_QUALITY = 50.0


class Preset(NamedTuple):
    """A point on the curve of quality over time."""

    iterations: int  # in `baseline`, of an I-frame's fit at most, the quantisation-aware part included
    seconds: float | None  # of them, per megapixel on two cores (benchmarks/frontier.py); None = that depends
    main: int  # iterations in `main`, of an I-frame's first fit; refinements follow


# x264's names, and the paper's own training, which ends when it has converged.
PRESETS = {
    "ultrafast": Preset(60, 1.3, 60),
    "superfast": Preset(100, 1.6, 100),
    "veryfast": Preset(150, 2, 150),
    "faster": Preset(200, 2.6, 250),
    "fast": Preset(300, 3.4, 400),
    "medium": Preset(500, 4.7, 1500),
    "slow": Preset(1000, 9, 3000),
    "slower": Preset(2000, 15, 5000),
    "veryslow": Preset(4000, 28, 8000),
    "placebo": Preset(8000, 52, 12_000),
    "paper": Preset(100_000, None, 0),  # `baseline` alone
}
# Of an I-frame's iterations that a P-frame gets, which starts from its reference; in `main` of all but very long fits.
INTER_SHARES = {"baseline": 0.3, "main": 1 / 15}
_LEAST_INTER = 12  # iterations in `main`

_LEAST_SHARE = 0.54  # of an equal share, for layers of `main` whose shares are left to the encoder
_SPLATS_1080P = 12_000  # default budget of a 1920x1080 frame; others by area
_LEAST_KEYINT, _MOST_KEYINT = 16, 64  # the default GOP is one second, within these


def _require(fits: bool, name: str, got: object, allowed: str) -> None:
    if not fits:
        raise ConfigError(f"{name}: got {got}, allowed {allowed}")


def layer_ends(num_splats: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Cumulative layer sizes, at least one splat per layer, the last equal to `num_splats`."""
    cumulative = list(accumulate(shares))
    ends: list[int] = []
    for behind, share in zip(range(len(cumulative) - 1, -1, -1), cumulative, strict=True):
        least = ends[-1] + 1 if ends else 1
        ends.append(min(max(round(num_splats * share / cumulative[-1]), least), num_splats - behind))
    return tuple(ends)


def main_split(layers: int) -> tuple[float, ...]:
    """Default shares of the bytes in `main`: each layer four fifths of the one below, so none is ever small."""
    return tuple(0.8**layer for layer in range(layers))


def _even(side: float, most: int) -> int:
    return min(max(2, 2 * round(side / 2)), most)


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Options of `encode`; None means: decided from the source (see `resolve`).

    Raises:
        ConfigError: an option is out of range, or two do not fit together.
    """

    layers: int = 3  # num_layers, counts the base
    # Shares of the splats, in `main` of the bytes; None = equal, in `main` those of `main_split`.
    layer_split: Sequence[float] | None = None
    splats: int | None = None  # per frame, all layers; in `main` of the I-frames
    quality: float | None = None  # 0..100, `main` only; None = `DEFAULT_QUALITY` where `splats` says nothing
    preset: str = "medium"
    iterations: int | None = None  # of an I-frame; beats the preset
    profile: str | None = None  # None = `main`, but `baseline` where another option is the paper's own
    strategy: str = "joint"  # how the layers are fitted, see `train.fit`
    level_schedule: str | None = None  # which levels an iteration of "joint" supervises; None = by preset
    level_weights: Sequence[float] | None = None  # emphasis of each level in joint training; None = 1 each
    scalability: str = "quality"  # all levels have the full size, or levels grow
    layer_res: Sequence[tuple[int, int]] | None = None  # width and height of each level; None = by splats
    keyint: int | None = None  # most frames of a GOP
    min_keyint: int | None = None  # fewest frames between scene cuts
    scenecut: float = 40.0  # 0 never .. 100 eager
    progression: Progression | None = None  # order of the segments
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _require(1 <= self.layers <= MAX_LAYERS, "layers", self.layers, f"1..{MAX_LAYERS}")
        if self.layer_split is not None:
            shares = list(self.layer_split)
            one_each = f"{self.layers}, one per layer"
            _require(len(shares) == self.layers, "layer split", f"{len(shares)} shares", one_each)
            _require(all(share > 0 for share in shares), "layer split", shares, "shares > 0")
        if self.splats is not None:
            _require(self.layers <= self.splats <= MAX_SPLATS, "splats", self.splats, f"{self.layers}..{MAX_SPLATS}")
        _require(self.preset in PRESETS, "preset", self.preset, ", ".join(PRESETS))
        if self.iterations is not None:
            _require(1 <= self.iterations <= 10**6, "iterations", self.iterations, "1..1000000")
        _require(self.profile in (None, *PROFILES), "profile", self.profile, ", ".join(PROFILES))
        _require(self.strategy in STRATEGIES, "strategy", self.strategy, ", ".join(STRATEGIES))
        if self.quality is not None:
            _require(0 <= self.quality <= 100, "quality", self.quality, "0..100")
            _require(self.splats is None, "quality", f"{self.quality:g} beside a number of splats", "one of the two")
        self._check_profile()
        if self.level_schedule is not None:
            schedules = ", ".join(LEVEL_SCHEDULES)
            _require(self.level_schedule in LEVEL_SCHEDULES, "level schedule", self.level_schedule, schedules)
            _require(self.strategy == "joint", "level schedule", f"one with strategy {self.strategy}", "strategy joint")
        if self.level_weights is not None:
            emphasis = list(self.level_weights)
            one_each = f"{self.layers}, one per level"
            _require(len(emphasis) == self.layers, "level weights", f"{len(emphasis)} numbers", one_each)
            _require(all(weight > 0 for weight in emphasis), "level weights", emphasis, "numbers > 0")
            joint = self.strategy in ("joint", "joint-random")
            _require(joint, "level weights", f"some with strategy {self.strategy}", "strategy joint, joint-random")
        _require(self.scalability in SCALABILITIES, "scalability", self.scalability, ", ".join(SCALABILITIES))
        if self.layer_res is not None:
            _require(self.scalability == "resolution", "level sizes", "some", "scalability resolution")
            count = f"{self.layers}, one per level"
            _require(len(self.layer_res) == self.layers, "level sizes", len(self.layer_res), count)
        if self.keyint is not None:
            _require(1 <= self.keyint <= MAX_KEYINT, "keyint", self.keyint, f"1..{MAX_KEYINT}")
        if self.min_keyint is not None:
            most = self.keyint or MAX_KEYINT
            _require(1 <= self.min_keyint <= most, "min-keyint", self.min_keyint, f"1..{most} (keyint)")
        _require(0 <= self.scenecut <= 100, "scenecut", self.scenecut, "0..100")
        if self.progression is not None:
            _require(self.progression in PROGRESSIONS, "progression", self.progression, ", ".join(PROGRESSIONS))
        _require(0 <= self.seed < 1 << 63, "seed", self.seed, "0..2^63-1")

    @property
    def _is_paper(self) -> str | None:
        """The option that only the `baseline` profile has, None where there is none."""
        if self.preset == "paper":
            return "preset paper"
        if self.strategy not in MAIN_STRATEGIES:
            return f"strategy {self.strategy}"
        return None if self.level_schedule is None else f"level schedule {self.level_schedule}"

    def _check_profile(self) -> None:
        """Options that go with one profile only."""
        if self.profile == "main" and self._is_paper:
            _require(False, "profile", f"main with {self._is_paper}", "baseline")
        if self.resolved_profile == "baseline":
            because = self._is_paper if self.profile is None else "profile baseline"
            if self.quality is not None:
                _require(False, "quality", f"{self.quality:g} with {because}", "profile main")

    @property
    def resolved_profile(self) -> str:
        """The profile that the options mean."""
        return self.profile or ("baseline" if self._is_paper else "main")

    def resolve(self, width: int, height: int, rate: Fraction, *, still: bool) -> EncodePlan:
        """The numbers that these options mean for a source of width × height luma samples at `rate` frames/s."""
        is_main = self.resolved_profile == "main"
        quality = None
        if is_main and self.splats is None:
            quality = DEFAULT_QUALITY if self.quality is None else float(self.quality)
        shares = tuple(self.layer_split or (main_split(self.layers) if is_main else (1.0,) * self.layers))
        splats = self.splats
        if splats is None:
            splats = min(max(round(_SPLATS_1080P * width * height / (1920 * 1080)), 8 * self.layers), MAX_SPLATS)
        keyint = self.keyint or min(max(round(rate), _LEAST_KEYINT), _MOST_KEYINT)
        preset = PRESETS[self.preset]
        iterations = self.iterations
        if iterations is None:
            iterations = preset.main if is_main else preset.iterations
        inter = max(1, round(INTER_SHARES[self.resolved_profile] * iterations))
        return EncodePlan(
            profile=self.resolved_profile,
            quality=quality,
            layer_shares=tuple(share / sum(shares) for share in shares),
            least_shares=tuple(
                0.9 * share / sum(shares) if self.layer_split else _LEAST_SHARE / self.layers for share in shares
            ),
            level_splats=layer_ends(splats, shares),
            iterations_intra=iterations,
            iterations_inter=min(max(inter, _LEAST_INTER), iterations) if is_main else inter,
            method="paper" if self.preset == "paper" else "natural",
            strategy=self.strategy,
            level_schedule=self.level_schedule or ("cyclic" if self.preset == "paper" else "all"),
            level_weights=tuple(map(float, self.level_weights or (1,) * self.layers)),
            scalability=self.scalability,
            level_sizes=self._level_sizes(width, height),
            keyint=keyint,
            min_keyint=self.min_keyint or max(1, min(keyint // 10, keyint)),
            scenecut=self.scenecut,
            progression=self.progression or ("layer" if still else "gop"),
            seed=self.seed,
        )

    def of_level(self, level: int, plan: EncodePlan) -> EncodeConfig:
        """What makes one layer, a stream of its own, of level 1..num_layers: that of strategy "monolithic"."""
        splats = plan.level_splats[level - 1]
        return replace(self, layers=1, layer_split=None, layer_res=None, scalability="quality", splats=splats)

    def _level_sizes(self, width: int, height: int) -> tuple[tuple[int, int], ...]:
        """Sizes of all levels; by default a side is the root of the level's share of the splats, even (paper, 4.1)."""
        full = (width, height)
        if self.scalability == "quality":
            return (full,) * self.layers
        if self.layer_res is not None:
            sizes = tuple((int(across), int(down)) for across, down in self.layer_res)
            for level, (size, larger) in enumerate(pairwise((*sizes, full)), start=1):
                fits = 1 <= size[0] <= larger[0] and 1 <= size[1] <= larger[1]
                got, allowed = ("{}x{}".format(*sides) for sides in (size, larger))
                _require(fits, f"size of level {level}", got, f"1x1..{allowed}")
            _require(sizes[-1] == full, f"size of level {self.layers}", "{}x{}".format(*sizes[-1]), f"{width}x{height}")
            return sizes
        shares = tuple(accumulate(self.layer_split or (1.0,) * self.layers))
        roots = [math.sqrt(share / shares[-1]) for share in shares[:-1]]
        lower = [(_even(width * root, width), _even(height * root, height)) for root in roots]
        return (*lower, full)


@dataclass(frozen=True, kw_only=True)
class EncodePlan:
    """`EncodeConfig` with every choice made."""

    profile: str
    quality: float | None  # of profile main; None where `level_splats` says how many splats to keep
    layer_shares: tuple[float, ...]  # of the splats, in `main` of the bytes; their sum is 1
    least_shares: tuple[float, ...]  # of the bytes of an I-frame that each layer gets whatever it costs, in `main`
    level_splats: tuple[int, ...]  # of a frame, up to each level; with a quality, what is usual for the size
    iterations_intra: int  # over all layers, whatever the strategy
    iterations_inter: int
    method: str  # of `train.fit.METHODS`
    strategy: str  # of `train.fit.STRATEGIES`
    level_schedule: str
    level_weights: tuple[float, ...]  # emphasis of each level over what the schedule gives it
    scalability: str
    level_sizes: tuple[tuple[int, int], ...]  # width and height of each level; the last is the full size
    keyint: int
    min_keyint: int
    scenecut: float
    progression: Progression
    seed: int

    @property
    def splats(self) -> int:
        """Of a frame, all layers."""
        return self.level_splats[-1]

    @property
    def num_layers(self) -> int:
        """The base included."""
        return len(self.level_splats)

    @property
    def layer_splats(self) -> tuple[int, ...]:
        """Of a frame, in each layer."""
        return tuple(end - start for start, end in pairwise((0, *self.level_splats)))
