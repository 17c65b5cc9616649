"""What Figures 7 and 8 share: every file measured under every setting, and averages over files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import experiment
from experiment import LEVELS
from material import CLIPS, DATA, KODAK, PICTURES, find, is_picture
from results_file import ResultsFile

from pgsvc_codec.config import SCALABILITIES, STRATEGIES, EncodeConfig

KEYS = ["file", "frames", "scalability", *experiment.KEYS]


def parse(description: str | None, scalability: Sequence[str]) -> argparse.Namespace:
    """The options of a command, with these scalabilities by default."""
    parser = experiment.parser_of(description)
    parser.add_argument("files", nargs="*", type=Path, default=[KODAK, DATA])
    parser.add_argument("--frames", type=int, metavar="N", help="of each clip; default: all")
    parser.add_argument("--scalability", nargs="+", choices=SCALABILITIES, default=list(scalability))
    experiment.add_options(parser, experiment.SPLATS, ("monolithic", "sequential", "joint"), STRATEGIES)
    return parser.parse_args()


def find_kinds(options: argparse.Namespace) -> dict[str, list[Path]]:
    """The files, stills apart from clips; only what there is."""
    files = find(options.files, PICTURES + CLIPS)
    kinds = {
        "stills": [path for path in files if is_picture(path)],
        "clips": [path for path in files if not is_picture(path)],
    }
    return {kind: members for kind, members in kinds.items() if members}


def settings(files: Sequence[Path], options: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files and what names their measurements, all files at one setting before the next setting."""
    for scalability, splats, strategy, path in product(options.scalability, options.splats, options.strategy, files):
        keys = {
            "file": path.name,
            "frames": 1 if is_picture(path) else options.frames or "all",
            "scalability": scalability,
            **experiment.keys_of(options, strategy, splats),
        }
        yield path, keys


def config_of(keys: dict[str, Any]) -> EncodeConfig:
    """Options of the encoder for a measurement."""
    return experiment.config_of(keys, scalability=keys["scalability"])


def measure(
    files: Sequence[Path],
    results: ResultsFile,
    options: argparse.Namespace,
    measure_one: Callable[[Path, dict[str, Any], int | None], dict[str, Any]],
) -> None:
    """Measure what is not in the results yet.

    Args:
        measure_one: a row from a file, its keys and the number of frames, None for all.
    """
    asked = list(settings(files, options))
    for number, (path, keys) in enumerate(asked, start=1):
        if not results.has(**keys):
            print(f"[{number}/{len(asked)}]", end=" ", flush=True)
            results.add(**keys, **measure_one(path, keys, None if is_picture(path) else options.frames))


def averages(
    files: Sequence[Path], results: ResultsFile, options: argparse.Namespace, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Means over files, one entry for each setting and level; None where a file has no value.

    Args:
        columns: names without the number of the level.
    """
    groups: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    for _, keys in settings(files, options):
        groups.setdefault(tuple(keys[name] for name in KEYS[1:]), []).extend(results.matching(**keys))
    means = []
    for (setting, rows), level in product(groups.items(), LEVELS):
        cells = {column: [row[f"{column}_{level}"] for row in rows] for column in columns}
        means.append(
            dict(zip(KEYS[1:], setting, strict=True))
            | {"files": len(rows), "level": level}
            | {column: fmean(map(float, values)) if all(values) else None for column, values in cells.items()}
        )
    return means
