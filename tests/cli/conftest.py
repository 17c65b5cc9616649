"""Fixtures of the tests of the commands: a tiny clip, its stream, and two ways to run a command."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from clips import CLIP_FRAMES, STREAM_OPTIONS, Encoded, Outcome, clip_frame, command_line, y4m_of

from pgsvc_codec.cli.common import execute
from pgsvc_codec.cli.decode import decode
from pgsvc_codec.cli.encode import encode
from pgsvc_codec.cli.metrics import metrics
from pgsvc_codec.picture import Frame


class Terminal(io.StringIO):
    """A stderr before which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="session")
def here() -> Callable[..., Outcome]:
    """A function that runs a command in this process: quick, and as good where no process matters."""
    commands = {"encode": encode, "decode": decode, "metrics": metrics}

    def run(name: str, *arguments: object, stdin: bytes = b"", on_terminal: bool = False) -> Outcome:
        out, err = io.TextIOWrapper(io.BytesIO()), Terminal() if on_terminal else io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            code = execute(commands[name], list(map(str, arguments)))
        out.flush()
        assert isinstance(out.buffer, io.BytesIO)
        return Outcome(code, out.buffer.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def apart() -> Callable[..., Outcome]:
    """A function that runs a command as a process of its own."""

    def run(name: str, *arguments: object, stdin: bytes = b"", **options: Any) -> Outcome:
        line = command_line(name, *arguments)
        done = subprocess.run(line, input=stdin, capture_output=True, check=False, **options)
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    return run


@pytest.fixture(scope="session")
def clip_frames() -> list[Frame]:
    return [clip_frame(index) for index in range(CLIP_FRAMES)]


@pytest.fixture(scope="session")
def clip(clip_frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A y4m file of `CLIP`."""
    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    path.write_bytes(y4m_of(clip_frames))
    return path


@pytest.fixture(scope="session")
def stream(clip: Path, here: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """The clip in three layers and two GOPs of three frames."""
    folder = tmp_path_factory.mktemp("stream")
    path, report = folder / "clip.pgs", folder / "clip.json"
    done = here("encode", clip, path, *STREAM_OPTIONS, "--json", report)
    assert done.code == 0, done.err
    return Encoded(path, json.loads(report.read_text()))


@pytest.fixture(scope="session")
def piped(clip: Path, apart: Callable[..., Outcome]) -> bytes:
    """What `stream` holds, as it leaves a process with two threads through a pipe."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = apart("encode", "-", "-", *STREAM_OPTIONS, "-q", stdin=clip.read_bytes(), env=environment)
    assert (done.code, done.err) == (0, "")
    return done.out
