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

import numpy as np
from fits import KODAK, fit_levels, pictures, read_picture
from results_file import RESULTS, ResultsFile

from pgsvc_codec.config import PRESETS, STRATEGIES, EncodeConfig

LAYERS = 3  # in equal parts
KEYS = ["picture", "strategy", "splats", "preset", "iterations", "seed"]
LEVELS = range(1, LAYERS + 1)
COLUMNS = [
    *KEYS,
    *(f"psnr_{level}" for level in LEVELS),
    *(f"ms_ssim_{level}" for level in LEVELS),
    "lpips",
    "iterations_spent",
    "seconds",
]
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
    sources = pictures(options.folders)
    iterations = options.iterations or PRESETS[options.preset]
    for number, ((splats, strategy), path) in enumerate(product(settings, sources)):
        keys = {
            "picture": path.name,
            "strategy": strategy,
            "splats": splats,
            "preset": options.preset,
            "iterations": iterations,
            "seed": options.seed,
        }
        if results.has(**keys):
            continue
        print(f"[{number + 1}/{len(settings) * len(sources)}]", end=" ", flush=True)
        picture = read_picture(path)
        config = EncodeConfig(
            layers=LAYERS,
            splats=splats,
            strategy=strategy,
            preset=options.preset,
            iterations=iterations,
            seed=options.seed,
        )
        fit = fit_levels(picture, config)
        results.add(
            **keys,
            **{f"psnr_{level}": value for level, value in zip(LEVELS, fit.psnr(picture.info), strict=True)},
            **{f"ms_ssim_{level}": value for level, value in zip(LEVELS, fit.ms_ssim(picture.info), strict=True)},
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
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    means = summary(rows)
    for mean in means:
        levels = " / ".join(f"{mean[f'psnr_{level}']:.2f}" for level in LEVELS)
        similarity = f"MS-SSIM {mean['ms_ssim_3']:.4f}" if "ms_ssim_3" in mean else ""
        print(
            f"{mean['strategy']:>12} {mean['splats']:>6} splats, preset {mean['preset']}, {mean['iterations']} "
            f"iterations, {mean['pictures']} pictures: {levels} dB, {similarity}, {mean['seconds']:.0f} s"
        )
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, column, name, place in zip(axes, ("psnr_3", "ms_ssim_3"), ("PSNR, dB", "MS-SSIM"), (0, 1), strict=True):
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
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(RESULTS / "table1.png", dpi=100)


def main() -> None:
    """Measure, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[KODAK])
    parser.add_argument("--splats", nargs="+", type=int, default=[5000, 7000, 9000])
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, default=["joint", "sequential"])
    parser.add_argument("--preset", choices=list(PRESETS), default="paper")
    parser.add_argument("--iterations", type=int, help="over all layers; default: the preset's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lpips", type=Path, metavar="WEIGHTS", help="of LPIPS, see lpips.py; default: no LPIPS")
    options = parser.parse_args()
    with ResultsFile("table1", COLUMNS, KEYS) as results:
        measure(results, options)
    report(results.rows)


if __name__ == "__main__":
    main()
