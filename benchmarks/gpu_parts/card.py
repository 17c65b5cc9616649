"""The ceilings of a roofline, measured on the card: copy bandwidth, fused multiply-adds, powers of two."""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl

from gpu_parts.timing import Rows, device_ms, facts

_CHAINS = 4  # independent ones in each thread
_UNROLLED = 16


@triton.jit
def _multiply_add(values, out, rounds, block: tl.constexpr, unrolled: tl.constexpr):
    """Chains of x = a x + b, of which nothing is left out: a and b are not known before."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    a = tl.load(values + place)
    b = a * 0.5
    x0, x1, x2, x3 = a, a + 1.0, a + 2.0, a + 3.0
    for _ in range(rounds):
        for _ in tl.static_range(unrolled):
            x0 = x0 * a + b
            x1 = x1 * a + b
            x2 = x2 * a + b
            x3 = x3 * a + b
    tl.store(out + place, x0 + x1 + x2 + x3)


@triton.jit
def _powers_of_two(values, out, rounds, block: tl.constexpr, unrolled: tl.constexpr):
    """Chains of x = 2^x - 1: an exponential and an addition each."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    x0 = tl.load(values + place)
    x1, x2, x3 = x0 * 0.5, x0 * 0.25, x0 * 0.125
    for _ in range(rounds):
        for _ in tl.static_range(unrolled):
            x0 = tl.exp2(x0) - 1.0
            x1 = tl.exp2(x1) - 1.0
            x2 = tl.exp2(x2) - 1.0
            x3 = tl.exp2(x3) - 1.0
    tl.store(out + place, x0 + x1 + x2 + x3)


class Ceilings(dict[str, float]):
    """Rates per second: `bytes` copied (read and written), `fma` operations (two each), `exp2`."""


def measure(rows: Rows, at: torch.device, *, tiny: bool) -> Ceilings:
    """Rates of the card, each also as a row."""
    size = 1 << 12 if tiny else 1 << 28  # floats: 1 GiB, far more than the second-level cache
    rounds = 2 if tiny else 20
    sources = [torch.rand(size, device=at) for _ in range(2)]
    target = torch.empty(size, device=at)

    def copy(number: int) -> None:
        target.copy_(sources[number % 2])

    milliseconds = device_ms(copy, at, rounds)
    found = Ceilings(bytes=8 * size / milliseconds * 1e3)
    rows.add("copy bandwidth", found["bytes"] / 1e12, "TB/s", note="bytes read and written")
    block, programs, turns = (32, 2, 1) if tiny else (1024, 4224, 256)
    for name, kernel, operations in (("fma", _multiply_add, 2), ("exp2", _powers_of_two, 1)):
        values = torch.rand(block * programs, device=at) * 0.1
        launch = partial(kernel[(programs,)], values, torch.empty_like(values), turns, block, _UNROLLED, num_warps=4)
        milliseconds = device_ms(lambda _, launch=launch: launch(), at, rounds)
        found[name] = operations * _CHAINS * _UNROLLED * turns * block * programs / milliseconds * 1e3
        rows.add(f"rate of {name}", found[name] / 1e12, "T/s", note="an fma counts as two operations")
    clocks = facts(at).get("clocks.sm")
    if clocks:
        rows.add("clock after these", float(clocks.split()[0]), "MHz")
    return found
