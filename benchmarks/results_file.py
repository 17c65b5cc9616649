"""Rows of a benchmark, as they come: a TSV with the command, commit and machine on every row, resumable."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("PGSVC_BENCHMARKS", Path(__file__).parent))  # what benchmarks write lies here
RESULTS = FOLDER / "results"
WORK = FOLDER / "work"  # kept between runs, not part of the project


def commit() -> str:
    """Short hash of the checkout, with + where files differ from it; outside a checkout $PGSVC_COMMIT or "unknown"."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("PGSVC_COMMIT", "unknown")
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


def _command() -> str:
    """As it was given; paths from the root of the project, so that results do not tell where it lies."""
    given = [os.path.relpath(word, ROOT) if os.path.isabs(word) else word for word in sys.argv[1:]]
    return " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *given])


class ResultsFile:
    """Writes one results file, row by row, so that an interrupted run keeps what it had.

    Args:
        name: of the file, without folder and ending.
        columns: names of the measured values.
        keys: those of the columns that name a measurement.  With keys, rows of earlier runs stay, and `has` knows
            them; without, the file is begun anew.
        is_shown: whether rows are printed as they come.

    Raises:
        SystemExit: the file that is there has other columns.
    """

    def __init__(self, name: str, columns: list[str], keys: Sequence[str] = (), *, is_shown: bool = True) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        self.path = RESULTS / f"{name}.tsv"
        self._columns = columns
        self._keys = list(keys)
        self._is_shown = is_shown
        self._tail = {"command": _command(), "commit": commit(), "machine": _machine()}
        header = [*columns, *self._tail]
        self.rows = read_rows(self.path) if keys and self.path.exists() else []
        if self.rows and list(self.rows[0]) != header:
            raise SystemExit(f"{self.path}: got columns {', '.join(self.rows[0])}, allowed {', '.join(header)}")
        if self.rows:
            _drop_cut_line(self.path)
        self._file = self.path.open("a" if self.rows else "w", encoding="utf-8")
        if not self.rows:
            self._write(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def has(self, **keys: Any) -> bool:
        """Whether a row with these keys is there."""
        return bool(self.matching(**{key: keys[key] for key in self._keys}))

    def matching(self, **values: Any) -> list[dict[str, str]]:
        """The rows with these values, in the order in which they came."""
        wanted = {key: _cell(value) for key, value in values.items()}
        return [row for row in self.rows if all(row[key] == value for key, value in wanted.items())]

    def add(self, **values: Any) -> None:
        """One row; floats to four significant places behind the point at most, None as an empty cell."""
        row = [_cell(values[column]) for column in self._columns]
        self.rows.append(dict(zip([*self._columns, *self._tail], [*row, *self._tail.values()], strict=True)))
        self._write([*row, *self._tail.values()])
        if self._is_shown:
            print("  ".join(f"{column}={cell}" for column, cell in zip(self._columns, row, strict=True)), flush=True)

    def _write(self, cells: list[str]) -> None:
        self._file.write("\t".join(cells) + "\n")
        self._file.flush()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a results file; a last line that was cut short is left out."""
    header, *lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    names = header.split("\t")
    cells = [line.split("\t") for line in lines]
    return [dict(zip(names, row, strict=True)) for row in cells if len(row) == len(names)]


def _drop_cut_line(path: Path) -> None:
    """Shorten a file to its last end of line."""
    whole = path.read_bytes().rpartition(b"\n")
    with path.open("r+b") as file:
        file.truncate(len(whole[0]) + len(whole[1]))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
