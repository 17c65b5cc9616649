"""Which rasteriser runs: the choice behind ``--device``, explained when it cannot be had."""

from __future__ import annotations

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
