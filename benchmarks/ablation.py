"""What each idea of the fit of a still gains: fits that differ from the package's in one thing.

    python benchmarks/ablation.py [FOLDER ...] [--variants NAME ..] [--splats 5000] [--iterations 500] [--seeds 0]
                                  [--threads 1]

FOLDERs hold pictures (default: four of Kodak under PGSVC_DATA).  All fits are unquantised, in three equal layers, and
those of a group take the same iterations, or passes of the rasteriser where an iteration has none; `ideas.py` has what
the package has not.  Rows are added to `results/ablation.tsv`; those that are there are not measured again.  Then the
table of gains over the variant that each is compared with is printed and written to `results/ablation-gains.tsv`.

pace_ms is CPU milliseconds per iteration of a fixed piece of a fit, measured right before and after: cpu_s over it is
a cost that does not depend on what else the machine does.  The gain at equal cost is the one over as many iterations of
the package's fit as take that long, interpolated between its rows (groups "default" and "one layer").
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, NamedTuple

import experiment
import ideas
import numba
import numpy as np
from experiment import LAYERS, level_columns, parser_of, per_level
from fits import LevelFit, Picture, plan_of, read_picture
from ideas import Case
from material import KODAK, find
from results_file import ResultsFile

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.render.backend import load
from pgsvc_codec.splats import Splats
from pgsvc_codec.train import natural
from pgsvc_codec.train.adam import Adam
from pgsvc_codec.train.grid import split
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.schedule import LevelWeights, all_levels, cyclic, uniform
from pgsvc_codec.train.stack import Stack
from pgsvc_codec.train.tuning import CODED, DEFAULTS, FREE

PICTURES = [KODAK / f"kodim{number:02}.png" for number in (5, 7, 19, 23)]
KEYS = ["picture", "variant", "splats", "iterations", "seed"]
COLUMNS = [*KEYS, *level_columns("psnr"), "steps", "renders", "cpu_s", "wall_s", "pace_ms"]
GAINS = [
    "splats",
    "iterations",
    "group",
    "variant",
    "against",
    "rows",
    *level_columns("gain"),
    "cost_ratio",
    "gain_3_at_equal_cost",
]

Fit = Callable[[Case], Splats]


class Variant(NamedTuple):
    """A fit, and the one that it is compared with."""

    group: str
    fit: Fit
    against: str = "default"
    is_single: bool = False  # one layer, which shows the top level


def _tuned(**choices: object) -> Fit:
    return lambda case: ideas.fit(case.tuned(**choices))


def _weighted(*weights: float) -> Fit:
    total = list(weights)
    return lambda case: ideas.fit(case._replace(stack=case.stack._replace(level_weights=lambda iteration: total)))


def _scheduled(schedule: Callable[[int, int], LevelWeights]) -> Fit:
    def fit(case: Case) -> Splats:
        weights = schedule(LAYERS, 0)
        return ideas.fit(case._replace(stack=case.stack._replace(level_weights=weights)))

    return fit


def _longer(factor: float) -> Fit:
    return lambda case: ideas.fit(case.spending(round(factor * case.stack.iterations)))


def _late(**choices: object) -> Fit:
    return lambda case: ideas.with_adam(case.tuned(**choices), Adam, schedule=ideas.late)


def _rates(factor: float, *names: str) -> Fit:
    return _tuned(**{f"{name}_rate": factor * getattr(DEFAULTS, f"{name}_rate") for name in names})


def _refined(share: float, refine: Callable[..., Splats], surplus: float = 0.0, **options: Any) -> Fit:
    def fit(case: Case) -> Splats:
        iterations = case.stack.iterations
        more = case.spending(round((1 + surplus) * iterations))
        return ideas.then(more, round(share * iterations), partial(refine, **options))

    return fit


def _variants() -> dict[str, Variant]:
    lengths = {"0.25": 0.25, "0.5": 0.5, "0.7": 0.7, "1.4": 1.4, "2": 2.0, "4": 4.0}
    found = {"default": Variant("default", ideas.fit)}
    found |= {f"iterations x{name}": Variant("default", _longer(factor)) for name, factor in lengths.items()}

    choices: dict[str, tuple[Any, ...]] = {
        "relocations": (0, 30, 60, 200),
        "betas": ((0.75, 0.75), (0.85, 0.85), (0.9, 0.9), (0.8, 0.9), (0.87, 0.95), (0.9, 0.99), (0.9, 0.999)),
        "detail_share": (0.0, 0.5, 0.7, 0.8, 1.0),
        "start_size": (0.2, 0.4, 0.6),
        "awake": (1.0, 0.7, 0.2),
        "relocated": (0.05, 0.1, 0.4),
        "relocated_until": (0.5, 0.85),
        "warmup": (0, 10, 30),
    }
    for name, values in choices.items():
        found |= {f"{name} {value}": Variant("tuning", _tuned(**{name: value})) for value in values}
    kinds = ("offset", "shape", "amplitude")
    for names in (*((kind,) for kind in kinds), kinds):
        title = "all rates" if names == kinds else f"{names[0]} rate"
        found |= {
            f"{title} {word}": Variant("tuning", _rates(factor, *names))
            for word, factor in (("half", 0.5), ("double", 2.0))
        }
    found["earlier choices"] = Variant(
        "tuning", _tuned(relocations=0, betas=(0.9, 0.99), detail_share=0.7, start_size=0.6)
    )

    found |= {
        "limits coded": Variant("limits", partial(ideas.fit, limits=CODED)),
        "shortest 0.7": Variant("limits", partial(ideas.fit, limits=replace(FREE, shortest=0.7, thinnest=0.69))),
        "longest 2": Variant("limits", partial(ideas.fit, limits=replace(FREE, longest=2.0))),
        "covariance floor 0.5": Variant("limits", ideas.floored),
    }

    for name, schedule in (("cyclic", cyclic), ("joint-random", uniform)):
        found[f"levels {name}"] = Variant("levels", _scheduled(schedule))
    for weights in ((0.25, 0.25, 1.0), (1.0, 1.0, 1.0), (1.0, 0.5, 1.0), (0.25, 0.5, 1.0), (0.0, 0.0, 1.0)):
        found["levels " + " ".join(f"{weight:g}" for weight in weights)] = Variant("levels", _weighted(*weights))

    still = "relocations 0"
    found |= {
        f"plain, Adam x{rate}": Variant("motion", partial(ideas.plain_adam, rate=rate)) for rate in (0.3, 1, 3, 6)
    }
    found |= {
        f"plain, Adan {rate}": Variant("motion", partial(ideas.plain_adan, rate=rate), still) for rate in (0.001, 0.01)
    }
    found |= {f"Adan x{rate}": Variant("motion", partial(ideas.natural_adan, rate=rate)) for rate in (0.3, 1)}
    for rate, betas in (
        (0.7, (0.87, 0.9, 0.95)),
        (1, (0.87, 0.9, 0.95)),
        (1.5, (0.87, 0.9, 0.95)),
        (1, (0.93, 0.9, 0.97)),
    ):
        found[f"Adan x{rate}, {betas}"] = Variant("motion", partial(ideas.natural_adan, rate=rate, betas=betas))
    for rate, two in ((1, (0.87, 0.95)), (1.4, (0.87, 0.95)), (1.4, (0.92, 0.95))):
        found[f"Nadam x{rate}, {two}"] = Variant(
            "motion", partial(ideas.with_adam, kind=ideas.Nadam, rate=rate, betas=two)
        )
    found["Adam by rows"] = Variant("motion", partial(ideas.with_adam, kind=ideas.RowAdam))
    found |= {f"curvature x{rate}": Variant("motion", partial(ideas.curvature, rate=rate)) for rate in (0.003, 0.01)}
    for fall in (ideas.constant, ideas.halvings, ideas.linear, ideas.late, ideas.exponential):
        found[f"rate {fall.__name__}"] = Variant("motion", partial(ideas.with_adam, kind=Adam, schedule=fall))
    for rate, kind in ((1.4, Adam), (1.0, ideas.Nadam), (1.4, ideas.Nadam)):
        found[f"{kind.__name__} x{rate}, late"] = Variant(
            "motion", partial(ideas.with_adam, kind=kind, rate=rate, schedule=ideas.late)
        )
    for betas in ((0.75, 0.75), (0.8, 0.9), (0.85, 0.85)):
        found[f"betas {betas}, late"] = Variant("motion", _late(betas=betas))
    found |= {
        f"half size for {share}": Variant("motion", partial(ideas.coarse_to_fine, share=share))
        for share in (0.15, 0.33)
    }

    found |= {
        "start by variance": Variant("places", partial(ideas.start_by, detail=ideas.variance)),
        "start by residual": Variant("places", partial(ideas.start_by, detail=ideas.residual)),
        "births of one size": Variant("places", partial(ideas.with_births, find=ideas.single_scale)),
        "births anywhere": Variant("places", partial(ideas.with_births, find=ideas.random_places)),
        "random injection": Variant("places", partial(ideas.with_births, find=ideas.random_injection)),
        "growth from 0.5": Variant("places", partial(ideas.growing, share=0.5), still),
        "growth from 0.1": Variant("places", partial(ideas.growing, share=0.1), still),
        "merging": Variant("places", ideas.merging),
    }

    found |= {
        f"colours solved at {place}": Variant("colours", partial(ideas.solved_colors, place=place))
        for place in (0.0, 0.5, 1.0)
    }

    gauss, whole = partial(ideas.newton, gauss=True), partial(ideas.newton, gauss=False)
    for name, refine in (("L-BFGS", ideas.lbfgs), ("Newton", whole), ("Gauss-Newton", gauss)):
        found[f"{name} from 0.2"] = Variant("second order", _refined(0.2, refine))
        found[f"{name} after the end"] = Variant("second order", _refined(1.0, refine, surplus=0.4), "iterations x1.4")

    found |= {
        f"one layer{name.removeprefix('default').removeprefix('iterations')}": variant._replace(
            group="one layer", against="one layer", is_single=True
        )
        for name, variant in found.items()
        if variant.group == "default"
    }
    found |= {
        f"one layer, {name}": variant._replace(
            against="one layer" if variant.against == "default" else "one layer x1.4", is_single=True
        )
        for name, variant in found.items()
        if variant.group == "second order"
    }
    return found


VARIANTS = _variants()


class Counting(SimpleNamespace):
    """A rasteriser that counts its passes."""

    def __init__(self, rasterizer: Any) -> None:
        super().__init__(steps=0, renders=0)
        self._rasterizer = rasterizer

    def fit_step(self, *arguments: Any, **options: Any) -> Any:
        """As the rasteriser's."""
        self.steps += 1
        return self._rasterizer.fit_step(*arguments, **options)

    def render(self, *arguments: Any) -> Any:
        """As the rasteriser's."""
        self.renders += 1
        return self._rasterizer.render(*arguments)


