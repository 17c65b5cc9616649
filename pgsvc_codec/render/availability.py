"""How it is found out whether a part that a rasteriser stands on works and, if not, why.

The driver is asked without torch, so that a machine without one pays nothing for looking.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pgsvc_codec.picture import PlaneGrid
from pgsvc_codec.splats import Splats

if TYPE_CHECKING:
    from pgsvc_codec.render.rasterizer import Rasterizer

_DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_MOST_NAME = 256  # bytes of a device's name, the final 0 included
_TOLERANCE = 1e-3  # unit values; a quarter of an 8-bit step


class Part(NamedTuple):
    """One thing that a backend needs or can use."""

    name: str
    works: bool
    detail: str  # one line: what is there; or why it does not work
    is_needed: bool = True


class Driver(NamedTuple):
    """NVIDIA's driver, and the devices that it shows to this process."""

    version: str  # of CUDA, the newest that it runs
    devices: tuple[str, ...]  # names, by index


def one_line(error: BaseException) -> str:
    """An error as a cause: the first line that says something, and the error's name where it is not plain."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    return f"{name}: {lines[0]}" if lines else name


def version_of(package: str) -> str | None:
    """Version of an installed package, None where there is none; nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def find_driver() -> Driver | str:
    """The driver, or why there is none that works."""
    try:
        cuda = ctypes.CDLL(_DRIVER)
    except OSError as error:
        return f"no NVIDIA driver ({error})"

    def failure(code: int) -> str:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        return (text.value or b"unknown error").decode(errors="replace")

    if code := cuda.cuInit(0):
        return f"the NVIDIA driver cannot start: {failure(code)} (error {code})"
    release, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(release))
    if code := cuda.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver cannot count its devices: {failure(code)} (error {code})"
    if not count.value:
        return "the NVIDIA driver shows no device to this process"
    names = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(_MOST_NAME)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, _MOST_NAME, device)
        names.append(name.value.decode(errors="replace"))
    return Driver(f"{release.value // 1000}.{release.value % 1000 // 10}", tuple(names))


def is_interpreted() -> bool:
    """Whether Triton is asked to interpret its kernels, on tensors in host memory (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def painting_part(load: Callable[[], Rasterizer]) -> Part:
    """Whether a rasteriser can be loaded and paints some splats as the reference does."""
    from pgsvc_codec.render import reference

    splats = Splats(
        np.array([[-0.4, -0.3], [0.3, 0.2], [0.0, 0.9]], np.float32),
        np.array([[3.0, 1.0, 2.0], [0.7, -4.0, 2.5], [9.0, 0.0, 0.5]], np.float32),
        np.array([[0.5, 0.1, -0.2], [-0.3, 0.4, 0.2], [0.1, 0.2, 0.3]], np.float32),
    )
    scene = (splats, 24, 16, PlaneGrid(24, 16, 0.0, 0.0, 1.0, 1.0), slice(0, 3), np.full(3, 0.25, np.float32), [1, 3])
    try:
        error = float(np.abs(load().render(*scene) - reference.render(*scene)).max())
    except Exception as problem:  # compilers and drivers raise whatever they like
        return Part("rasteriser", False, f"the rasteriser cannot paint ({one_line(problem)})")
    if not error < _TOLERANCE:
        return Part("rasteriser", False, f"the rasteriser paints otherwise than the reference, by {error:.2g} of white")
    return Part("rasteriser", True, "paints as the reference does")
