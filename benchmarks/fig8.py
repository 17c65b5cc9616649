"""Figure 8 of the paper: what each level costs, in bytes of the file, and how good it is.

    python benchmarks/fig8.py [FILE ...] [--frames N] [--scalability quality]
                              [--strategy monolithic sequential joint] [--splats 5000 7000 9000]
                              [--preset paper] [--iterations N]

FILEs are pictures, clips or folders of them (default: Kodak and the clips under PGSVC_DATA).  All are encoded and
quantised, by `monolithic` with a stream for each level; rates are bytes of the streams, PSNR, MS-SSIM and VMAF those
of decoded frames.  Rows are added to `results/fig8.tsv`; those that are there are not measured again.  The plot,
averages over files, is `results/fig8-SCALABILITY.png`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import experiment
import plots
import sweep
from experiment import per_level
from quality import METRICS
from results_file import ResultsFile
from streams import encode_levels, measure_levels

RATES = ("bytes", "bpp", "kbps")  # bits per pixel of the level's own size
COLUMNS = [*sweep.KEYS, *experiment.level_columns(*RATES, *METRICS), "seconds"]
MARKERS = "osD"  # of levels 1 to 3


def measure_one(path: Path, keys: dict[str, Any], frames: int | None) -> dict[str, Any]:
    """What the streams of a file cost and show."""
    encoded = encode_levels(path, frames, sweep.config_of(keys))
    described = [level.describe() for level in encoded.levels]
    qualities = measure_levels(path, frames, encoded)
    row = {"seconds": encoded.seconds}
    for rate in RATES:
        row |= per_level(rate, [level[rate] for level in described])
    for metric in METRICS:
        row |= per_level(metric, [getattr(quality, metric) for quality in qualities])
    return row


def plot(scalability: str, means: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """A panel for stills and one for clips; a line joins the levels of one budget."""
    figure, axes = plots.panels(1, len(means), width=6.0)
    for (kind, entries), axis in zip(means.items(), axes[0], strict=True):
        for strategy in options.strategy:
            for budget in options.splats:
                points = [
                    (mean["bpp"], mean["psnr"])
                    for mean in entries
                    if (mean["scalability"], mean["strategy"], mean["splats"]) == (scalability, strategy, budget)
                ]
                axis.plot(*zip(*points, strict=True), color=plots.COLORS[strategy], alpha=0.6)
                for point, marker in zip(points, MARKERS, strict=True):
                    axis.plot(*point, color=plots.COLORS[strategy], marker=marker, markersize=4)
            axis.plot([], [], color=plots.COLORS[strategy], label=strategy)
        files = entries[0]["files"]
        axis.set(xlabel="bits per pixel of the stream", ylabel="PSNR, dB")
        axis.set_title(f"{kind}: {files} file{'s' * (files > 1)}, {scalability} scalability, preset {options.preset}")
    for level, marker in enumerate(MARKERS, start=1):
        axes[0, 0].plot([], [], color="gray", marker=marker, linestyle="", label=f"level {level}")
    axes[0, 0].legend(fontsize="small")
    plots.save(figure, f"fig8-{scalability}")


def main() -> None:
    """Measure, then plot."""
    options = sweep.parse(__doc__, ["quality"])
    means = {}
    with ResultsFile("fig8", COLUMNS, sweep.KEYS) as results:
        for kind, files in sweep.find_kinds(options).items():
            sweep.measure(files, results, options, measure_one)
            means[kind] = sweep.averages(files, results, options, ["bpp", "psnr"])
    for scalability in options.scalability if means else []:
        plot(scalability, means, options)


if __name__ == "__main__":
    experiment.run(main)
