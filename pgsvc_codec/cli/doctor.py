"""What this machine can run: every backend with what it needs, whether that works and, if not, why."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

from pgsvc_codec.errors import BackendError
from pgsvc_codec.metrics.vmaf import find_ffmpeg
from pgsvc_codec.render.availability import Part, is_interpreted, version_of
from pgsvc_codec.render.backend import choose, cpu_parts, cuda_parts, on_compilation

_PACKAGES = (
    "av",
    "click",
    "constriction",
    "gsplat",
    "llvmlite",
    "numba",
    "numpy",
    "pytorch_optimizer",
    "scikit-learn",
    "torch",
    "triton",
)


def examine(tell: Callable[[str], None]) -> dict[str, Any]:
    """A document on this machine; `tell` is given a line before whatever may take long."""

    def tell_compilation(is_kept: bool) -> None:
        tell("compiling the CPU rasteriser: up to half a minute")

    with on_compilation(tell_compilation):
        cpu = _backend("cpu", cpu_parts())
    cuda = _cuda(tell)
    choice = choose("auto")
    return {
        "system": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        },
        "auto": {"device": choice.name, "because": choice.because},
        "backends": [cpu, cuda],
        "versions": {**{package: version_of(package) for package in _PACKAGES}, "ffmpeg": _ffmpeg_version()},
    }


def describe(document: dict[str, Any]) -> str:
    """The document as text."""
    system, auto = document["system"], document["auto"]
    lines = [
        f"system   {system['platform']}, Python {system['python']}, "
        f"{system['cores_allowed']} of {system['cores']} cores",
        f"auto     {auto['device']}{', because ' + auto['because'] if auto['because'] else ''}",
    ]
    for backend in document["backends"]:
        lines.append(f"\nbackend {backend['name']} {'works' if backend['works'] else 'does not work'}")
        width = max(len(part["name"]) for part in backend["parts"])
        for part in backend["parts"]:
            verdict = "yes" if part["works"] else "no " if part["needed"] else "-  "
            lines.append(f"  {part['name']:{width}}  {verdict}  {part['detail']}")
    versions = (f"{name} {version or '-'}" for name, version in document["versions"].items())
    lines.append(f"\nversions {', '.join(versions)}")
    return "\n".join(lines)


def _cuda(tell: Callable[[str], None]) -> dict[str, Any]:
    """The CUDA backend, on its first device."""
    parts = list(cuda_parts())
    if not _work(parts) or is_interpreted():
        parts.append(Part("gsplat", False, "not tried without a CUDA device that works", is_needed=False))
    else:
        from pgsvc_codec.render.cuda.parts import gsplat_part

        tell("trying gsplat, which compiles its CUDA code when it is first used: minutes")
        parts.append(gsplat_part("cuda:0"))
    return _backend("cuda", parts)


def _work(parts: Iterable[Part]) -> bool:
    return all(part.works or not part.is_needed for part in parts)


def _backend(name: str, parts: Iterable[Part]) -> dict[str, Any]:
    tried = list(parts)
    return {
        "name": name,
        "works": _work(tried),
        "parts": [
            {"name": part.name, "works": part.works, "needed": part.is_needed, "detail": part.detail} for part in tried
        ],
    }


def _ffmpeg_version() -> str | None:
    """Of the ffmpeg that VMAF is measured by."""
    try:
        command = [find_ffmpeg(), "-version"]
    except BackendError:
        return None
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    return said.split()[2] if said.startswith("ffmpeg version ") else None
