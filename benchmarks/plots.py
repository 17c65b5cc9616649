"""What the figures look like."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from results_file import RESULTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {
    "joint": "tab:red",
    "joint-random": "tab:orange",
    "sequential": "tab:blue",
    "monolithic": "black",
    "pruning": "tab:green",
}
LINES = (":", "--", "-")  # of levels 1 to 3


def panels(rows: int, columns: int, width: float = 5.0, height: float = 4.0) -> tuple[Any, NDArray[Any]]:
    """A figure and its axes [rows, columns]; inches per panel."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, np.asarray(axes)


def save(figure: Any, name: str) -> None:
    """Write `results/NAME.png` and say so."""
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"wrote {path}")
