"""Which rasteriser runs: the choice behind ``--device``, explained when it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType

from pgsvc_codec.errors import BackendError


def load(device: str) -> ModuleType:
    """The module with `render` and `fit_step` for a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BackendError: the device is unknown or has no rasteriser here.
    """
    if device in ("auto", "cpu"):
        from pgsvc_codec.render import cpu

        return cpu
    if device == "cuda" or (device.startswith("cuda:") and device[5:].isdigit()):
        raise BackendError(f"device {device}: this version has no CUDA rasteriser, allowed auto, cpu")
    raise BackendError(f"device: got {device}, allowed auto, cpu, cuda, cuda:N")


def on_compilation(tell: Callable[[], None]) -> AbstractContextManager[None]:
    """While the context lasts, call `tell` once if kernels must be compiled: seconds in which nothing else happens."""
    from numba.core.event import Event, Listener, install_listener

    class FirstCompilation(Listener):
        """Does not hear of kernels that are found in the cache on disk."""

        told = False

        def on_start(self, event: Event) -> None:
            if not self.told:
                self.told = True
                tell()

        def on_end(self, event: Event) -> None:
            pass

    return install_listener("numba:compile", FirstCompilation())
