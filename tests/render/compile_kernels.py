"""Compiles what is launched, for GPUs that need not be there, and prints what it takes of a multiprocessor.

Tensors have shapes and types but no memory, and launches are compiled instead; run by test_cuda_compilation.py where
Triton does not interpret its kernels.  One line of JSON per kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from pgsvc_codec.picture import PlaneGrid
from pgsvc_codec.render import cpu
from pgsvc_codec.render.cuda import kernels
from pgsvc_codec.render.cuda.canvases import Canvas, Canvases
from pgsvc_codec.render.cuda.raster import Raster
from pgsvc_codec.render.cuda.table import SplatTable
from pgsvc_codec.splats import Splats

TYPES = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64",
    torch.uint8: "*u8", torch.uint16: "*u16",
}  # fmt: skip
seen: set[str] = set()
DEVICE = torch.device("meta")
SIZE = (64, 48)
GRID = PlaneGrid(*SIZE, 0.0, 0.0, 1.0, 1.0, 0.5, 0.5)
MAX_CODES = {1: 255, 2: 1023, 3: 0}  # of all types of samples one each


def resources(cubin: bytes) -> dict[str, int]:
    """Registers, stack (spills go there) and so on of a compiled kernel."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        dump = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", dump.stdout)}


def compile_launch(kernel: JITFunction, *args: object, grid: object, warmup: bool, **kwargs: object) -> None:
    """In place of a launch: the same kernel for the same types, compiled."""
    options = {name: kwargs.pop(name) for name in ("num_warps", "enable_fp_fusion") if name in kwargs}
    values = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    is_one = {name for name, value in values.items() if type(value) is int and value == 1}  # which become constants
    for name, value in values.items():  # others are interpreted, but not launched
        known = value.device == DEVICE if isinstance(value, torch.Tensor) else type(value) in (int, float, bool)
        assert known, f"kernel {kernel.fn.__name__}, argument {name}: got {value!r}"
    constants = {
        p.name: values[p.name]
        for p in kernel.params
        if p.is_constexpr or (p.name in is_one and not p.do_not_specialize)
    }
    signature = {
        name: "constexpr"
        if name in constants
        else TYPES[value.dtype]
        if isinstance(value, torch.Tensor)
        else "fp32"
        if isinstance(value, float)
        else "i32"
        for name, value in ((name, values[name]) for name in kernel.arg_names)
    }
    aligned = {(n,): [["tt.divisibility", 16]] for n, kind in enumerate(signature.values()) if kind.startswith("*")}
    name = f"{kernel.fn.__name__} with {constants} and {signature}"
    if name in seen:
        return
    seen.add(name)
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    architecture = int(sys.argv[1])
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    fused = len(re.findall(r"\bfma\.rn\.f32\b", compiled.asm["ptx"]))
    print(json.dumps({"name": name, "FMA": fused, **resources(compiled.asm["cubin"])}), flush=True)


def new(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device=DEVICE)


def paint_and_fit(channels: int) -> None:
    """What a rasteriser launches."""
    rows = 100
    table = SplatTable(
        new(rows, 2), new(rows, 3), new(rows, 3), new(rows, dtype=torch.int32), new(rows, dtype=torch.int32)
    )
    canvases = Canvases([Canvas(0, SIZE, GRID)], slice(0, channels), [0, 1], DEVICE)
    raster = Raster(canvases, rows, 1000)
    raster.paint(table, new(1, channels), MAX_CODES[channels])
    squared_error = new(1, 2, channels, dtype=torch.float64)
    raster.fit(table, new(canvases.total), new(1, 2, channels), squared_error, new(rows, 8))
    with suppress(RuntimeError):  # which says that there are no numbers to return
        raster.count(table)
    listed = new(100, dtype=torch.int32)
    kernels.cull[1,](
        canvases.shapes, new(rows, kernels.TABLE_COLUMNS.value), listed, listed, listed, listed, len(listed), 4,
        tile_width=16, tile_height=16, block=256, enable_fp_fusion=False,
    )  # fmt: skip


def train() -> None:
    """What fits, motion, births and refinement launch."""
    from pgsvc_codec.train import births as births_of_host
    from pgsvc_codec.train.cuda import (
        births,
        buffers,
        changes,
        coded,
        motion,
        plain,
        refine_slots,
        refine_whole,
        residuals,
        runs,
        tiles,
    )
    from pgsvc_codec.train.main.residuals import Grids, Lattice
    from pgsvc_codec.train.motion import Motion
    from pgsvc_codec.train.objective import LevelTarget, Objective

    for module in (births, buffers, changes):
        module._LARGE_BLOCK = module._BLOCK
    planes = [np.zeros(SIZE[::-1], np.float32)] * 3
    objective = Objective(SIZE, [LevelTarget(planes, [GRID] * 3)], cpu)
    rows = 64
    runs._Buffers([objective], rows, DEVICE, opponent=True, rated=True)._iterate()
    plain.PlainBuffers(objective, rows, DEVICE)._iterate()
    coded.CodedBuffers(objective, rows, DEVICE, num_parts=2, stages=2, entries=64)._iterate()
    frame = changes._Frame(objective, rows, (3, 4), DEVICE, opponent=True)
    frame._iterate_on_field()
    frame.losses(slice(0, rows), 1.0)
    plane, starts = new(*SIZE[::-1]), new(2, 2, 2, dtype=torch.int32)
    for block, reach in ((motion.COARSE_BLOCK, motion.RANGE), (motion.BLOCK, motion.FINE_RANGE)):
        motion._searched(plane, plane, block, starts, 32, reach, 0.5)
    no_numbers = suppress(RuntimeError, NotImplementedError)  # which say that tensors have none to read back
    with no_numbers:
        births._candidates([plane] * 3, births_of_host.octaves(*SIZE, 10), 100)
    births._candidates = lambda *_: np.array([[1.0, 20.0, 20.0, 3.0]])
    with no_numbers:
        births.find_births([plane] * 3, 1.0, SIZE, 10, 1)
    splats = Splats(np.zeros((1, 2), np.float32), np.ones((1, 3), np.float32), np.zeros((1, 3), np.float32))
    with no_numbers:
        motion.follow(splats, Motion(np.zeros((3, 4, 2), np.float32), 0.0, 0.0, planes[0], planes[0]), DEVICE)

    lattice = Lattice(4096, np.array(SIZE), True)
    field = residuals.CudaField(new(plane.numel()), Grids(np.zeros((1, 6), np.int32), np.zeros((1, 5)), 0, 1.0))
    positions = np.full((3, 2), 64 * 24, np.int32)  # of a splat in a small tile, one in a wide tile, one in none
    shapes = np.array([[0, 0, 0], [1200, 0, 1200], [2500, 0, 2500]], np.int32)
    field.show(positions, shapes, np.zeros((3, 3)), lattice)
    cut = tiles.cut([(positions, shapes)], np.zeros(3, np.bool_))
    table, prices = new(3, 20, dtype=torch.int32), new(100)
    for settling, proposed, chosen in (
        (refine_whole, (prices, 2, 64, 48, 4096, 1), (prices, 4096, 1)),
        (refine_slots, (prices, prices, 4096, 1, 1), (prices, prices, 4096, 1)),
    ):
        field._settle_all(cut, table, 1.0, settling, proposed, chosen, lattice)


def main() -> None:
    """Arguments are an architecture, as 90, and what to compile: numbers of channels, or ``train``."""
    JITFunction.run = compile_launch  # type: ignore[method-assign, assignment]
    for what in sys.argv[2:]:
        if what == "train":
            train()
        else:
            paint_and_fit(int(what))


if __name__ == "__main__":
    main()
