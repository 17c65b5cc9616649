"""A kernel that does next to nothing: whether kernels can be compiled and run at all, before anything depends on it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from pgsvc_codec.render.cuda.device import use


@triton.jit
def _squares(out, SIZE: tl.constexpr):  # noqa: N803
    row = tl.arange(0, SIZE)
    tl.store(out + row, row * row)


def run_trial(device: torch.device) -> bool:
    """Compile, run and check it on a device; raises whatever stands in the way."""
    size = 16
    out = torch.zeros(size, dtype=torch.int32, device=device)
    with use(device):
        _squares[(1,)](out, size)
    return out.tolist() == [row * row for row in range(size)]
