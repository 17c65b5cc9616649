"""What all tables and figures have in common: three equal layers, options, and the columns that name a measurement."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from pgsvc_codec.config import PRESETS, EncodeConfig
from pgsvc_codec.errors import PgsError

LAYERS = 3  # in equal parts
LEVELS = range(1, LAYERS + 1)
SPLATS = (5000, 7000, 9000)
KEYS = ["strategy", "splats", "preset", "iterations", "seed"]


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it stands."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_options(
    parser: argparse.ArgumentParser, splats: Sequence[int], strategies: Sequence[str], choices: Sequence[str]
) -> None:
    """Options of the fits.

    Args:
        splats: default budgets; several where the command takes several.
        strategies: default ones.
        choices: all that the command can do.
    """
    several = {"nargs": "+", "default": list(splats)} if len(splats) > 1 else {"default": splats[0]}
    parser.add_argument("--splats", type=int, metavar="N", help="all layers together", **several)
    parser.add_argument("--strategy", nargs="+", choices=choices, default=list(strategies))
    parser.add_argument("--preset", choices=list(PRESETS), default="paper")
    parser.add_argument("--iterations", type=int, metavar="N", help="over all layers; default: the preset's")
    parser.add_argument("--seed", type=int, default=0)


def keys_of(options: argparse.Namespace, strategy: str, splats: int) -> dict[str, Any]:
    """What `KEYS` are in one fit."""
    return {
        "strategy": strategy,
        "splats": splats,
        "preset": options.preset,
        "iterations": options.iterations or PRESETS[options.preset].iterations,
        "seed": options.seed,
    }


def config_of(keys: dict[str, Any], *, layers: int = LAYERS, scalability: str = "quality") -> EncodeConfig:
    """Options of the encoder from `keys_of`."""
    values = {key: keys[key] for key in KEYS}
    return EncodeConfig(profile="baseline", layers=layers, scalability=scalability, **values)


def per_level(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A value of every level by the names of their columns."""
    return {f"{name}_{level}": value for level, value in zip(LEVELS, values, strict=True)}


def level_columns(*names: str) -> list[str]:
    """Columns that `per_level` fills."""
    return [f"{name}_{level}" for name in names for level in LEVELS]


def run(main: Callable[[], None]) -> None:
    """Run a command; what the codec refuses ends it with one line."""
    try:
        main()
    except PgsError as error:
        raise SystemExit(str(error)) from None
