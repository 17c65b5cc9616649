"""Which rasteriser runs: the choice behind ``--device``, explained when it cannot be had."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import AbstractContextManager
from shutil import rmtree
from tempfile import mkdtemp
from types import ModuleType

from pgsvc_codec.errors import BackendError

_passing_folders: list[str] = []  # where kernels are kept that the next process will not find


def load(device: str) -> ModuleType:
    """The module with `render` and `fit_step` for a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BackendError: the device is unknown or has no rasteriser here.
    """
    if device in ("auto", "cpu"):
        return _load_cpu()
    if device == "cuda" or (device.startswith("cuda:") and device[5:].isdigit()):
        raise BackendError(f"device {device}: this version has no CUDA rasteriser, allowed auto, cpu")
    raise BackendError(f"device: got {device}, allowed auto, cpu, cuda, cuda:N")


def _load_cpu() -> ModuleType:
    """The CPU rasteriser; numba keeps its kernels beside it, else in the user's cache, else until the process ends."""
    from numba import config

    try:
        from pgsvc_codec.render import cpu
    except RuntimeError:  # numba may write to neither place, and refuses to go on without one
        folder = mkdtemp(prefix="pgsvc-kernels-")
        atexit.register(rmtree, folder, ignore_errors=True)
        _passing_folders.append(folder)
        config.CACHE_DIR = folder  # type: ignore[attr-defined]
        from pgsvc_codec.render import cpu
    return cpu


def on_compilation(tell: Callable[[bool], None]) -> AbstractContextManager[None]:
    """While the context lasts, call `tell` once if kernels must be compiled: seconds in which nothing else happens.

    Its argument is whether they will be found on disk next time.
    """
    from numba.core.event import Event, Listener, install_listener

    class FirstCompilation(Listener):
        """Does not hear of kernels that are found in the cache on disk."""

        told = False

        def on_start(self, event: Event) -> None:
            if not self.told:
                self.told = True
                tell(not _passing_folders)

        def on_end(self, event: Event) -> None:
            pass

    return install_listener("numba:compile", FirstCompilation())
