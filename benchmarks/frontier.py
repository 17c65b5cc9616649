"""What quality the presets have for what time: stills, unquantised and coded.

    python benchmarks/frontier.py [--pictures FILE ..] [--preset ultrafast .. placebo] [--splats 5000] [--threads 2]

FILEs are pictures or folders of them (default: four of Kodak under PGSVC_DATA).  Every fit is made here and now, in
three equal layers.  Rows are added to `results/frontier.tsv`; those that are there are not measured again, unless the
preset has other iterations by now.  Then averages are printed, and plotted to `results/frontier.png`.

kind "float" is the fit alone; "coded" is a whole encode, PSNR and bytes those of its stream.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import experiment
import numba
import numpy as np
import plots
from experiment import LAYERS, level_columns, parser_of, per_level
from fits import LevelFit, Picture, plan_of, read_picture
from material import KODAK, find
from results_file import ResultsFile

from pgsvc_codec.config import PRESETS, EncodeConfig, EncodePlan
from pgsvc_codec.encoder import encode
from pgsvc_codec.media.source import open_source
from pgsvc_codec.render.backend import load
from pgsvc_codec.train.fit import fit_float
from pgsvc_codec.train.levels import LevelSizes

PICTURES = [KODAK / f"kodim{number:02}.png" for number in (5, 7, 19, 23)]
KINDS = {"float": "o-", "coded": "s--"}  # and how they are plotted
NAMES = [name for name in PRESETS if name != "paper"]  # which says nothing about time
KEYS = ["picture", "kind", "preset", "iterations", "splats", "threads", "seed"]
COLUMNS = [*KEYS, *level_columns("psnr"), "wall_s", "cpu_s", "s_per_megapixel", "size_bytes", "bits_per_splat"]


def fit_now(picture: Picture, plan: EncodePlan) -> LevelFit:
    """A float fit that is neither taken from an earlier run nor watched."""
    info = picture.info
    levels = LevelSizes(info, plan.level_sizes, load("cpu"))
    started = time.perf_counter()
    objective, references = levels.read(picture.frame)
    fit = fit_float(objective, plan, np.random.default_rng([plan.seed, 0]))
    seconds = time.perf_counter() - started
    return LevelFit.of(levels, references, fit, seconds, plan.iterations_intra)


def measure_float(path: Path, config: EncodeConfig, plan: EncodePlan) -> dict[str, Any]:
    """What the columns say of a float fit."""
    picture = read_picture(path)
    cpu = time.process_time()
    fit = fit_now(picture, plan)
    cpu = time.process_time() - cpu
    return {
        **per_level("psnr", fit.psnr(picture.info)),
        "wall_s": fit.seconds,
        "cpu_s": cpu,
        "size_bytes": None,
        "bits_per_splat": None,
    }


def measure_coded(path: Path, config: EncodeConfig, plan: EncodePlan) -> dict[str, Any]:
    """What the columns say of an encode."""
    with open_source(str(path), frames=1) as source, io.BytesIO() as sink:
        cpu = time.process_time()
        report = encode(source, sink, config)
        cpu = time.process_time() - cpu
        size_bytes = len(sink.getvalue())
    return {
        **per_level("psnr", [level.psnr for level in report.levels]),
        "wall_s": report.seconds,
        "cpu_s": cpu,
        "size_bytes": size_bytes,
        "bits_per_splat": 8 * size_bytes / plan.splats,
    }


MEASURES = {"float": measure_float, "coded": measure_coded}


def keys_of(path: Path, kind: str, config: EncodeConfig, plan: EncodePlan, threads: int) -> dict[str, Any]:
    """What `KEYS` are in one measurement."""
    values = (path.name, kind, config.preset, plan.iterations_intra, plan.splats, threads, config.seed)
    return dict(zip(KEYS, values, strict=True))


def measure(results: ResultsFile, options: argparse.Namespace) -> list[dict[str, str]]:
    """Measure what is not in the results yet; the rows that were asked for."""
    asked: list[dict[str, str]] = []
    paths = find(options.pictures)
    if paths:  # kernels are loaded once, and that is no fit's time
        measure_coded(paths[0], *_settings(paths[0], options, NAMES[0], iterations=2))
    for preset in options.preset:
        for path in paths:
            config, plan = _settings(path, options, preset)
            info = read_picture(path).info
            for kind, measure_one in MEASURES.items():
                keys = keys_of(path, kind, config, plan, options.threads)
                if not results.has(**keys):
                    values = measure_one(path, config, plan)
                    pace = 1e6 * values["wall_s"] / (info.width * info.height)
                    results.add(**keys, **values, s_per_megapixel=pace)
                asked += results.matching(**keys)
    return asked


def _settings(
    path: Path, options: argparse.Namespace, preset: str, iterations: int | None = None
) -> tuple[EncodeConfig, EncodePlan]:
    config = EncodeConfig(
        profile="baseline",
        layers=LAYERS,
        splats=options.splats,
        preset=preset,
        iterations=iterations,
        seed=options.seed,
    )
    return config, plan_of(read_picture(path), config)


def report(rows: Sequence[dict[str, str]]) -> None:
    """Print averages over pictures and plot them."""
    figure, axes = plots.panels(1, 1, width=8.0, height=5.5)
    (axis,) = axes.flat
    for kind, line in KINDS.items():
        points = []
        for preset in NAMES:
            own = [row for row in rows if (row["kind"], row["preset"]) == (kind, preset)]
            if not own:
                continue
            means = {name: fmean(float(row[name]) for row in own if row[name]) for name in level_columns("psnr")}
            pace = math.exp(fmean(math.log(float(row["s_per_megapixel"])) for row in own))
            points.append((pace, means["psnr_3"], preset))
            bits = [float(row["bits_per_splat"]) for row in own if row["bits_per_splat"]]
            rate = f", {fmean(bits):.1f} bits per splat" if bits else ""
            shown = " / ".join(f"{value:.2f}" for value in means.values())
            told = f"{own[0]['iterations']} iterations, {len(own)} pictures"
            print(f"{kind:>6} {preset:>10}: {shown} dB, {pace:.1f} s per megapixel, {told}{rate}")
        if points:
            axis.plot([point[0] for point in points], [point[1] for point in points], line, label=kind)
            for pace, value, preset in points if kind == "float" else ():
                axis.annotate(preset, (pace, value), xytext=(0, 6), textcoords="offset points", ha="right")
    axis.set(xscale="log", xlabel="seconds per megapixel", ylabel=f"PSNR of level {LAYERS}, dB")
    axis.set_title("{splats} splats in {0} layers, {threads} threads".format(LAYERS, **rows[0]), fontsize="medium")
    axis.margins(0.12)
    axis.legend(loc="lower right")
    plots.save(figure, "frontier")


def main() -> None:
    """Measure, then report."""
    parser = parser_of(__doc__)
    parser.add_argument("--pictures", nargs="+", type=Path, default=PICTURES, metavar="FILE")
    parser.add_argument("--preset", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--splats", type=int, default=5000, metavar="N", help="all layers together")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    with ResultsFile("frontier", COLUMNS, KEYS) as results:
        rows = measure(results, options)
    if rows:
        report(rows)


if __name__ == "__main__":
    experiment.run(main)
