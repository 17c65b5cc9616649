"""Table 1 of the paper: quality against the number of splats, joint against sequential training, unquantised.

    python benchmarks/table1.py [FOLDER ...] [--splats 5000 7000 9000] [--strategy joint sequential]
                                [--preset paper] [--iterations N] [--lpips WEIGHTS]

FOLDERs hold pictures (default: Kodak under PGSVC_DATA).  Rows are added to `results/table1.tsv`; those that are there
are not measured again, so an interrupted run goes on where it was.  Then the averages over pictures are printed, and
plotted to `results/table1.png`, with the paper's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

import experiment
import numpy as np
import plots
from experiment import LEVELS, per_level
from fits import fit_levels, read_picture
from material import KODAK, find
from results_file import ResultsFile

from pgsvc_codec.config import STRATEGIES

KEYS = ["picture", *experiment.KEYS]
COLUMNS = [*KEYS, *experiment.level_columns("psnr", "ms_ssim"), "lpips", "iterations_spent", "seconds"]
PAPER = {  # Kodak, 24 pictures: PSNR, MS-SSIM, LPIPS
    ("joint", 5000): (28.5, 0.943, 0.271),
    ("joint", 7000): (29.4, 0.957, 0.223),
    ("joint", 9000): (30.2, 0.965, 0.189),
    ("sequential", 5000): (26.6, 0.918, 0.436),
    ("sequential", 7000): (27.3, 0.937, 0.380),
    ("sequential", 9000): (28.1, 0.948, 0.339),
}


def measure(results: ResultsFile, options: argparse.Namespace) -> None:
    """Fit and measure what is not in the results yet; all pictures at one setting before the next setting."""
    lpips = None
    if options.lpips is not None:
        from lpips import Lpips

        lpips = Lpips(options.lpips)
    settings = list(product(options.splats, options.strategy))
    sources = find(options.folders)
    for number, ((splats, strategy), path) in enumerate(product(settings, sources)):
        keys = {"picture": path.name, **experiment.keys_of(options, strategy, splats)}
        if results.has(**keys):
            continue
        print(f"[{number + 1}/{len(settings) * len(sources)}]", end=" ", flush=True)
        picture = read_picture(path)
        fit = fit_levels(picture, experiment.config_of(keys))
        results.add(
            **keys,
            **per_level("psnr", fit.psnr(picture.info)),
            **per_level("ms_ssim", fit.ms_ssim(picture.info)),
            lpips=lpips.distance(fit.references[-1], fit.pictures[-1], picture.info) if lpips else None,
            iterations_spent=fit.iterations,
            seconds=fit.seconds,
        )


def summary(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """Averages over pictures, one entry for each setting."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in KEYS[1:])].append(row)
    means = []
    for setting, group in sorted(groups.items()):
        values = {
            name: float(np.mean([float(row[name]) for row in group if row[name]]))
            for name in COLUMNS[len(KEYS) :]
            if any(row[name] for row in group)
        }
        means.append({**dict(zip(KEYS[1:], setting, strict=True)), "pictures": len(group), **values})
    return means


def report(rows: list[dict[str, str]]) -> None:
    """Print the averages and plot them."""
    means = summary(rows)
    for mean in means:
        levels = " / ".join(f"{mean[f'psnr_{level}']:.2f}" for level in LEVELS)
        similarity = f"MS-SSIM {mean['ms_ssim_3']:.4f}" if "ms_ssim_3" in mean else ""
        print(
            f"{mean['strategy']:>12} {mean['splats']:>6} splats, preset {mean['preset']}, {mean['iterations']} "
            f"iterations, {mean['pictures']} pictures: {levels} dB, {similarity}, {mean['seconds']:.0f} s"
        )
    # averages over other pictures do not compare
    means = [mean for mean in means if mean["pictures"] == max(other["pictures"] for other in means)]
    figure, axes = plots.panels(1, 2)
    for axis, column, name, place in zip(
        axes[0], ("psnr_3", "ms_ssim_3"), ("PSNR, dB", "MS-SSIM"), (0, 1), strict=True
    ):
        curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for mean in means:
            if column in mean:
                label = f"{mean['strategy']}, {mean['preset']}, {mean['iterations']} it., {mean['pictures']} pictures"
                curves[label].append((int(str(mean["splats"])), float(str(mean[column]))))
        for label, points in curves.items():
            axis.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
        for strategy in ("joint", "sequential"):
            points = [(splats, values[place]) for (name_, splats), values in PAPER.items() if name_ == strategy]
            axis.plot(*zip(*points, strict=True), "k--" if strategy == "joint" else "k:", label=f"paper, {strategy}")
        axis.set(xlabel="splats", ylabel=name)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    plots.save(figure, "table1")


def main() -> None:
    """Measure, then report."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[KODAK])
    experiment.add_options(parser, experiment.SPLATS, ("joint", "sequential"), STRATEGIES)
    parser.add_argument("--lpips", type=Path, metavar="WEIGHTS", help="of LPIPS, see lpips.py; default: no LPIPS")
    options = parser.parse_args()
    with ResultsFile("table1", COLUMNS, KEYS) as results:
        measure(results, options)
    report(results.rows)


if __name__ == "__main__":
    experiment.run(main)
