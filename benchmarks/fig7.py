"""Figure 7 of the paper: quality and resolution scalability of the strategies against the number of splats.

    python benchmarks/fig7.py [FILE ...] [--frames N] [--scalability quality resolution]
                              [--strategy monolithic sequential joint] [--splats 5000 7000 9000]
                              [--preset paper] [--iterations N]

FILEs are pictures, clips or folders of them (default: Kodak and the clips under PGSVC_DATA).  Pictures are float fits,
as in Table 1; clips are encoded, and measured from what the decoder shows of the stream.  Rows are added to
`results/fig7.tsv`; those that are there are not measured again.  Averages over files, and where they lie between the
least and the greatest of their level (Eq. 12, over the strategies and budgets of this run), are
`results/fig7-averages.tsv`; the plots are `results/fig7-stills.png` and `results/fig7-clips.png`, with the
normalised values for resolution scalability, as in the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import experiment
import plots
import sweep
from experiment import LEVELS, per_level
from fits import LevelFit, Picture, fit_levels, read_picture
from material import is_picture
from quality import METRICS, LevelMeter, Quality
from results_file import ResultsFile
from streams import encode_levels, measure_levels

from pgsvc_codec.config import SCALABILITIES

COLUMNS = [*sweep.KEYS, *experiment.level_columns(*METRICS, "splats"), "seconds"]
NORMALISED = {metric: f"{metric}_normalised" for metric in METRICS}
AVERAGES = ["kind", "files", *sweep.KEYS[1:], "level", *METRICS, *NORMALISED.values()]


def measure_one(path: Path, keys: dict[str, Any], frames: int | None) -> dict[str, Any]:
    """A still from a float fit, a clip from its stream."""
    if is_picture(path):
        picture = read_picture(path)
        fit = fit_levels(picture, sweep.config_of(keys))
        levels, splats, seconds = measure_fit(picture, fit), fit.splats, fit.seconds
    else:
        encoded = encode_levels(path, frames, sweep.config_of(keys))
        levels, seconds = measure_levels(path, frames, encoded), encoded.seconds
        splats = [level.describe()["splats"] for level in encoded.levels]
    row = {"seconds": seconds, **per_level("splats", splats)}
    for metric in METRICS:
        row |= per_level(metric, [getattr(level, metric) for level in levels])
    return row


def measure_fit(picture: Picture, fit: LevelFit) -> list[Quality]:
    """How good every level is, each at its own size."""
    levels = []
    for reference, shown in zip(fit.references, fit.pictures, strict=True):
        rows, columns = shown[0].shape
        with LevelMeter(replace(picture.info, width=columns, height=rows)) as meter:
            meter.add(reference, shown)
            levels.append(meter.finish())
    return levels


def normalise(means: Sequence[dict[str, Any]], metric: str) -> None:
    """Add where each value lies in the range of its level and scalability, 0 to 1 (paper, Eq. 12).

    None where there is no value, or no range because all are equal.
    """
    for mean in means:
        peers = [
            other[metric]
            for other in means
            if (other["level"], other["scalability"]) == (mean["level"], mean["scalability"])
            and other[metric] is not None
        ]
        has_range = mean[metric] is not None and max(peers) > min(peers)
        mean[NORMALISED[metric]] = (mean[metric] - min(peers)) / (max(peers) - min(peers)) if has_range else None


def plot(kind: str, means: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """A row for each scalability, a column for each metric, a line for each strategy and level."""
    figure, axes = plots.panels(len(options.scalability), len(METRICS))
    for (scalability, (metric, title)), axis in zip(
        product(options.scalability, METRICS.items()), axes.flat, strict=True
    ):
        is_normalised = scalability == "resolution"
        column = NORMALISED[metric] if is_normalised else metric
        for strategy, level in product(options.strategy, LEVELS):
            points = [
                (mean["splats"], mean[column])
                for mean in means
                if (mean["scalability"], mean["strategy"], mean["level"]) == (scalability, strategy, level)
                and mean[column] is not None
            ]
            if points:
                axis.plot(
                    *zip(*sorted(points), strict=True),
                    color=plots.COLORS[strategy],
                    linestyle=plots.LINES[level - 1],
                    marker=".",
                    label=f"{strategy}, level {level}",
                )
        axis.set(title=f"{scalability} scalability", xlabel="splats, all layers")
        axis.set_ylabel(f"{metric.replace('_', '-').upper()}, normalised per level" if is_normalised else title)
    axes[0, 0].legend(fontsize="x-small")
    files = means[0]["files"]
    figure.suptitle(f"{kind}: {files} file{'s' * (files > 1)}, preset {options.preset}")
    plots.save(figure, f"fig7-{kind}")


def main() -> None:
    """Measure, average, plot."""
    options = sweep.parse(__doc__, SCALABILITIES)
    kinds = sweep.find_kinds(options)
    with (
        ResultsFile("fig7", COLUMNS, sweep.KEYS) as results,
        ResultsFile("fig7-averages", AVERAGES, is_shown=False) as written,
    ):
        for kind, files in kinds.items():
            sweep.measure(files, results, options, measure_one)
            means = sweep.averages(files, results, options, list(METRICS))
            for metric in METRICS:
                normalise(means, metric)
            for mean in means:
                written.add(kind=kind, **mean)
            plot(kind, means, options)


if __name__ == "__main__":
    experiment.run(main)