def measure_one(picture: Picture, variant: Variant, splats: int, iterations: int, seed: int) -> dict[str, Any]:
    """One row, but for its keys."""
    info = picture.info
    plan = plan_of(picture, EncodeConfig(profile="baseline", layers=LAYERS, splats=splats))
    counting = Counting(load("cpu"))
    levels = LevelSizes(info, plan.level_sizes, counting)
    objective, references = levels.read(picture.frame)
    rng = np.random.default_rng([seed, 0])
    stack = Stack(objective, 0, plan.layer_splats, all_levels(LAYERS, seed), iterations, rng)
    case = Case(picture, stack, natural.background(objective))
    paces = [pace(case) for _ in range(2)]
    counting.steps = counting.renders = 0
    cpu, wall = time.process_time(), time.perf_counter()
    found = variant.fit(case._replace(stack=stack.as_one_layer()) if variant.is_single else case)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    steps, renders = counting.steps, counting.renders
    paces += [pace(case) for _ in range(2)]
    pictures = levels.paint(split(found, stack.ends), case.background)
    shown = LevelFit(pictures, references, stack.ends, wall, iterations).psnr(info)
    return {
        # splats of one layer are in no order
        **per_level("psnr", [None] * (LAYERS - 1) + shown[-1:] if variant.is_single else shown),
        "steps": steps,
        "renders": renders,
        "cpu_s": cpu,
        "wall_s": wall,
        "pace_ms": fmean(paces),
    }


