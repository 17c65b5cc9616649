"""What all tests share: the folder of real material, a real ffmpeg, and the device that CUDA code runs on.

Kernels are compiled where there is a GPU.  Where there is none they run under Triton's interpreter, on tensors in host
memory, and tests marked `cuda` are skipped, or fail under PGSVC_REQUIRE_CUDA=1, where a GPU is what is tested.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

# Machines that run tests are shared: an example that took long is no bug.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


# Jobs in the background of a script begin with this signal ignored, and so would what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _missing_gpu() -> str | None:
    """Why compiled kernels cannot run here; None where they can."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        return "TRITON_INTERPRET is set"
    try:
        import torch
    except ImportError as error:
        return str(error)
    if torch.cuda.is_available():
        return None
    return "torch sees none" if torch.version.cuda else "this torch has no CUDA"


MISSING_GPU = _missing_gpu()
if MISSING_GPU is not None:
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined, so before any test imports them
os.environ["PGSVC_DEVICE"] = "cpu"  # everywhere the same: tests of other devices name them


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU where there is none, or fail them where there must be one."""
    if MISSING_GPU is None or item.get_closest_marker("cuda") is None:
        return
    if os.environ.get("PGSVC_REQUIRE_CUDA") == "1":
        pytest.fail(f"needs an NVIDIA GPU, and PGSVC_REQUIRE_CUDA=1 asks for one: {MISSING_GPU}", pytrace=False)
    pytest.skip(f"needs an NVIDIA GPU: {MISSING_GPU}")


@pytest.fixture(scope="session")
def cuda_device() -> torch.device:
    """Where tensors of CUDA code lie in tests: on the GPU, else in host memory, for Triton's interpreter."""
    import torch

    return torch.device("cuda" if MISSING_GPU is None else "cpu")


@pytest.fixture
def any_order(cuda_device: torch.device) -> Iterator[None]:
    """Where kernels are interpreted: as many programs as on a GPU, last first, whose memory is watched."""
    if cuda_device.type == "cuda":
        yield
        return
    from interpreted import sizes_of_a_gpu, watched_memory

    with sizes_of_a_gpu(), watched_memory(backwards=True) as launches:
        yield
        assert launches


DEFAULT_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def data_path() -> Callable[[str], Path]:
    """A function from a file name to its path under $PGSVC_DATA; skips, naming the file, where it is absent."""
    root = Path(os.environ.get("PGSVC_DATA", DEFAULT_DATA))

    def path_of(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} under PGSVC_DATA = {root}")
        return path

    return path_of


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., bytes]:
    """A function that runs ffmpeg with the given arguments and returns its stdout."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    executable = imageio_ffmpeg.get_ffmpeg_exe()

    def run(*arguments: object, stdin: bytes = b"") -> bytes:
        command = [executable, "-v", "error", "-y", *map(str, arguments)]
        return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Renders on one thread: on a busy machine threads wait longer for each other than tiny pictures take."""
    import numba

    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)
