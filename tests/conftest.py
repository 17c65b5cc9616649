"""What all tests share: the folder of real material, and a real ffmpeg."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Machines that run tests are shared: an example that took long is no bug.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

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