def pace(case: Case, iterations: int = 10) -> float:
    """CPU milliseconds of an iteration as it is now."""
    rng = np.random.default_rng(0)
    case = case._replace(stack=case.stack._replace(iterations=iterations, rng=rng)).tuned(relocations=0)
    started = time.process_time()
    ideas.fit(case)
    return 1000 * (time.process_time() - started) / iterations


def measure(results: ResultsFile, options: argparse.Namespace) -> None:
    """What is not in the results yet, all pictures of one variant before the next."""
    pictures = [read_picture(path) for path in find(options.folders)]
    if pictures:  # kernels are loaded once, and that is no fit's time
        measure_one(pictures[0], VARIANTS["default"], options.splats, iterations=30, seed=0)
    for name in options.variants:
        for seed in options.seeds:
            for picture in pictures:
                values = (picture.name, name, options.splats, options.iterations, seed)
                keys = dict(zip(KEYS, values, strict=True))
                if not results.has(**keys):
                    row = measure_one(picture, VARIANTS[name], options.splats, options.iterations, seed)
                    results.add(**keys, **row)


def gains(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """A row of `GAINS` for each variant that has rows with a counterpart, setting by setting."""
    settings: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, dict[str, str]]]] = {}
    for row in rows:
        cases = settings.setdefault((row["splats"], row["iterations"]), {})
        cases.setdefault((row["picture"], row["seed"]), {})[row["variant"]] = row
    return [
        {"splats": splats, "iterations": iterations, **told}
        for (splats, iterations), cases in settings.items()
        for name in VARIANTS
        if (told := _gain(name, list(cases.values()))) is not None
    ]


