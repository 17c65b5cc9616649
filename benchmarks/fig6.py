"""Figure 6 of the paper: a crop of every level, strategy beside strategy, and the source.

    python benchmarks/fig6.py [PICTURE] [--crop X Y] [--crop-size N] [--scalability quality resolution]
                              [--strategy pruning monolithic sequential joint]
                              [--splats N] [--preset paper] [--iterations N]

PICTURE may be a clip, of which the first frame is taken (default: the first of Kodak under PGSVC_DATA).  The crop is
by default where there is most detail.  Writes a sheet for each scalability, `results/fig6-SCALABILITY-PICTURE.png`,
and PSNR of whole levels to `results/fig6.tsv`.  Fits are kept, so a second crop costs nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import experiment
import numpy as np
import plots
from experiment import LEVELS, per_level
from fits import LevelFit, Picture, fit_levels, read_picture
from material import KODAK, find
from numpy.typing import NDArray
from results_file import ResultsFile

from pgsvc_codec.config import SCALABILITIES, STRATEGIES
from pgsvc_codec.errors import ConfigError
from pgsvc_codec.picture import Frame, to_rgb
from pgsvc_codec.video import VideoInfo

KEYS = ["picture", "scalability", *experiment.KEYS]
COLUMNS = [*KEYS, *experiment.level_columns("psnr", "splats", "width", "height"), "iterations_spent", "seconds"]
DEFAULT_CROP = 128  # pixels per side, so that a sheet stays small


class Crop(NamedTuple):
    """A square, in pixels of the full size."""

    x: int
    y: int
    size: int

    def of(self, frame: Frame, info: VideoInfo) -> NDArray[np.uint8]:
        """The same part of a frame of any size, [rows, columns, 3]."""
        rows, columns = frame[0].shape
        rgb = to_rgb(frame, replace(info, width=columns, height=rows))
        left, right = (round(side * columns / info.width) for side in (self.x, self.x + self.size))
        top, bottom = (round(side * rows / info.height) for side in (self.y, self.y + self.size))
        return rgb[top : max(bottom, top + 1), left : max(right, left + 1)]


def find_detail(picture: Picture, size: int) -> Crop:
    """The square, at multiples of half its size, in which neighbouring pixels differ most."""
    gray = to_rgb(picture.frame, picture.info).mean(axis=2)
    across, down = np.gradient(gray)
    energy = np.pad(np.square(across) + np.square(down), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    rows, columns = gray.shape
    step = max(size // 2, 1)
    places = [(x, y) for y in range(0, rows - size + 1, step) for x in range(0, columns - size + 1, step)]
    x, y = max(
        places,
        key=lambda place: (
            energy[place[1] + size, place[0] + size]
            - energy[place[1], place[0] + size]
            - energy[place[1] + size, place[0]]
            + energy[place[1], place[0]]
        ),
    )
    return Crop(x, y, size)


def choose_crop(picture: Picture, options: argparse.Namespace) -> Crop:
    """What the options say.

    Raises:
        ConfigError: the crop lies outside the picture.
    """
    width, height = picture.info.width, picture.info.height
    size = options.crop_size or min(width, height, DEFAULT_CROP)
    if not 1 <= size <= min(width, height):
        raise ConfigError(f"crop size: got {size}, allowed 1..{min(width, height)}")
    if options.crop is None:
        return find_detail(picture, size)
    x, y = options.crop
    if not (0 <= x <= width - size and 0 <= y <= height - size):
        raise ConfigError(f"crop: got {x} {y}, allowed 0..{width - size} 0..{height - size}")
    return Crop(x, y, size)


def fit_all(
    picture: Picture, scalability: str, results: ResultsFile, options: argparse.Namespace
) -> dict[str, LevelFit]:
    """The fits of all strategies, with their rows in the results."""
    fits = {}
    for strategy in options.strategy:
        fit_keys = experiment.keys_of(options, strategy, options.splats)
        keys = {"picture": picture.name, "scalability": scalability, **fit_keys}
        fit = fit_levels(picture, experiment.config_of(fit_keys, scalability=scalability))
        fits[strategy] = fit
        if not results.has(**keys):
            results.add(
                **keys,
                **per_level("psnr", fit.psnr(picture.info)),
                **per_level("splats", fit.splats),
                **per_level("width", [frame[0].shape[1] for frame in fit.pictures]),
                **per_level("height", [frame[0].shape[0] for frame in fit.pictures]),
                iterations_spent=fit.iterations,
                seconds=fit.seconds,
            )
    return fits


def plot(picture: Picture, crop: Crop, scalability: str, fits: dict[str, LevelFit]) -> None:
    """The sheet: a row for the source and one for each strategy, a column for each level."""
    side = max(crop.size, DEFAULT_CROP) / 85  # inches, so that no pixel gets lost
    figure, axes = plots.panels(len(fits) + 1, len(LEVELS), width=side, height=side + 0.2)
    any_fit = next(iter(fits.values()))
    rows = {"source": (any_fit.references, [""] * len(LEVELS))}
    for strategy, fit in fits.items():
        rows[strategy] = (fit.pictures, [f"{value:.2f} dB" for value in fit.psnr(picture.info)])
    for row, (name, (frames, notes)) in zip(axes, rows.items(), strict=True):
        for level, axis, frame, note in zip(LEVELS, row, frames, notes, strict=True):
            height, width = frame[0].shape
            axis.imshow(crop.of(frame, picture.info), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(note or f"level {level}, {width}×{height}", fontsize="small")
        row[0].set_ylabel(name)
    what = f"{picture.name}, {scalability} scalability\n{any_fit.splats[-1]} splats, crop at {crop.x}, {crop.y}"
    figure.suptitle(what, fontsize="medium")
    plots.save(figure, f"fig6-{scalability}-{Path(picture.name).stem}")


def main() -> None:
    """Fit, then show."""
    parser = experiment.parser_of(__doc__)
    parser.add_argument("picture", nargs="?", type=Path, default=KODAK)
    parser.add_argument("--scalability", nargs="+", choices=SCALABILITIES, default=list(SCALABILITIES))
    parser.add_argument("--crop", nargs=2, type=int, metavar=("X", "Y"), help="left and top; default: most detail")
    parser.add_argument("--crop-size", type=int, metavar="N", help=f"pixels per side; default: {DEFAULT_CROP}")
    shown = ["pruning", "monolithic", "sequential", "joint"]
    experiment.add_options(parser, experiment.SPLATS[:1], shown, STRATEGIES)
    options = parser.parse_args()
    for path in find([options.picture])[:1]:
        picture = read_picture(path)
        crop = choose_crop(picture, options)
        with ResultsFile("fig6", COLUMNS, KEYS) as results:
            for scalability in options.scalability:
                plot(picture, crop, scalability, fit_all(picture, scalability, results, options))


if __name__ == "__main__":
    experiment.run(main)
