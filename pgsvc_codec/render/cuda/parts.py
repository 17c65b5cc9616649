"""What the CUDA rasteriser stands on, tried part by part: torch, a device, Triton's compiler, gsplat's binning."""

from __future__ import annotations

import os
import warnings
from contextlib import redirect_stdout
from functools import cache

import torch

from pgsvc_codec.render.availability import Part, one_line, version_of
from pgsvc_codec.render.rasterizer import Rasterizer


def torch_part(*, is_needed: bool) -> Part:
    """Whether this torch has been built for CUDA."""
    cuda = torch.version.cuda
    detail = f"torch {torch.__version__} is built {f'for CUDA {cuda}' if cuda else 'without CUDA'}"
    return Part("torch", cuda is not None, detail, is_needed)


def device_part(device: str) -> Part:
    """Whether torch computes on a device, ``cpu`` or ``cuda:N``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what keeps torch from it comes as an error too
            right = torch.arange(3, device=device).sum().item() == 3
    except Exception as error:  # torch has many of its own
        return Part("device", False, f"torch cannot use {device} ({one_line(error)})")
    if not right:
        return Part("device", False, f"torch computes wrongly on {device}")
    if device == "cpu":
        return Part("device", True, "host memory, since TRITON_INTERPRET is set")
    props = torch.cuda.get_device_properties(device)
    memory = props.total_memory / 2**30
    return Part("device", True, f"{device} {props.name}, compute {props.major}.{props.minor}, {memory:.0f} GiB")


def triton_part(device: str) -> Part:
    """Whether Triton is there, and compiles a kernel that runs on a device."""
    release = version_of("triton")
    if release is None:
        return Part("Triton", False, "Triton is not installed")
    try:
        from pgsvc_codec.render.cuda.trial import run_trial

        right = run_trial(torch.device(device))
    except Exception as error:  # compilers and drivers raise whatever they like
        return Part("Triton", False, f"Triton {release} runs no kernel on {device} ({one_line(error)})")
    if not right:
        return Part("Triton", False, f"Triton {release} computes wrongly on {device}")
    return Part("Triton", True, f"Triton {release} {'interprets' if device == 'cpu' else 'compiles'} kernels")


def gsplat_part(device: str) -> Part:
    """Whether gsplat bins splats on ``cuda:N``: another way to do it, which nothing needs.

    Its CUDA code is compiled when it is first used, which takes minutes.
    """
    release = version_of("gsplat")
    if release is None:
        return Part("gsplat", False, "gsplat is not installed", is_needed=False)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # stdout is data
            from gsplat import isect_tiles

            means = torch.tensor([[[8.0, 8.0]]], device=device)
            radii = torch.full((1, 1, 2), 4, dtype=torch.int32, device=device)
            counts, *_ = isect_tiles(means, radii, torch.zeros(1, 1, device=device), 16, 1, 1)
            right = counts.sum().item() == 1
    except Exception as error:  # it may fail to import, to compile or to run
        return Part("gsplat", False, f"gsplat {release} does not run on {device} ({one_line(error)})", is_needed=False)
    return Part("gsplat", right, f"gsplat {release} bins {'' if right else 'wrongly '}on {device}", is_needed=False)


@cache
def open_rasterizer(device: str) -> Rasterizer:
    """The CUDA rasteriser on ``cuda:N``, the same one each time; on ``cpu`` it is interpreted."""
    from pgsvc_codec.render.cuda.rasterizer import CudaRasterizer

    return CudaRasterizer(torch.device(device))