def _gain(name: str, cases: list[dict[str, dict[str, str]]]) -> dict[str, Any] | None:
    """That of one variant over cases, which are rows by variant."""
    variant = VARIANTS[name]
    held = [case for case in cases if {name, variant.against} <= set(case)]
    if not held:
        return None
    pairs = [(case[name], case[variant.against]) for case in held]
    differences = [
        [float(row[column]) - float(other[column]) for row, other in pairs if row[column] and other[column]]
        for column in level_columns("psnr")
    ]
    family = "one layer" if variant.is_single else "default"
    curve = [key for key, one in VARIANTS.items() if one.group == family]
    at_cost = [gain_at_cost(case[name], [case[key] for key in curve if key in case]) for case in held]
    within = [gain for gain in at_cost if gain is not None]
    return {
        "group": variant.group,
        "variant": name,
        "against": variant.against,
        "rows": len(pairs),
        **per_level("gain", [fmean(values) if values else None for values in differences]),
        "cost_ratio": math.exp(fmean(math.log(cost(row) / cost(other)) for row, other in pairs)),
        "gain_3_at_equal_cost": fmean(within) if len(within) == len(pairs) else None,
    }


def cost(row: dict[str, str]) -> float:
    """In iterations of the package's fit."""
    return 1000 * float(row["cpu_s"]) / float(row["pace_ms"])


def gain_at_cost(row: dict[str, str], curve: list[dict[str, str]]) -> float | None:
    """dB of the top level over what the package's fit, longer or shorter, has at the row's cost; None outside those."""
    points = sorted((math.log(cost(other)), float(other["psnr_3"])) for other in curve)
    own = math.log(cost(row))
    # the ends are measured too, and their costs are not exact
    if not points or not points[0][0] - 0.1 <= own <= points[-1][0] + 0.1:
        return None
    return float(row["psnr_3"]) - float(np.interp(own, *zip(*points, strict=True)))


def report(rows: list[dict[str, str]]) -> None:
    """Print what each idea gained, and write it down."""
    told = gains(rows)
    if not told:
        return
    with ResultsFile("ablation-gains", GAINS, is_shown=False) as results:
        for row in told:
            results.add(**row)
    titles = ("against", "level 1", "level 2", "level 3", "cost", "at equal cost")
    print(f"{'iterations':>10}  {'':36}{titles[0]:>20}" + "".join(f"{title:>15}" for title in titles[1:]))
    for row in told:
        numbers = [*(row[column] for column in level_columns("gain")), row["cost_ratio"], row["gain_3_at_equal_cost"]]
        cells = ["" if number is None else f"{number:.2f}" for number in numbers]
        print(
            f"{row['iterations']:>10}  {row['variant']:36}{row['against']:>20}"
            + "".join(f"{cell:>15}" for cell in cells)
        )


def main() -> None:
    """Measure, then report."""
    parser = parser_of(__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=PICTURES)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--splats", type=int, default=5000, metavar="N", help="all layers together")
    parser.add_argument("--iterations", type=int, default=500, metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the rasteriser")
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    with ResultsFile("ablation", COLUMNS, KEYS) as results:
        measure(results, options)
    report(results.rows)


if __name__ == "__main__":
    experiment.run(main)
