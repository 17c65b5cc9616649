"""Kernels kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILES = {
    "__init__": "",
    "numbers": "FACTOR = 2\n",
    "words": """
from llvmlite import ir
def one_more(builder, x):
    return builder.add(x, ir.Constant(x.type, 1))
""",
    "sums": """
from numba.core import types
from numba.extending import intrinsic
from kernels.words import one_more
@intrinsic
def part(typing, x):
    def generate(context, builder, signature, arguments):
        return one_more(builder, arguments[0])
    return types.int64(types.int64), generate
""",
    "between": """
from kernels import sums
from kernels.numbers import FACTOR
from pgsvc_codec.jit import kernel
_SQUARE = FACTOR * FACTOR
@kernel(inline="always")
def scaled(x):
    return below(x)
@kernel()
def below(x):
    return _SQUARE * sums.part(x)
""",
    "top": """
from kernels.between import scaled
from pgsvc_codec.jit import kernel
@kernel()
def top(x):
    return scaled(x)
""",
}
USE = "from kernels.top import top; print(top(1), sum(top.stats.cache_hits.values()))"


def test_edits_of_what_a_kernel_is_made_from_are_seen(tmp_path: Path) -> None:
    package = tmp_path / "kernels"
    package.mkdir()
    for name, text in FILES.items():
        (package / f"{name}.py").write_text(text)

    def use() -> str:
        # Python's own cache would miss a second edit of the same length within a second
        places = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
        environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.check_output([sys.executable, "-c", USE], env=environment, cwd=tmp_path, text=True).strip()

    assert use() == "8 0"
    assert use() == "8 1"
    (package / "words.py").write_text(FILES["words"].replace("x.type, 1", "x.type, 10"))
    assert use() == "44 0"
    (package / "numbers.py").write_text("FACTOR = 3\n")
    assert use() == "99 0"
    assert use() == "99 1"
