"""GOPs coded side by side: the same bytes and figures whoever codes them, one line on errors, nothing left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest
from codec_clips import Clip, stream_of

from pgsvc_codec import EncodeConfig
from pgsvc_codec.errors import ConfigError, PgsError
from pgsvc_codec.media.raw import frame_to_bytes, y4m_header
from pgsvc_codec.workers import local_workers

CONFIGS = {
    "main": EncodeConfig(quality=40, iterations=8, keyint=3, device="cpu"),
    "baseline": EncodeConfig(profile="baseline", splats=24, iterations=8, keyint=3, device="cpu"),
}
ENCODE = [sys.executable, "-m", "pgsvc_codec.cli.encode"]


class Elsewhere(Executor):
    """Runs a task as it comes out of a pipe, when it is handed out; counts those that nobody has fetched."""

    def __init__(self) -> None:
        self.out = self.most_out = 0

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        elsewhere = self

        class Fetched(Future):  # type: ignore[type-arg]
            def result(self, timeout: float | None = None) -> object:
                elsewhere.out -= 1
                return super().result(timeout)

            def done(self) -> bool:
                return False  # as if it took its time

        self.out += 1
        self.most_out = max(self.most_out, self.out)
        future = Fetched()
        future.set_result(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(fn))(*args, **kwargs))))
        return future


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("profile", CONFIGS)
def test_the_same_stream_wherever_gops_are_coded(profile: str) -> None:
    clip = Clip(frames=10, cut=7)
    alone, report = stream_of(clip, CONFIGS[profile])
    assert report.gops == 4
    told = []
    elsewhere = Elsewhere()
    apart, other = stream_of(
        clip, CONFIGS[profile], executor=elsewhere, gops_in_flight=2, progress=lambda state: told.append(state.frames)
    )
    assert apart == alone
    assert other._replace(seconds=0) == report._replace(seconds=0)
    assert told == [3, 6, 7, 10]
    assert elsewhere.most_out == 2, "memory is bounded by the GOPs in flight"


def test_no_gop_in_flight_is_refused() -> None:
    with pytest.raises(ConfigError, match="GOPs in flight: got 0, allowed 1 and more"):
        stream_of(Clip(), CONFIGS["main"], executor=Elsewhere(), gops_in_flight=0)


def test_a_worker_that_is_killed_is_told_in_one_line() -> None:
    with local_workers(1) as executor:
        executor.submit(os._exit, 1)
        with pytest.raises(PgsError, match="a worker ended without a word"):
            stream_of(Clip(frames=6), CONFIGS["baseline"], executor=executor)


def test_cuda_devices_are_dealt_out_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-5")
    with local_workers(1, [1]) as executor:
        assert executor.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "GPU-5"


@pytest.mark.cuda
def test_workers_share_one_cuda_device() -> None:
    config = EncodeConfig(quality=40, iterations=8, keyint=3, device="cuda:0")
    clip = Clip(frames=9)
    with local_workers(2, [0]) as executor:
        assert stream_of(clip, config, executor=executor)[0] == stream_of(clip, config)[0]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A y4m file of twelve frames."""
    clip = Clip(frames=12)
    path = tmp_path / "clip.y4m"
    frames = (b"FRAME\n" + frame_to_bytes(frame, clip.info) for frame in clip)
    path.write_bytes(y4m_header(clip.info) + b"".join(frames))
    return path


def children_of(parent: int) -> set[int]:
    """Processes that were started by another."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(number: signal.Signals, clip: Path) -> None:
    options = ["--iterations", "500000", "-g", "6", "--device", "cpu", "-j", "2", "-y", "-q"]
    with subprocess.Popen([*ENCODE, str(clip), str(clip.with_suffix(".pgs")), *options], stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 60
        while len(children_of(run.pid)) < 3 and time.monotonic() < deadline:  # two, and what tracks their resources
            time.sleep(0.1)
        workers = children_of(run.pid)
        assert len(workers) == 3
        run.send_signal(number)
        assert run.stderr is not None
        said = run.stderr.read()  # to the end: workers hold it open
    assert run.returncode in (130, -number)
    if number == signal.SIGINT:
        assert said == b"pgsvc-encode: error: interrupted\n"
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
