"""Times on a GPU: medians between device events after a warm-up, and the rows that they become.

In host memory, where Triton interprets kernels, the wall clock stands in for events; such rows say `interpreter`, and
their figures mean nothing but that everything runs.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from pgsvc_codec.render.availability import is_interpreted

INTERPRETER = "interpreter"
_MOST_RATIO = 1e6


def device() -> torch.device:
    """Where tensors lie: on the GPU, or in host memory for Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() and not is_interpreted() else "cpu")


def device_name(at: torch.device) -> str:
    """What the column `device` says."""
    return torch.cuda.get_device_name(at) if at.type == "cuda" else INTERPRETER


class Target(NamedTuple):
    """What a figure is held to."""

    value: float
    at_least: bool  # else at most

    def ratio(self, figure: float) -> float:
        """Above 1 where the target is met, and by how much."""
        met, asked = (figure, self.value) if self.at_least else (self.value, figure)
        return min(met / max(asked, 1e-9), _MOST_RATIO)


def at_least(value: float) -> Target:
    """A figure that is to be large."""
    return Target(value, True)


def at_most(value: float) -> Target:
    """A figure that is to be small."""
    return Target(value, False)


class Rows:
    """Writes rows of one part to a file, line by line, so that a crash keeps what it had.

    Args:
        path: JSON lines.
        part: of the benchmark.
        at: where tensors lie.
    """

    def __init__(self, path: Path, part: str, at: torch.device) -> None:
        self._path = path
        self._same = {"part": part, "device": device_name(at)}

    def add(self, name: str, value: float | None, unit: str, target: Target | None = None, note: str = "") -> None:
        """One figure; None where it could not be had, and `note` says why."""
        row: dict[str, Any] = {**self._same, "name": name, "value": value, "unit": unit, "target": None, "ratio": None}
        if target is not None:
            row["target"] = target.value
            row["ratio"] = None if value is None else target.ratio(value)
        row["note"] = " ".join(note.split())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Whatever fails inside is a row, and the part goes on."""
        try:
            yield
        except Exception as error:
            self.add(name, None, "", note=f"failed: {type(error).__name__}: {error}"[:300])


def synchronize(at: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if at.type == "cuda":
        torch.cuda.synchronize(at)


def device_ms(run: Callable[[int], object], at: torch.device, rounds: int, warm_up: int = 3) -> float:
    """Median milliseconds of a call on the device.

    Args:
        run: told the number of its round, so that inputs can take turns.
        at: where tensors lie.
        rounds: that are timed.
        warm_up: rounds before them; in host memory none, and one that is timed.
    """
    if at.type != "cuda":
        return 1e3 * wall_s(lambda: run(0), at)
    for number in range(warm_up):
        run(number)
    synchronize(at)
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for number, (begin, end) in enumerate(marks):
        begin.record()
        run(number)
        end.record()
    synchronize(at)
    return median(begin.elapsed_time(end) for begin, end in marks)


def wall_s(run: Callable[[], object], at: torch.device) -> float:
    """Seconds of one call, until the device has done its part."""
    synchronize(at)
    started = time.perf_counter()
    run()
    synchronize(at)
    return time.perf_counter() - started


def kernel_times(run: Callable[[], object], at: torch.device, rounds: int) -> dict[str, float]:
    """Microseconds per call that each kernel has on the GPU, by its name; nothing in host memory."""
    if at.type != "cuda":
        run()
        return {}
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    run()
    synchronize(at)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(rounds):
            run()
        synchronize(at)
    spent: dict[str, float] = {}
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CUDA:  # others are the host's, whose kernels are here as themselves
            spent[event.key] = spent.get(event.key, 0.0) + event.self_device_time_total / rounds
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def facts(at: torch.device) -> dict[str, str]:
    """Card, driver, clocks as they are, and versions."""
    from importlib import metadata

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "none"

    told = {
        "card": device_name(at),
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        **{package: version(package) for package in ("torch", "triton", "numpy", "numba", "gsplat")},
    }
    if at.type == "cuda":
        card = torch.cuda.get_device_properties(at)
        told["multiprocessors"] = str(card.multi_processor_count)
        told["memory_gib"] = f"{card.total_memory / 2**30:.0f}"
        told |= _smi("driver_version", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
    return told


def _smi(*fields: str) -> dict[str, str]:
    """What nvidia-smi says of the first card; nothing where it is not there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (word.strip() for word in done.stdout.strip().split(",")), strict=False))
