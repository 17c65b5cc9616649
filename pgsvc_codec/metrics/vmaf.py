"""VMAF of a sequence, by an FFmpeg that has libvmaf: its default model, which looks at luma alone.

Reference and distorted luma go through one pipe, frame by frame in turn, and are told apart behind it: two pipes could
wait for each other for ever, and files would grow with the clip.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from pgsvc_codec.errors import BackendError, InputError
from pgsvc_codec.picture import Plane

MIN_SIDE = 17  # samples; libvmaf crashes on less
_LOG = "vmaf.json"
_ERRORS = "errors.txt"
_GRAPH = (
    "[0:v]split[a][b];"
    "[a]select='not(mod(n,2))',setpts=N[reference];"
    "[b]select='mod(n,2)',setpts=N[distorted];"
    "[distorted][reference]libvmaf=log_fmt=json:log_path={log}:n_threads={threads}"
)


def find_ffmpeg() -> str:
    """An ffmpeg with libvmaf: the one on PATH, else the one that the package imageio-ffmpeg carries.

    Raises:
        BackendError: neither is there, or neither has libvmaf.
    """
    missing = []
    on_path = shutil.which("ffmpeg")
    if on_path is None:
        missing.append("none on PATH")
    elif _has_libvmaf(on_path):
        return os.path.abspath(on_path)  # PATH may hold a relative folder, and we start it elsewhere
    else:
        missing.append(f"{on_path} without it")
    try:
        import imageio_ffmpeg

        carried: str = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # the package, or its executable for this platform, is not there
        missing.append("no imageio-ffmpeg")
    else:
        if _has_libvmaf(carried):
            return carried
        missing.append(f"{carried} without it")
    raise BackendError(f"VMAF: needs an ffmpeg with libvmaf, got {' and '.join(missing)}; the extra metrics brings one")


def _has_libvmaf(ffmpeg: str) -> bool:
    try:
        listed = subprocess.run(
            [ffmpeg, "-hide_banner", "-filters"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError:  # not for this machine
        return False
    return any(line.split()[1:2] == ["libvmaf"] for line in listed.stdout.splitlines())


class VmafMeter:
    """VMAF of a sequence of luma planes, 0..100; 97 and more for equal pictures (the model knows no higher at rest).

    Use it as a context manager, or call `close`.

    Args:
        max_code: 255 or 1023.
        threads: of libvmaf; default: all cores.

    Raises:
        BackendError: there is no ffmpeg with libvmaf.
    """

    def __init__(self, max_code: int, *, threads: int | None = None) -> None:
        self._ffmpeg = find_ffmpeg()
        self._max_code = max_code
        self._threads = threads or os.cpu_count() or 1
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._neutral = b""  # chroma: libvmaf takes no luma alone
        self._frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, reference: Plane, distorted: Plane) -> None:
        """Take in one frame: luma planes, all of the same shape.

        Raises:
            InputError: the frame is too small to be measured.
            BackendError: ffmpeg failed.
        """
        process = self._process or self._start(*reference.shape)
        assert process.stdin is not None
        try:
            with _broken_pipes_as_errors():
                for plane in (reference, distorted):
                    process.stdin.write(plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes())
                    process.stdin.write(self._neutral)
                process.stdin.flush()
        except BrokenPipeError:
            process.wait()
            raise self._failure(process.returncode) from None
        self._frames += 1

    def finish(self) -> list[float]:
        """The VMAF of each frame; ends the measurement.

        Raises:
            BackendError: ffmpeg failed.
        """
        process, folder = self._process, self._folder
        if process is None or folder is None:
            return []
        with _broken_pipes_as_errors():
            process.communicate()
        log = Path(folder.name, _LOG)
        if process.returncode or not log.exists():
            raise self._failure(process.returncode)
        scores = [float(frame["metrics"]["vmaf"]) for frame in json.loads(log.read_bytes())["frames"]]
        if len(scores) != self._frames:
            raise BackendError(f"VMAF: {self._ffmpeg} measured {len(scores)} of {self._frames} frames")
        self.close()
        return scores

    def close(self) -> None:
        """End ffmpeg, whatever it has done, and remove its files."""
        if self._process is not None:
            self._process.kill()
            with _broken_pipes_as_errors():
                self._process.communicate()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self, rows: int, columns: int) -> subprocess.Popen[bytes]:
        if min(rows, columns) < MIN_SIDE:
            raise InputError(f"VMAF: got {columns}x{rows}, allowed sides of {MIN_SIDE} and more")
        is_deep = self._max_code > 255
        chroma_samples = 2 * (-(-rows // 2) * -(-columns // 2))
        self._neutral = np.full(chroma_samples, self._max_code // 2 + 1, "<u2" if is_deep else "u1").tobytes()
        self._folder = tempfile.TemporaryDirectory(prefix="pgsvc-vmaf-")
        pix_fmt = "yuv420p10le" if is_deep else "yuv420p"
        given = ["-f", "rawvideo", "-pix_fmt", pix_fmt, "-video_size", f"{columns}x{rows}", "-i", "pipe:0"]
        graph = _GRAPH.format(log=_LOG, threads=self._threads)
        with Path(self._folder.name, _ERRORS).open("wb") as errors:
            self._process = subprocess.Popen(
                [self._ffmpeg, "-v", "error", "-nostdin", *given, "-filter_complex", graph, "-f", "null", "-"],
                cwd=self._folder.name,  # where the log goes, without a path to be escaped in the graph
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        return self._process

    def _failure(self, status: int) -> BackendError:
        assert self._folder is not None
        said = Path(self._folder.name, _ERRORS).read_text(encoding="utf-8", errors="replace").splitlines()
        how = f"was ended by signal {-status}" if status < 0 else f"returned {status}"
        return BackendError(f"VMAF: {self._ffmpeg} {how}: {said[-1].strip() if said else 'it says nothing'}")


@contextmanager
def _broken_pipes_as_errors() -> Iterator[None]:
    """Where a process has set SIGPIPE to end it, let a pipe that broke inside raise BrokenPipeError all the same."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
