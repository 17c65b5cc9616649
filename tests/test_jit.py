"""Kernels kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUMS = """
from pgsvc_codec.jit import kernel
@kernel()
def part(x):
    return x + {}
"""
BETWEEN = """
from kernels.sums import part
from pgsvc_codec.jit import kernel
@kernel(inline="always")
def twice(x):
    return 2 * part(x)
"""
TOP = """
from kernels.between import twice
from pgsvc_codec.jit import kernel
@kernel()
def top(x):
    return twice(x)
"""
USE = "from kernels.top import top; print(top(1), sum(top.stats.cache_hits.values()))"


def test_edits_of_what_a_kernel_calls_are_seen(tmp_path: Path) -> None:
    package = tmp_path / "kernels"
    package.mkdir()
    for name, text in (("__init__", ""), ("sums", SUMS.format(1)), ("between", BETWEEN), ("top", TOP)):
        (package / f"{name}.py").write_text(text)

    def use() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
        return subprocess.check_output([sys.executable, "-c", USE], env=environment, cwd=tmp_path, text=True).strip()

    assert use() == "4 0"
    assert use() == "4 1"
    (package / "sums.py").write_text(SUMS.format("10  # another number"))
    assert use() == "22 0"
    assert use() == "22 1"
