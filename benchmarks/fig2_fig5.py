"""Figures 2 and 5 of the paper: gradient and loss over the iterations of a fit, for each way to train.

    python benchmarks/fig2_fig5.py [PICTURE] [--strategy monolithic sequential joint-random joint]
                                   [--splats N] [--preset paper] [--iterations N]

Strategy `monolithic` is the single layer of Fig. 2a; `sequential` is Fig. 2b, its layers one after the other;
`joint-random` and `joint` are Fig. 5a and 5b.  All have the same splats and the same iterations at most.  PICTURE
may be a clip, of which the first frame is taken (default: the first of Kodak under PGSVC_DATA).

Rows go to `results/fig2-fig5.tsv`, one for each curve, and to `results/fig2-fig5-PICTURE.tsv`, means and extremes
over short windows of iterations.  What is there is not fitted again.  The plot is `results/fig2-fig5-PICTURE.png`.
Losses are what is descended: over one level where one is trained, over two in joint training.
"""

from __future__ import annotations

import argparse
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import experiment
import numpy as np
import plots
from experiment import LAYERS, per_level
from fits import fit_levels, read_picture
from material import KODAK, find
from numpy.typing import NDArray
from results_file import ResultsFile

from pgsvc_codec.train.descent import Iteration

TITLES = {
    "monolithic": "single layer (2a)",
    "sequential": "sequential (2b)",
    "joint-random": "joint, random (5a)",
    "joint": "joint, cyclic (5b)",
}
KEYS = ["picture", *experiment.KEYS]
COLUMNS = [
    *KEYS,
    "log10_gradient_std",  # over single iterations, after the first third
    "log10_gradient_jump",  # mean size of its change from one iteration to the next, likewise
    "loss_end",  # mean over the last hundredth
    *experiment.level_columns("psnr"),
    "iterations_spent",
    "seconds",
]
CURVES = [
    *KEYS, "iteration", "count", "layer", "loss", "loss_min", "loss_max", "gradient", "gradient_min", "gradient_max",
]  # fmt: skip
WINDOWS = 250  # of a curve at most, so that its file stays small, beyond one for each layer


class Curve:
    """What the iterations of a fit saw."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, float, float]] = []

    def observe(self, layer: int, iteration: Iteration) -> None:
        """One more."""
        self._seen.append((layer, iteration.loss, iteration.gradient_norm))

    @property
    def losses(self) -> NDArray[np.float64]:
        """[iterations]."""
        return np.array([loss for _, loss, _ in self._seen])

    @property
    def gradients(self) -> NDArray[np.float64]:
        """[iterations] norms."""
        return np.array([norm for _, _, norm in self._seen])

    def summary(self) -> dict[str, Any]:
        """How the curve runs in its last two thirds, and where it ends."""
        logs = np.log10(self.gradients[len(self._seen) // 3 :])
        return {
            "log10_gradient_std": float(logs.std()),
            "log10_gradient_jump": float(np.abs(np.diff(logs)).mean()) if len(logs) > 1 else None,
            "loss_end": f"{self.losses[-max(1, len(self._seen) // 100) :].mean():.5g}",
        }

    def windows(self) -> list[dict[str, Any]]:
        """Means and extremes over stretches of equal length, none of which lies in two layers."""
        step = -(-len(self._seen) // WINDOWS)
        losses, gradients = self.losses, self.gradients
        rows = []
        first = 0
        for layer, group in groupby(self._seen, key=lambda seen: seen[0]):
            end = first + len(list(group))
            for start in range(first, end, step):
                part = slice(start, min(start + step, end))
                rows.append(
                    {"iteration": start, "count": part.stop - start, "layer": layer}
                    | _extent("loss", losses[part])
                    | _extent("gradient", gradients[part])
                )
            first = end
        return rows


def _extent(name: str, values: NDArray[np.float64]) -> dict[str, str]:
    found = {name: values.mean(), f"{name}_min": values.min(), f"{name}_max": values.max()}
    return {key: f"{value:.5g}" for key, value in found.items()}


def measure(path: Path, results: ResultsFile, curves: ResultsFile, options: argparse.Namespace) -> None:
    """Fit what is not in the results yet."""
    for number, strategy in enumerate(options.strategy, start=1):
        keys = {"picture": path.name, **experiment.keys_of(options, strategy, options.splats)}
        if results.has(**keys):
            continue
        print(f"[{number}/{len(options.strategy)}]", end=" ", flush=True)
        curve = Curve()
        picture = read_picture(path)
        layers = 1 if strategy == "monolithic" else LAYERS
        fit = fit_levels(picture, experiment.config_of(keys, layers=layers), curve.observe)
        for window in curve.windows():
            if not curves.has(**keys, **window):  # of a run that was interrupted here
                curves.add(**keys, **window)
        results.add(
            **keys,
            **curve.summary(),
            **per_level("psnr", [None] * (LAYERS - layers) + fit.psnr(picture.info)),
            iterations_spent=fit.iterations,
            seconds=fit.seconds,
        )


def plot(path: Path, curves: ResultsFile, options: argparse.Namespace) -> None:
    """One panel for each strategy: means, and bands between the extremes."""
    figure, axes = plots.panels(1, len(options.strategy), width=4.5)
    losses = [axis.twinx() for axis in axes[0]]
    for strategy, gradient_axis, loss_axis in zip(options.strategy, axes[0], losses, strict=True):
        keys = {"picture": path.name, **experiment.keys_of(options, strategy, options.splats)}
        rows = curves.matching(**keys)
        places = [int(row["iteration"]) for row in rows]
        for axis, name, color in ((gradient_axis, "gradient", "tab:blue"), (loss_axis, "loss", "tab:red")):
            mean, least, most = ([float(row[name + end]) for row in rows] for end in ("", "_min", "_max"))
            axis.fill_between(places, least, most, color=color, alpha=0.25, linewidth=0)
            axis.plot(places, mean, color=color, linewidth=0.8, label=name)
            axis.set_yscale("log")
            axis.tick_params(axis="y", which="both", colors=color)
        for before, after in pairwise(rows):
            if before["layer"] != after["layer"]:
                gradient_axis.axvline(int(after["iteration"]), color="black", linestyle="--", linewidth=0.8)
        gradient_axis.set(title=TITLES[strategy], xlabel="iteration")
    for shared in (axes[0], losses):
        low, high = (side(axis.get_ylim()[place] for axis in shared) for side, place in ((min, 0), (max, 1)))
        for axis in shared:
            axis.set_ylim(low / 1.1, high * 1.1)
    axes[0, 0].set_ylabel("gradient norm", color="tab:blue")
    losses[-1].set_ylabel("loss", color="tab:red")
    plots.save(figure, f"fig2-fig5-{path.stem}")


def main() -> None:
    """Fit, then plot."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=KODAK)
    experiment.add_options(parser, experiment.SPLATS[:1], list(TITLES), list(TITLES))
    options = parser.parse_args()
    for path in find([options.picture])[:1]:
        with (
            ResultsFile("fig2-fig5", COLUMNS, KEYS) as results,
            ResultsFile(f"fig2-fig5-{path.stem}", CURVES, [*KEYS, "iteration"], is_shown=False) as curves,
        ):
            measure(path, results, curves, options)
            plot(path, curves, options)


if __name__ == "__main__":
    experiment.run(main)
