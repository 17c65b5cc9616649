"""Rows of a benchmark, as they come: a TSV with the command, commit and machine on every row."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


def _commit() -> str:
    """Short hash of the checkout, with + where files differ from it; "unknown" outside a checkout."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


def _machine() -> str:
    """Processor, cores, Python."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


class ResultsFile:
    """Writes one results file anew, row by row, so that an interrupted run keeps what it had.

    Args:
        name: of the file, without folder and ending.
        columns: names of the measured values.
    """

    def __init__(self, name: str, columns: list[str]) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / f"{name}.tsv"
        self._columns = columns
        self._tail = {
            "command": " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]]),
            "commit": _commit(),
            "machine": _machine(),
        }
        self._file = self.path.open("w", encoding="utf-8")
        self._write([*columns, *self._tail])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, **values: Any) -> None:
        """One row; floats to four significant places behind the point at most."""
        cells = [values[column] for column in self._columns]
        row = [f"{cell:.4f}".rstrip("0").rstrip(".") if isinstance(cell, float) else str(cell) for cell in cells]
        self._write([*row, *self._tail.values()])
        print("  ".join(f"{column}={cell}" for column, cell in zip(self._columns, row, strict=True)), flush=True)

    def _write(self, cells: list[str]) -> None:
        self._file.write("\t".join(cells) + "\n")
        self._file.flush()
