"""The kernels compile for GPUs that need not be there, and keep what they work on in registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
BINNING = {"project", "emit", "cull"}
PAINTING = {"arrange", "paint", "fit", "sum_squares", "sum_moments", "count_samples"}
FITTING = {"values", "step", "field_slopes", "field_step", "losses"}
TUNING = {"add_loss", "decode", "learn", "follow"}
SEARCHING = {"_search", "_follow", "_binomial", "_energies", "_peaks", "_colors"}
REFINING = {"take_large", "propose_large", "pull_large", "choose_large", "paint_large", "paint_tiles", "settle"}


def compiled(*arguments: str) -> list[dict[str, object]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parents[1]), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(here / "compile_kernels.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row for row in rows if row["STACK"] or row["LOCAL"]] == []
    return rows


def names_of(rows: list[dict[str, object]]) -> set[str]:
    return {str(row["name"]).split()[0] for row in rows}


@pytest.mark.skipif(not (TOOLS / "ptxas").exists(), reason="this Triton has no ptxas")
@pytest.mark.parametrize(("architecture", "channels"), [("90", ["1", "2", "3"]), ("80", ["3"])])
def test_triton_kernels_spill_no_registers(architecture, channels):
    rows = compiled(architecture, *channels)
    assert names_of(rows) == BINNING | PAINTING
    assert [row for row in rows if row["REG"] > 128] == []
    # what one counts another lists: in each the same numbers are rounded
    assert [row for row in rows if row["FMA"] and str(row["name"]).split()[0] in BINNING] == []


@pytest.mark.skipif(not (TOOLS / "ptxas").exists(), reason="this Triton has no ptxas")
def test_triton_kernels_of_fits_spill_no_registers():
    assert names_of(compiled("90", "train")) >= FITTING | TUNING | SEARCHING | REFINING
