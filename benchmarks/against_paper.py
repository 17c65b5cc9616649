"""How much sooner preset medium has the quality that preset paper comes to, on one machine in one run.

    python benchmarks/against_paper.py [--stills FILE ..] [--clip FILE] [--limit 900] [--iterations N] [--threads 2]

Stills (default: kodim19 and kodim23 under PGSVC_DATA) are fitted unquantised, every iteration watched; the paper's fit
ends when it has converged, or at the limit in seconds, with the PSNR that it has reached then.  The clip (default:
park_joy) is coded as an I- and a P-frame: the paper gets as many iterations as the limit allows, medium as many as it
takes.  All have three equal layers and, per pixel, as many splats as a Kodak picture with 5000.  Medium is fitted
before and after the paper, and its seconds are the mean of both.  Rows are added to `results/against-paper.tsv`;
sources that are there are not measured again.

factor is the paper's seconds until its end over medium's until it passes that PSNR, factor_cpu the same of CPU time;
factor_near is that of wall seconds until each passes the paper's PSNR less 0.1 dB, which leaves out the paper's slow
end; factor_end compares the paper's whole fit with medium's whole fit.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import experiment
import numba
import numpy as np
from experiment import LAYERS, parser_of
from fits import Picture, plan_of, read_picture
from material import DATA, KODAK, PICTURES, find
from numpy.typing import NDArray
from progress import Ticker
from results_file import ResultsFile

from pgsvc_codec.config import EncodeConfig
from pgsvc_codec.encoder import encode
from pgsvc_codec.media.source import open_source
from pgsvc_codec.render.backend import load
from pgsvc_codec.render.reference import StepResult
from pgsvc_codec.splats import Splats
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.levels import LevelSizes
from pgsvc_codec.train.objective import Objective

STILLS = [KODAK / "kodim19.png", KODAK / "kodim23.png"]
CLIP = DATA / "park_joy_480x270_10f.y4m"
DENSITY = 5000 / (768 * 512)  # splats per pixel
NEAR = 0.1  # dB
PILOT = 100  # iterations that tell how long others will take
TRIALS = (0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8)  # of medium's iterations, to find how many the clip needs
KEYS = ["source", "frames", "splats", "limit_s", "threads", "seed"]
COLUMNS = [
    *KEYS, "paper_psnr", "paper_iterations", "is_converged", "paper_s", "paper_cpu_s", "medium_psnr",
    "medium_iterations", "medium_s", "medium_cpu_s", "medium_passing_iterations", "medium_passing_s",
    "medium_passing_cpu_s", "factor", "factor_cpu", "factor_near", "factor_end",
]  # fmt: skip


class Moment(NamedTuple):
    """Where a fit stands."""

    wall_s: float  # since it began
    cpu_s: float
    psnr: float  # of the top level, dB, before rounding to code values


class TimeUp(Exception):  # noqa: N818 - it is no error
    """A fit has used up its seconds."""


class Watched(Objective):
    """An objective that notes how good the top level is at every step.

    Args:
        objective: as it was.
        limit: seconds after which a step raises `TimeUp`.
    """

    def __init__(self, objective: Objective, limit: float) -> None:
        super().__init__((objective.width, objective.height), objective.targets, objective.rasterizer)
        self.moments: list[Moment] = []
        self._limit = limit
        self._started = time.perf_counter(), time.process_time()

    def step(
        self,
        splats: Splats,
        background: NDArray[np.float32],
        ends: Sequence[int],
        level_weights: Sequence[float],
        *,
        with_moments: bool = True,
    ) -> StepResult:
        """As `Objective.step`."""
        step = super().step(splats, background, ends, level_weights, with_moments=with_moments)
        samples = sum(plane.size for plane in self.targets[-1].picture)
        psnr = -10 * math.log10(step.squared_error[-1].sum() / samples)
        wall, cpu = self._started
        self.moments.append(Moment(time.perf_counter() - wall, time.process_time() - cpu, psnr))
        if self.moments[-1].wall_s > self._limit:
            raise TimeUp
        return step


class Course(NamedTuple):
    """A fit from beginning to end."""

    moments: list[Moment]  # of its iterations
    is_whole: bool  # rather than stopped at the limit

    @property
    def end(self) -> Moment:
        """The last one."""
        return self.moments[-1]

    def passing(self, psnr: float) -> int | None:
        """The first iteration that has a PSNR, None where none has."""
        return next((number for number, moment in enumerate(self.moments) if moment.psnr >= psnr), None)


def watch(picture: Picture, config: EncodeConfig, limit: float = math.inf) -> Course:
    """Fit a still, unquantised."""
    info = picture.info
    plan = plan_of(picture, config)
    levels = LevelSizes(info, plan.level_sizes, load("cpu"))
    watched = Watched(levels.read(picture.frame).objective, limit)
    ticker = Ticker(f"{picture.name}, preset {config.preset}", None)
    try:
        fit_float(
            watched,
            plan,
            np.random.default_rng([plan.seed, 0]),
            lambda iteration: ticker.tick(len(watched.moments), f"{watched.moments[-1].psnr:.2f} dB"),
        )
    except TimeUp:
        return Course(watched.moments, is_whole=False)
    return Course(watched.moments, is_whole=True)


def compare(paper: Course, medium: Sequence[Course], near: float = NEAR) -> dict[str, Any]:
    """The values of a row; those that medium has nothing for are None.

    Args:
        medium: the same fit, at different times.
    """
    same = medium[0]
    passing = same.passing(paper.end.psnr)
    nearly = same.passing(paper.end.psnr - near)
    paper_nearly = paper.passing(paper.end.psnr - near)

    def seconds(iteration: int | None, name: str) -> float | None:
        return None if iteration is None else fmean(getattr(course.moments[iteration], name) for course in medium)

    def ratio(slow: float, fast: float | None) -> float | None:
        return None if fast is None else slow / fast

    whole = fmean(course.end.wall_s for course in medium)
    return {
        "paper_psnr": paper.end.psnr,
        "paper_iterations": len(paper.moments),
        "is_converged": paper.is_whole,
        "paper_s": paper.end.wall_s,
        "paper_cpu_s": paper.end.cpu_s,
        "medium_psnr": same.end.psnr,
        "medium_iterations": len(same.moments),
        "medium_s": whole,
        "medium_cpu_s": fmean(course.end.cpu_s for course in medium),
        "medium_passing_iterations": passing,
        "medium_passing_s": seconds(passing, "wall_s"),
        "medium_passing_cpu_s": seconds(passing, "cpu_s"),
        "factor": ratio(paper.end.wall_s, seconds(passing, "wall_s")),
        "factor_cpu": ratio(paper.end.cpu_s, seconds(passing, "cpu_s")),
        "factor_near": ratio(paper.moments[paper_nearly].wall_s, seconds(nearly, "wall_s")),
        "factor_end": paper.end.wall_s / whole,
    }


def measure_still(path: Path, config: EncodeConfig, limit: float) -> dict[str, Any]:
    """A row, but for its keys."""
    picture = read_picture(path)
    medium, paper_config = _presets(config)
    watch(picture, replace(medium, iterations=2))  # loads the kernels
    before = watch(picture, medium)
    paper = watch(picture, paper_config, limit)
    return compare(paper, [before, watch(picture, medium)])


def code(path: Path, frames: int, config: EncodeConfig) -> Moment:
    """Encode a clip."""
    with open_source(str(path), frames=frames) as source, io.BytesIO() as sink:
        wall, cpu = time.perf_counter(), time.process_time()
        report = encode(source, sink, config)
        return Moment(time.perf_counter() - wall, time.process_time() - cpu, report.levels[-1].psnr)


def measure_clip(path: Path, frames: int, config: EncodeConfig, limit: float) -> dict[str, Any]:
    """A row, but for its keys.  Encodes tell no PSNR on the way, so that medium is run with ever more iterations."""
    medium, paper = _presets(config)
    pilots = [code(path, frames, replace(preset, iterations=PILOT)) for preset in (medium, paper, paper)]
    most = min(math.ceil(PILOT * limit / pilots[-1].wall_s), _iterations(path, paper))
    whole = code(path, frames, medium)
    slow = code(path, frames, replace(paper, iterations=most))
    again = code(path, frames, medium)
    iterations = _iterations(path, medium)
    courses = []
    for share in (*TRIALS, 1.0):
        count = max(1, round(share * iterations))
        moment = code(path, frames, replace(medium, iterations=count)) if share < 1 else whole
        courses.append((count, moment))
        if moment.psnr >= slow.psnr:
            break
    passing = next(((count, moment) for count, moment in courses if moment.psnr >= slow.psnr), None)
    whole_s = fmean([whole.wall_s, again.wall_s])
    return {
        "paper_psnr": slow.psnr,
        "paper_iterations": most,
        "is_converged": False,
        "paper_s": slow.wall_s,
        "paper_cpu_s": slow.cpu_s,
        "medium_psnr": whole.psnr,
        "medium_iterations": iterations,
        "medium_s": whole_s,
        "medium_cpu_s": fmean([whole.cpu_s, again.cpu_s]),
        "medium_passing_iterations": passing[0] if passing else None,
        "medium_passing_s": passing[1].wall_s if passing else None,
        "medium_passing_cpu_s": passing[1].cpu_s if passing else None,
        "factor": slow.wall_s / passing[1].wall_s if passing else None,
        "factor_cpu": slow.cpu_s / passing[1].cpu_s if passing else None,
        "factor_near": None,
        "factor_end": slow.wall_s / whole_s,
    }


def _presets(config: EncodeConfig) -> tuple[EncodeConfig, EncodeConfig]:
    """Medium, with the iterations of `config`, and paper, which ends by itself."""
    return replace(config, preset="medium"), replace(config, preset="paper", iterations=None)


def _iterations(path: Path, config: EncodeConfig) -> int:
    info = read_picture(path).info
    return config.resolve(info.width, info.height, info.rate, still=False).iterations_intra


def measure(results: ResultsFile, options: argparse.Namespace) -> None:
    """What is not in the results yet."""
    clips = find([options.clip], suffixes=())
    for path in find(options.stills, PICTURES) + clips:
        frames = 2 if path in clips else 1
        info = read_picture(path).info
        splats = round(DENSITY * info.width * info.height)
        values = (path.name, frames, splats, float(options.limit), options.threads, options.seed)
        keys = dict(zip(KEYS, values, strict=True))
        if results.has(**keys):
            continue
        config = EncodeConfig(
            profile="baseline",
            layers=LAYERS,
            splats=splats,
            iterations=options.iterations,
            seed=options.seed,
            keyint=frames,
            scenecut=0,
        )
        if path in clips:
            row = measure_clip(path, frames, config, options.limit)
        else:
            row = measure_still(path, config, options.limit)
        results.add(**keys, **row)


def report(rows: Sequence[dict[str, str]]) -> None:
    """Print the factors."""
    for row in rows:
        passing = f"passed by medium after {row['medium_passing_s']} s" if row["factor"] else "which medium never has"
        factor = f", {float(row['factor']):.0f} times sooner" if row["factor"] else ""
        print(
            f"{row['source']}: paper {float(row['paper_psnr']):.2f} dB in {float(row['paper_s']):.0f} s, "
            f"{passing}{factor}; medium {float(row['medium_psnr']):.2f} dB in {float(row['medium_s']):.1f} s"
        )


def main() -> None:
    """Measure, then report."""
    parser = parser_of(__doc__)
    parser.add_argument("--stills", nargs="+", type=Path, default=STILLS, metavar="FILE")
    parser.add_argument("--clip", type=Path, default=CLIP, metavar="FILE")
    parser.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="of preset paper, per source")
    parser.add_argument("--iterations", type=int, metavar="N", help="of preset medium; default: the preset's")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    with ResultsFile("against-paper", COLUMNS, KEYS) as results:
        measure(results, options)
    report(results.rows)


if __name__ == "__main__":
    experiment.run(main)
