"""P-GSVC: scalable image and video coding with layered 2D Gaussian splats.

Importing the package loads neither NumPy nor torch; the public names below load what they need on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Decoder": "pgsvc_codec.decoder",
    "EncodeConfig": "pgsvc_codec.config",
    "PgsError": "pgsvc_codec.errors",
    "VideoInfo": "pgsvc_codec.video",
    "encode": "pgsvc_codec.encoder",
    "encode_monolithic": "pgsvc_codec.encoder",
    "encode_stills": "pgsvc_codec.encoder",
}

__all__ = [
    "Decoder",
    "EncodeConfig",
    "PgsError",
    "VideoInfo",
    "__version__",
    "encode",
    "encode_monolithic",
    "encode_stills",
]

if TYPE_CHECKING:
    from pgsvc_codec.config import EncodeConfig
    from pgsvc_codec.decoder import Decoder
    from pgsvc_codec.encoder import encode, encode_monolithic, encode_stills
    from pgsvc_codec.errors import PgsError
    from pgsvc_codec.video import VideoInfo


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
